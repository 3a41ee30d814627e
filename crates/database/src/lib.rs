//! A redb file that outlives a full disk: [`Database`]. Knows the disk, not what is stored.
//!
//! redb refuses everything after its first failed write until the file is opened again, so a disk that was full for a second
//! would leave a daemon that can remember nothing, not even the removals that make room. Two things prevent that:
//!
//! - The file's blocks are allocated before they are needed, the next growth included. What rewrites pages inside them, as
//!   removals do, needs no room on the disk.
//! - After a failed write the file is opened again at once. What was to be written is lost, as the caller is told; what was
//!   there before is there.

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Any failure of redb.
pub type Result<T, E = redb::Error> = std::result::Result<T, E>;

/// Most bytes that are allocated beyond the file's end.
const MOST_AHEAD: u64 = 16 * 1024 * 1024;

type Open = Box<dyn Fn() -> Result<redb::Database> + Send + Sync>;

/// An open file. Transactions are one after the other.
pub struct Database {
    /// Of the file whose blocks are kept allocated.
    path: PathBuf,
    open: Open,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None after a failure to open it again.
    database: Option<redb::Database>,
    /// Length of the file when its blocks were last allocated.
    allocated: u64,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens or makes the file. `cache` is in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Self> {
        let file = path.to_owned();
        let open = move || Ok(redb::Database::builder().set_cache_size(cache).create(&file)?);
        Self::with(path, Box::new(open))
    }

    fn with(path: &Path, open: Open) -> Result<Self> {
        let state = State { database: Some(open()?), allocated: 0 };
        let database = Self { path: path.to_owned(), open, state: Mutex::new(state) };
        database.allocate(&mut database.lock());
        Ok(database)
    }

    /// Reads what was committed last.
    pub fn read<T, E: From<redb::Error>>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.lock();
        let transaction = self.opened(&mut state)?.begin_read().map_err(redb::Error::from)?;
        read(&transaction)
    }

    /// Makes a change durable, whole or not at all: with an error of `change` nothing is changed.
    pub fn write<T, E: From<redb::Error>>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.lock();
        let done = commit(self.opened(&mut state)?, change);
        match done {
            Ok(_) => self.allocate(&mut state),
            Err(_) => self.open_again(&mut state),
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves a transaction that was dropped, which is one that never was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened<'a>(&self, state: &'a mut State) -> Result<&'a redb::Database> {
        let database = match state.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        Ok(state.database.insert(database))
    }

    /// A cheap thing to do after any failure, so which of them redb will not get over is not asked.
    fn open_again(&self, state: &mut State) {
        // It holds the file's lock.
        drop(state.database.take());
        match (self.open)() {
            Ok(database) => state.database = Some(database),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "a database is not open; the next request tries again");
            }
        }
    }

    /// Allocates the blocks of the file as it is and as it will be after it grew once: redb makes it longer without writing.
    fn allocate(&self, state: &mut State) {
        let done = || -> std::io::Result<u64> {
            let length = std::fs::metadata(&self.path)?.len();
            if length != state.allocated {
                let file = File::options().write(true).open(&self.path)?;
                fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length + length.min(MOST_AHEAD))?;
            }
            Ok(length)
        };
        match done() {
            Ok(length) => state.allocated = length,
            // Not every file system can, and on a full one the attempt is repeated after the next write.
            Err(error) => {
                tracing::debug!(file = %self.path.display(), %error, "allocate a database's blocks")
            }
        }
    }
}

fn commit<T, E: From<redb::Error>>(
    database: &redb::Database,
    change: impl FnOnce(&WriteTransaction) -> Result<T, E>,
) -> Result<T, E> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let result = change(&transaction)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::FileBackend;
    use redb::{ReadableTableMetadata, StorageBackend, TableDefinition};
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

    /// A disk that is full while the flag is set.
    #[derive(Debug)]
    struct Disk(FileBackend, Arc<AtomicBool>);

    impl Disk {
        fn room(&self) -> std::io::Result<()> {
            if self.1.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.room()?;
            self.0.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.room()?;
            self.0.write(offset, data)
        }
    }

    fn on_disk(path: &Path, full: &Arc<AtomicBool>) -> Database {
        let (file, full) = (path.to_owned(), Arc::clone(full));
        let open = move || {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&file);
            let backend = FileBackend::new(file.map_err(redb::Error::Io)?)?;
            Ok(redb::Database::builder().create_with_backend(Disk(backend, Arc::clone(&full)))?)
        };
        Database::with(path, Box::new(open)).unwrap()
    }

    fn put(database: &Database, key: u64, bytes: usize) -> Result<()> {
        database.write(|transaction| {
            transaction.open_table(TABLE)?.insert(key, vec![7; bytes].as_slice())?;
            Ok(())
        })
    }

    fn count(database: &Database) -> u64 {
        let counted: Result<u64> = database.read(|transaction| Ok(transaction.open_table(TABLE)?.len()?));
        counted.unwrap()
    }

    #[test]
    fn writes_succeed_again_when_a_full_disk_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let database = on_disk(&folder.path().join("d.redb"), &full);
        put(&database, 1, 10).unwrap();
        full.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let refused = put(&database, 2, 10).unwrap_err();
            assert!(
                matches!(&refused, redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull),
                "{refused}"
            );
        }
        full.store(false, Ordering::SeqCst);
        put(&database, 3, 10).unwrap();
        assert_eq!(count(&database), 2);
    }

    #[test]
    fn a_change_that_fails_by_itself_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("d.redb"), 1024 * 1024).unwrap();
        put(&database, 1, 10).unwrap();
        let refused: Result<()> = database.write(|transaction| {
            transaction.open_table(TABLE)?.remove(1)?;
            Err(redb::Error::ValueTooLarge(1))
        });
        assert!(matches!(refused, Err(redb::Error::ValueTooLarge(1))));
        assert_eq!(count(&database), 1);
    }

    #[test]
    fn the_blocks_of_the_file_and_of_its_next_growth_are_allocated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.redb");
        let database = Database::open(&path, 1024 * 1024).unwrap();
        let allocated =
            || (std::fs::metadata(&path).unwrap().blocks() * 512, std::fs::metadata(&path).unwrap().len());
        let (blocks, length) = allocated();
        assert!(blocks >= 2 * length, "{blocks} of {length}");
        put(&database, 1, 8 * 1024 * 1024).unwrap();
        let (blocks, longer) = allocated();
        assert!(longer > length && blocks >= longer + longer.min(MOST_AHEAD), "{blocks} of {longer}");
    }
}
