//! Collection of garbage: mark what manifests refer to, then sweep the rest, while pushes and pulls go on.
//!
//! A blob counts as used for a grace period after it was uploaded, mounted, asked for or referred to. Marking runs
//! beside everything else. The sweep then removes blobs one by one, each under the gate that manifests are stored
//! under, and only if its time is still old: whoever relied on it since has touched it.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use gantry_model::digest::Digest;

use crate::Registry;
use crate::manifest::references;
use crate::problem::Problem;
use crate::repository::Name;

type Result<T> = std::result::Result<T, Problem>;

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests without a tag.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their size.
    pub bytes: u64,
}

impl Registry {
    /// Removes blobs that no manifest refers to and that nobody touched for `older_than`, and, if the options say so,
    /// manifests that have long been without a tag. Uploads idle for as long end too. Blocks.
    pub fn collect(&self, older_than: Duration) -> Result<Collected> {
        let mut done = Collected::default();
        self.uploads.expire(older_than);
        let now = SystemTime::now();
        if let Some(grace) = self.options.untagged_grace {
            for name in self.repositories.names()? {
                done.manifests += self.drop_untagged(&name, now.checked_sub(grace))?;
            }
        }
        let Some(cutoff) = now.checked_sub(older_than) else { return Ok(done) };
        let live = self.mark()?;
        for digest in self.content.list()? {
            if live.contains(&digest) {
                continue;
            }
            if let Some(size) = self.sweep(&digest, cutoff)? {
                done.blobs += 1;
                done.bytes += size;
            }
        }
        self.drop_dead_links()?;
        Ok(done)
    }

    fn mark(&self) -> Result<HashSet<Digest>> {
        let mut live = HashSet::new();
        for name in self.repositories.names()? {
            for digest in self.repositories.manifests(&name)? {
                if !live.insert(digest) {
                    continue;
                }
                let Some((media_type, _)) = self.repositories.manifest(&name, &digest) else { continue };
                // Removed meanwhile, or damaged: a manifest that can't be read keeps nothing alive but itself.
                match self.read_manifest(&digest).and_then(|content| references(&media_type, &content)) {
                    Ok(found) => live.extend(found.blobs.into_iter().chain(found.manifests)),
                    Err(error) => {
                        tracing::error!(%digest, %error, "a manifest of the registry can't be read")
                    }
                }
            }
        }
        Ok(live)
    }

    fn sweep(&self, digest: &Digest, cutoff: SystemTime) -> Result<Option<u64>> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let Ok((size, touched)) = self.content.stat(digest) else { return Ok(None) };
        if touched >= cutoff {
            return Ok(None);
        }
        self.content.remove(digest)?;
        Ok(Some(size))
    }

    /// Repositories forget the blobs that are gone.
    fn drop_dead_links(&self) -> Result<()> {
        for name in self.repositories.names()? {
            for digest in self.repositories.blobs(&name)? {
                let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
                if !self.content.has(&digest) {
                    self.repositories.unlink_blob(&name, &digest)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets manifests that have no tag, are in no index, are about no other manifest, and are old enough.
    fn drop_untagged(&self, name: &Name, cutoff: Option<SystemTime>) -> Result<u64> {
        let Some(cutoff) = cutoff else { return Ok(0) };
        let tags = self.repositories.tags(name)?;
        let mut kept: HashSet<Digest> =
            tags.iter().filter_map(|tag| self.repositories.tag(name, tag)).collect();
        let all = self.repositories.manifests(name)?;
        for digest in &all {
            let Some((media_type, _)) = self.repositories.manifest(name, digest) else { continue };
            let Ok(content) = self.read_manifest(digest) else { continue };
            let Ok(found) = references(&media_type, &content) else { continue };
            kept.extend(found.manifests);
            if found.subject.is_some() {
                kept.insert(*digest);
            }
        }
        let mut dropped = 0;
        for digest in all.iter().filter(|digest| !kept.contains(digest)) {
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let tags = self.repositories.tags(name)?;
            let tagged = tags.iter().any(|tag| self.repositories.tag(name, tag) == Some(*digest));
            let old = self.repositories.manifest(name, digest).is_some_and(|(_, time)| time < cutoff);
            if old && !tagged {
                self.forget_manifest(name, digest)?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}
