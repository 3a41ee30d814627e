//! A repository owns names: which manifests, tags and blobs of the shared content belong to it.
//!
//! ```text
//! repositories/<path>/_manifests/<digest>          media type of the manifest
//! repositories/<path>/_tags/<tag>                  digest of the manifest
//! repositories/<path>/_blobs/<digest>              empty
//! repositories/<path>/_referrers/<subject>/<digest> empty
//! ```
//!
//! Every record is one file that is written beside and renamed, so it is whole or not there. Folders of ours begin with
//! `_`, which no component of a repository's path can.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gantry_images::content::{ContentError, ContentStore};
use gantry_model::digest::Digest;
use gantry_model::reference::valid_path;

use crate::problem::Problem;

type Result<T> = std::result::Result<T, Problem>;

/// A valid repository path, such as `team/app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Checks a path against the grammar.
    pub fn parse(text: &str) -> Result<Name> {
        if valid_path(text) { Ok(Name(text.to_owned())) } else { Err(Problem::NameInvalid) }
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The records of all repositories.
#[derive(Debug)]
pub struct Repositories {
    folder: PathBuf,
    tmp: PathBuf,
}

fn storage(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_path_buf();
    move |source| Problem::Storage(Box::new(ContentError::Io { act, path, source }))
}

impl Repositories {
    /// Opens or creates the records in `folder`; temporary files go beside the content's.
    pub fn open(folder: &Path, content: &ContentStore) -> std::result::Result<Repositories, ContentError> {
        let made = fs::create_dir_all(folder);
        made.map_err(|source| ContentError::Io { act: "create folder", path: folder.to_path_buf(), source })?;
        Ok(Repositories { folder: folder.to_path_buf(), tmp: content.tmp().to_path_buf() })
    }

    fn path(&self, name: &Name, kind: &str) -> PathBuf {
        self.folder.join(&name.0).join(kind)
    }

    /// Whether anything was ever pushed to the repository.
    pub fn exists(&self, name: &Name) -> bool {
        self.path(name, "_manifests").is_dir()
    }

    fn write(&self, folder: &Path, file: &str, content: &[u8]) -> Result<()> {
        fs::create_dir_all(folder).map_err(storage("create folder", folder))?;
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|error| Problem::Storage(Box::new(error)))?;
        let tmp = self.tmp.join(format!("{:032x}", u128::from_ne_bytes(random)));
        let written = File::create_new(&tmp).and_then(|mut out| {
            out.write_all(content)?;
            out.sync_data()
        });
        written.map_err(storage("write", &tmp))?;
        let target = folder.join(file);
        fs::rename(&tmp, &target).map_err(storage("rename to", &target))?;
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(storage("sync folder", folder))
    }

    /// Puts a blob into the repository.
    pub fn link_blob(&self, name: &Name, digest: &Digest) -> Result<()> {
        self.write(&self.path(name, "_blobs"), &digest.hex(), b"")
    }

    /// Whether the repository has the blob.
    pub fn has_blob(&self, name: &Name, digest: &Digest) -> bool {
        self.path(name, "_blobs").join(digest.hex()).exists()
    }

    /// Takes a blob out of the repository; `false` if it was not in it.
    pub fn unlink_blob(&self, name: &Name, digest: &Digest) -> Result<bool> {
        remove(&self.path(name, "_blobs").join(digest.hex()))
    }

    /// Puts a manifest into the repository.
    pub fn put_manifest(&self, name: &Name, digest: &Digest, media_type: &str) -> Result<()> {
        self.write(&self.path(name, "_manifests"), &digest.hex(), media_type.as_bytes())
    }

    /// The media type of a manifest in the repository, and when it was put there.
    pub fn manifest(&self, name: &Name, digest: &Digest) -> Option<(String, SystemTime)> {
        let path = self.path(name, "_manifests").join(digest.hex());
        let media_type = fs::read_to_string(&path).ok()?;
        let time = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        Some((media_type, time))
    }

    /// Takes a manifest out of the repository, with the tags that lead to it; `false` if it was not in it.
    pub fn remove_manifest(&self, name: &Name, digest: &Digest) -> Result<bool> {
        // Tags first: one that leads nowhere would be worse than a manifest without.
        for tag in self.tags(name)? {
            if self.tag(name, &tag) == Some(*digest) {
                self.remove_tag(name, &tag)?;
            }
        }
        remove(&self.path(name, "_manifests").join(digest.hex()))
    }

    /// The manifests in the repository.
    pub fn manifests(&self, name: &Name) -> Result<Vec<Digest>> {
        let files = list(&self.path(name, "_manifests"))?;
        Ok(files.iter().filter_map(|file| Digest::parse_hex(file)).collect())
    }

    /// Sets a tag.
    pub fn put_tag(&self, name: &Name, tag: &str, digest: &Digest) -> Result<()> {
        self.write(&self.path(name, "_tags"), tag, digest.to_string().as_bytes())
    }

    /// Where a tag leads. The tag must be valid.
    pub fn tag(&self, name: &Name, tag: &str) -> Option<Digest> {
        let text = fs::read_to_string(self.path(name, "_tags").join(tag)).ok()?;
        Digest::parse(&text).ok()
    }

    /// Takes a tag away; `false` if there was none.
    pub fn remove_tag(&self, name: &Name, tag: &str) -> Result<bool> {
        remove(&self.path(name, "_tags").join(tag))
    }

    /// All tags, sorted.
    pub fn tags(&self, name: &Name) -> Result<Vec<String>> {
        list(&self.path(name, "_tags"))
    }

    /// Records that a manifest refers to another one as its subject.
    pub fn put_referrer(&self, name: &Name, subject: &Digest, digest: &Digest) -> Result<()> {
        self.write(&self.path(name, "_referrers").join(subject.hex()), &digest.hex(), b"")
    }

    /// Forgets such a reference.
    pub fn remove_referrer(&self, name: &Name, subject: &Digest, digest: &Digest) -> Result<()> {
        remove(&self.path(name, "_referrers").join(subject.hex()).join(digest.hex())).map(drop)
    }

    /// The manifests that refer to a subject.
    pub fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Digest>> {
        let files = list(&self.path(name, "_referrers").join(subject.hex()))?;
        Ok(files.iter().filter_map(|file| Digest::parse_hex(file)).collect())
    }

    /// The blobs in the repository.
    pub fn blobs(&self, name: &Name) -> Result<Vec<Digest>> {
        let files = list(&self.path(name, "_blobs"))?;
        Ok(files.iter().filter_map(|file| Digest::parse_hex(file)).collect())
    }

    /// All repositories, sorted.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        let mut open = vec![String::new()];
        while let Some(prefix) = open.pop() {
            for entry in list(&self.folder.join(&prefix))? {
                match entry.as_str() {
                    "_manifests" | "_blobs" if !names.iter().any(|Name(name)| *name == prefix) => {
                        names.push(Name(prefix.clone()));
                    }
                    own if own.starts_with('_') => {}
                    _ if prefix.is_empty() => open.push(entry),
                    _ => open.push(format!("{prefix}/{entry}")),
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The names in a folder, sorted; none if the folder is not there.
fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(storage("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(storage("list", folder))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(storage("remove", path)(error)),
    }
}
