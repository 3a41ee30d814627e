//! Content is bytes under their own digest: a blob is complete, verified and durable, or it is not there.
//!
//! A blob is written to a temporary file, hashed on the way, synced, and then renamed to its digest; the rename is the
//! commit. Dying before it leaves a temporary file that the next open removes, dying after it leaves a whole blob.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use gantry_model::digest::Digest;
use sha2::{Digest as _, Sha256};

/// Content that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// There is no blob of this digest.
    #[error("blob {0} not found")]
    Missing(Digest),
    /// The bytes hash to something else than was promised.
    #[error("content does not match its digest: expected {expected}, got {actual}")]
    WrongDigest {
        /// What was promised.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// More or fewer bytes than was promised.
    #[error("content does not match its length: expected {expected} bytes, got {actual}")]
    WrongLength {
        /// What was promised.
        expected: u64,
        /// What arrived.
        actual: u64,
    },
    /// A document that is larger than any honest one.
    #[error("blob {digest} has {size} bytes, more than the {limit} that are read into memory")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The file system refused.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Result of a content operation.
pub type Result<T> = std::result::Result<T, ContentError>;

pub(crate) fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContentError {
    let path = path.to_path_buf();
    move |source| ContentError::Io { act, path, source }
}

/// A folder of blobs, and a folder for those that are on their way; both on one file system.
#[derive(Clone, Debug)]
pub struct ContentStore {
    folders: Arc<Folders>,
}

#[derive(Debug)]
struct Folders {
    blobs: PathBuf,
    tmp: PathBuf,
    partial: PathBuf,
}

impl ContentStore {
    /// Opens (and creates) the store at `dir`: `blobs/sha256`, `tmp`, `partial`. What a former process left in `tmp` is
    /// removed; `partial` is kept, to be resumed or aged out by its owner. One process only may have it open.
    pub fn open(dir: &Path) -> Result<ContentStore> {
        let folders =
            Folders { blobs: dir.join("blobs/sha256"), tmp: dir.join("tmp"), partial: dir.join("partial") };
        for path in [&folders.blobs, &folders.tmp, &folders.partial] {
            fs::create_dir_all(path).map_err(io_error("create folder", path))?;
        }
        for entry in fs::read_dir(&folders.tmp).map_err(io_error("list", &folders.tmp))? {
            let path = entry.map_err(io_error("list", &folders.tmp))?.path();
            if path.is_file() {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(ContentStore { folders: Arc::new(folders) })
    }

    /// The file of a blob, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folders.blobs.join(digest.hex())
    }

    /// The folder of temporary files.
    pub fn tmp(&self) -> &Path {
        &self.folders.tmp
    }

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.size(digest).is_ok()
    }

    /// The size of a blob in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        self.stat(digest).map(|(size, _)| size)
    }

    /// The size of a blob in bytes, and when it was stored or last touched.
    pub fn stat(&self, digest: &Digest) -> Result<(u64, SystemTime)> {
        let path = self.path(digest);
        let missing_or = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ContentError::Missing(*digest),
            _ => ContentError::Io { act: "stat", path: path.clone(), source },
        };
        let meta = fs::metadata(&path).map_err(missing_or)?;
        Ok((meta.len(), meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    /// Opens a blob for reading. Its content was verified when it was stored.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ContentError::Missing(*digest),
            _ => ContentError::Io { act: "open", path, source },
        })
    }

    /// Reads a whole small blob and verifies it again: documents are what everything else hangs on.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let size = self.size(digest)?;
        if size > limit {
            return Err(ContentError::TooLarge { digest: *digest, size, limit });
        }
        let path = self.path(digest);
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        self.open_blob(digest)?.take(limit).read_to_end(&mut content).map_err(io_error("read", &path))?;
        let actual = Digest::of(&content);
        if actual != *digest {
            return Err(ContentError::WrongDigest { expected: *digest, actual });
        }
        Ok(content)
    }

    /// Stores a small blob that is in memory.
    pub fn put(&self, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        if self.size(&digest).is_ok_and(|size| size == content.len() as u64) {
            self.touch(&digest)?;
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        ingest.append(content)?;
        ingest.commit(Some(&digest), Some(content.len() as u64)).map(|stored| stored.digest)
    }

    /// Starts a new blob in a temporary file, which goes when the ingest is dropped.
    pub fn ingest(&self) -> Result<Ingest> {
        let path = self.folders.tmp.join(random_name());
        let open = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = open.map_err(io_error("create", &path))?;
        Ok(Ingest::new(self.clone(), file, path, Leftover::Remove))
    }

    /// Starts or resumes a blob in a named file that stays when the ingest is dropped. What is there already is read and
    /// hashed, and given to `seen` as well. The name must be a plain file name.
    pub fn resume(&self, name: &str, mut seen: impl FnMut(&[u8]) -> io::Result<()>) -> Result<Ingest> {
        let path = self.partial_path(name);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io_error("open", &path))?;
        let mut ingest = Ingest::new(
            self.clone(),
            file.try_clone().map_err(io_error("open", &path))?,
            path.clone(),
            Leftover::Keep,
        );
        let mut buffer = vec![0u8; 256 * 1024];
        loop {
            let count = file.read(&mut buffer).map_err(io_error("read", &path))?;
            if count == 0 {
                return Ok(ingest);
            }
            ingest.hasher.update(&buffer[..count]);
            ingest.length += count as u64;
            seen(&buffer[..count]).map_err(io_error("resume", &path))?;
        }
    }

    /// The file of a named partial blob.
    pub fn partial_path(&self, name: &str) -> PathBuf {
        self.folders.partial.join(name)
    }

    /// Removes a named partial blob; none there is fine.
    pub fn discard_partial(&self, name: &str) -> Result<()> {
        remove_if_there(&self.partial_path(name))
    }

    /// Bytes of all partial blobs.
    pub fn partials_size(&self) -> Result<u64> {
        let mut size = 0;
        for entry in fs::read_dir(&self.folders.partial).map_err(io_error("list", &self.folders.partial))? {
            let entry = entry.map_err(io_error("list", &self.folders.partial))?;
            size += entry.metadata().map_or(0, |meta| meta.len());
        }
        Ok(size)
    }

    /// Removes the partial blobs that nobody has written to since `time`, and returns their names.
    pub fn expire_partials(&self, time: SystemTime) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folders.partial).map_err(io_error("list", &self.folders.partial))? {
            let entry = entry.map_err(io_error("list", &self.folders.partial))?;
            let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|modified| modified < time);
            if old {
                remove_if_there(&entry.path())?;
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// Makes a blob count as just stored, for collectors that spare what is recent.
    pub fn touch(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let file = self.open_blob(digest)?;
        file.set_modified(SystemTime::now()).map_err(io_error("touch", &path))
    }

    /// Removes a blob; none there is fine.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        remove_if_there(&self.path(digest))
    }

    /// All blobs. Files with other names are left alone and not listed.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let blobs = &self.folders.blobs;
        let mut digests = Vec::new();
        for entry in fs::read_dir(blobs).map_err(io_error("list", blobs))? {
            let name = entry.map_err(io_error("list", blobs))?.file_name();
            digests.extend(name.to_str().and_then(Digest::parse_hex));
        }
        digests.sort();
        Ok(digests)
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A name that no other temporary file has.
pub(crate) fn random_name() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // No entropy is no reason to fail: the name need only differ from the other names of this process.
        static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        bytes[..8].copy_from_slice(&count.to_le_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftover {
    Remove,
    Keep,
}

/// A blob that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A blob on its way into the store.
#[derive(Debug)]
pub struct Ingest {
    store: ContentStore,
    file: File,
    path: PathBuf,
    hasher: Sha256,
    length: u64,
    leftover: Leftover,
}

impl Ingest {
    fn new(store: ContentStore, file: File, path: PathBuf, leftover: Leftover) -> Ingest {
        Ingest { store, file, path, hasher: Sha256::new(), length: 0, leftover }
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(io_error("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of what is there.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Empties the blob, to start again.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(io_error("truncate", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(io_error("seek", &self.path))?;
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Verifies digest and length where they were promised, makes the blob durable, and gives it its name. On a
    /// mismatch the bytes are removed, also from a named partial: they are of no use to anybody.
    pub fn commit(mut self, digest: Option<&Digest>, length: Option<u64>) -> Result<Stored> {
        let actual = self.digest();
        let stored = Stored { digest: actual, size: self.length };
        if let Some(expected) = length.filter(|expected| *expected != self.length) {
            self.leftover = Leftover::Remove;
            return Err(ContentError::WrongLength { expected, actual: self.length });
        }
        if let Some(expected) = digest.filter(|expected| **expected != actual) {
            self.leftover = Leftover::Remove;
            return Err(ContentError::WrongDigest { expected: *expected, actual });
        }
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        let target = self.store.path(&actual);
        fs::rename(&self.path, &target).map_err(io_error("rename to", &target))?;
        // From here on there is nothing to clean up.
        self.leftover = Leftover::Keep;
        sync_folder(&self.store.folders.blobs)?;
        Ok(stored)
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.leftover == Leftover::Remove
            && let Err(error) = remove_if_there(&self.path)
        {
            tracing::warn!(%error, "a temporary blob stays until the next start");
        }
    }
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync folder", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gty-{}-content-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn only_verified_content_gets_a_name() {
        let dir = scratch("verify");
        let store = ContentStore::open(&dir).expect("open");
        let digest = store.put(b"hello").expect("put");
        assert_eq!(store.read(&digest, 10).expect("read"), b"hello");
        let mut ingest = store.ingest().expect("ingest");
        ingest.append(b"other").expect("append");
        assert!(matches!(ingest.commit(Some(&digest), None), Err(ContentError::WrongDigest { .. })));
        let mut ingest = store.ingest().expect("ingest");
        ingest.append(b"hell").expect("append");
        assert!(matches!(ingest.commit(None, Some(5)), Err(ContentError::WrongLength { .. })));
        assert_eq!(store.list().expect("list"), [digest]);
        assert_eq!(fs::read_dir(dir.join("tmp")).expect("tmp").count(), 0);
        fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn leftovers_of_a_dead_process_go_and_partials_are_resumed() {
        let dir = scratch("resume");
        let store = ContentStore::open(&dir).expect("open");
        fs::write(dir.join("tmp/left"), "x").expect("write");
        store.resume("part", |_| Ok(())).expect("resume").append(b"hel").expect("append");
        let store = ContentStore::open(&dir).expect("open again");
        assert!(!dir.join("tmp/left").exists());
        let mut seen = Vec::new();
        let mut ingest = store
            .resume("part", |bytes| {
                seen.extend_from_slice(bytes);
                Ok(())
            })
            .expect("resume");
        assert_eq!((ingest.length(), &seen[..]), (3, &b"hel"[..]));
        ingest.append(b"lo").expect("append");
        assert_eq!(ingest.commit(None, Some(5)).expect("commit").digest, Digest::of(b"hello"));
        assert!(!dir.join("partial/part").exists());
        fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn a_blob_damaged_on_disk_is_noticed_when_it_is_read() {
        let dir = scratch("damage");
        let store = ContentStore::open(&dir).expect("open");
        let digest = store.put(b"document").expect("put");
        fs::write(store.path(&digest), "dOcument").expect("damage");
        assert!(matches!(store.read(&digest, 100), Err(ContentError::WrongDigest { .. })));
        assert!(matches!(store.read(&digest, 3), Err(ContentError::TooLarge { .. })));
        fs::remove_dir_all(dir).expect("clean up");
    }
}
