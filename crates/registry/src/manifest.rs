//! Manifests are the only documents that the registry understands: what they refer to must be there, and stays.

use std::sync::PoisonError;

use gantry_images::oci::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Index, MAX_MANIFEST, Manifest, OCI_INDEX, OCI_MANIFEST,
};
use gantry_model::digest::Digest;
use gantry_model::reference::valid_tag;

use crate::Registry;
use crate::problem::Problem;
use crate::repository::Name;

type Result<T> = std::result::Result<T, Problem>;

/// What a client names a manifest by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A tag.
    Tag(String),
    /// The digest.
    Digest(Digest),
}

impl Selector {
    /// Parses the last part of a manifest's path.
    pub fn parse(text: &str) -> Result<Selector> {
        if text.contains(':') {
            let digest = Digest::parse(text).map_err(|error| Problem::DigestInvalid(error.to_string()))?;
            return Ok(Selector::Digest(digest));
        }
        match valid_tag(text) {
            true => Ok(Selector::Tag(text.to_owned())),
            false => Err(Problem::ManifestInvalid("invalid tag".to_owned())),
        }
    }
}

/// What a manifest refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Configuration and layers.
    pub blobs: Vec<Digest>,
    /// Manifests of an index.
    pub manifests: Vec<Digest>,
    /// The manifest that this one is about.
    pub subject: Option<Digest>,
}

/// A manifest as it is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A manifest that was stored.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its digest.
    pub digest: Digest,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
}

/// Reads what a manifest refers to.
pub fn references(media_type: &str, content: &[u8]) -> Result<References> {
    let invalid = |error: serde_json::Error| Problem::ManifestInvalid(error.to_string());
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => {
            let manifest: Manifest = serde_json::from_slice(content).map_err(invalid)?;
            check_head(manifest.schema_version, manifest.media_type.as_deref(), media_type)?;
            // Foreign layers are not in registries by their nature.
            let ours = |layer: &&Descriptor| {
                !layer.media_type.contains("foreign") && !layer.media_type.contains("nondistributable")
            };
            let layers = manifest.layers.iter().filter(ours).map(|layer| layer.digest);
            let blobs = [manifest.config.digest].into_iter().chain(layers).collect();
            let subject = manifest.subject.map(|subject| subject.digest);
            Ok(References { blobs, manifests: Vec::new(), subject })
        }
        OCI_INDEX | DOCKER_INDEX => {
            let index: Index = serde_json::from_slice(content).map_err(invalid)?;
            check_head(index.schema_version, index.media_type.as_deref(), media_type)?;
            let manifests = index.manifests.iter().map(|entry| entry.digest).collect();
            let subject = index.subject.map(|subject| subject.digest);
            Ok(References { blobs: Vec::new(), manifests, subject })
        }
        other => {
            let known: String = other.chars().take(100).collect();
            Err(Problem::ManifestInvalid(format!("media type {known:?} is not one of a manifest or index")))
        }
    }
}

fn check_head(schema: u32, own: Option<&str>, sent: &str) -> Result<()> {
    if schema != 2 {
        return Err(Problem::ManifestInvalid(format!("schema version {schema} is not supported")));
    }
    match own {
        Some(own) if own != sent => {
            Err(Problem::ManifestInvalid(format!("it says that it is {own:?}, but was sent as {sent:?}")))
        }
        _ => Ok(()),
    }
}

impl Registry {
    /// Finds a manifest.
    pub fn find_manifest(&self, name: &Name, selector: &Selector) -> Result<Served> {
        let unknown = |what: String| match self.repositories.exists(name) {
            true => Problem::ManifestUnknown(what),
            false => Problem::NameUnknown(name.as_str().to_owned()),
        };
        let digest = match selector {
            Selector::Digest(digest) => *digest,
            Selector::Tag(tag) => {
                self.repositories.tag(name, tag).ok_or_else(|| unknown(format!("tag {tag}")))?
            }
        };
        let found = self.repositories.manifest(name, &digest);
        let (media_type, _) = found.ok_or_else(|| unknown(digest.to_string()))?;
        let size = self.content.size(&digest).map_err(|_| unknown(digest.to_string()))?;
        Ok(Served { digest, media_type, size })
    }

    /// Reads a manifest, verified.
    pub fn read_manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        Ok(self.content.read(digest, MAX_MANIFEST)?)
    }

    /// Checks and stores a manifest: all that it refers to must be in the repository. Blocks.
    pub fn put_manifest(
        &self,
        name: &Name,
        selector: &Selector,
        media_type: &str,
        content: &[u8],
    ) -> Result<Accepted> {
        let digest = Digest::of(content);
        if let Selector::Digest(expected) = selector
            && *expected != digest
        {
            let text = format!("provided digest {expected} does not match the manifest's digest {digest}");
            return Err(Problem::DigestInvalid(text));
        }
        let references = references(media_type, content)?;
        // From the check to the record, no blob is removed.
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        for blob in &references.blobs {
            if !self.repositories.has_blob(name, blob) || self.content.touch(blob).is_err() {
                return Err(Problem::ManifestBlobUnknown(blob.to_string()));
            }
        }
        for child in &references.manifests {
            if self.repositories.manifest(name, child).is_none() || self.content.touch(child).is_err() {
                return Err(Problem::ManifestBlobUnknown(child.to_string()));
            }
        }
        self.content.put(content)?;
        if let Some(subject) = &references.subject {
            self.repositories.put_referrer(name, subject, &digest)?;
        }
        self.repositories.put_manifest(name, &digest, media_type)?;
        if let Selector::Tag(tag) = selector {
            self.repositories.put_tag(name, tag, &digest)?;
        }
        Ok(Accepted { digest, subject: references.subject })
    }

    /// Takes a tag or a manifest away. Blocks.
    pub fn delete_manifest(&self, name: &Name, selector: &Selector) -> Result<()> {
        match selector {
            Selector::Tag(tag) => match self.repositories.remove_tag(name, tag)? {
                true => Ok(()),
                false => Err(Problem::ManifestUnknown(format!("tag {tag}"))),
            },
            Selector::Digest(digest) => self.forget_manifest(name, digest),
        }
    }

    pub(crate) fn forget_manifest(&self, name: &Name, digest: &Digest) -> Result<()> {
        let known = self.repositories.manifest(name, digest);
        let (media_type, _) = known.ok_or_else(|| Problem::ManifestUnknown(digest.to_string()))?;
        let subject = self
            .read_manifest(digest)
            .and_then(|content| references(&media_type, &content))
            .map_or(None, |references| references.subject);
        self.repositories.remove_manifest(name, digest)?;
        if let Some(subject) = subject {
            self.repositories.remove_referrer(name, &subject, digest)?;
        }
        Ok(())
    }

    /// Descriptors of the manifests that are about a subject, as the referrers API lists them. Blocks.
    pub fn list_referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut list = Vec::new();
        for digest in self.repositories.referrers(name, subject)? {
            let Some((media_type, _)) = self.repositories.manifest(name, &digest) else { continue };
            let Ok(content) = self.read_manifest(&digest) else { continue };
            let mut descriptor = Descriptor::new(&media_type, digest, content.len() as u64);
            let Ok(document) = serde_json::from_slice::<serde_json::Value>(&content) else { continue };
            let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
            // Without a type of its own, an artifact's type is that of its configuration.
            descriptor.artifact_type =
                text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"]));
            descriptor.annotations = serde_json::from_value(document["annotations"].clone()).ok();
            list.push(descriptor);
        }
        Ok(list)
    }
}
