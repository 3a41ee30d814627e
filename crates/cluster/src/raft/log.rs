//! The log: entries in memory for reading, and in a redb file for ever. One thread writes; what waits for it is committed together.

use super::{EntryOf, LogIdOf, Types, VoteOf};
use crate::error::{Error, Result};
use crate::identity::vault::Vault;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const MARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("marks");
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";
const FORMAT: &str = "format";
/// Version of the file's format.
const FORMAT_NOW: &[u8] = b"1";
/// The commit mark need not be durable; it is written with the next group, or after this pause.
const IDLE: Duration = Duration::from_millis(200);
/// How long an earlier user of the file may take to let go of it.
const CLOSING: Duration = Duration::from_secs(5);

type Entry = EntryOf<Types>;
type LogId = LogIdOf<Types>;

/// What the vault knows an entry as.
const ENTRY: &str = "an entry of the Raft log";

/// A file larger than this is made smaller when it is opened, if it holds less.
const SPACIOUS: u64 = 32 << 20;

/// The log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Mutex<Shared>>,
    /// Bytes of its entries.
    size: Arc<watch::Sender<usize>>,
    writer: Sender<Write>,
    vault: Vault,
}

/// What is on disk or on its way there.
#[derive(Default)]
struct Shared {
    entries: BTreeMap<u64, Kept>,
    vote: Option<VoteOf<Types>>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

/// An entry, and how large it is on disk.
struct Kept {
    entry: Entry,
    bytes: usize,
}

impl Shared {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, kept)| kept.entry.log_id()).or(self.purged)
    }

    fn size(&self) -> usize {
        self.entries.values().map(|kept| kept.bytes).sum()
    }
}

/// Work for the writing thread.
enum Write {
    Append(Vec<(u64, Vec<u8>)>, IOFlushed<Types>),
    Mark(&'static str, Option<Vec<u8>>, oneshot::Sender<io::Result<()>>),
    Lazy(&'static str, Option<Vec<u8>>),
    TruncateFrom(u64, oneshot::Sender<io::Result<()>>),
    Purge(u64, Vec<u8>, oneshot::Sender<io::Result<()>>),
}

enum Done {
    Flushed(IOFlushed<Types>),
    Answer(oneshot::Sender<io::Result<()>>),
}

fn json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn sealed(vault: &Vault, entry: &Entry) -> io::Result<Vec<u8>> {
    vault.seal(ENTRY, &json(entry)?).map_err(io::Error::other)
}

impl Log {
    /// Opens the log, whose entries are sealed under the vault's data key, or makes an empty one. Blocks.
    pub fn open(path: &Path, vault: Vault) -> Result<Self> {
        let act = || format!("open the Raft log {}", path.display());
        let mut database = create(path).map_err(|e| match &e {
            redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)) => Error::damaged(act(), &e),
            _ => Error::trouble(act(), &e),
        })?;
        if std::fs::metadata(path).is_ok_and(|file| file.len() > SPACIOUS)
            && let Err(error) = database.compact()
        {
            // It may be the disk that is full; the log is as good as before.
            tracing::warn!(file = %path.display(), %error, "the Raft log's file is not made smaller");
        }
        let shared = load(&database, &vault).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => Error::damaged(act(), &e),
            _ => Error::trouble(act(), &e),
        })?;
        let (writer, work) = channel();
        std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || write_loop(&database, &work))
            .map_err(|e| Error::trouble("start the thread of the Raft log", &e))?;
        let size = Arc::new(watch::Sender::new(shared.size()));
        Ok(Self { shared: Arc::new(Mutex::new(shared)), size, writer, vault })
    }

    /// Whether nothing was ever written into it: no entry, no vote.
    pub fn is_blank(&self) -> bool {
        let shared = self.lock();
        shared.entries.is_empty() && shared.vote.is_none() && shared.purged.is_none()
    }

    /// Entries in the log, for recovery.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.values().map(|kept| kept.entry.clone()).collect()
    }

    /// Follows how many bytes its entries have.
    pub fn size(&self) -> watch::Receiver<usize> {
        self.size.subscribe()
    }

    /// Empties the log as if all up to `last` had been purged; the vote stays, so that no term is used twice. Blocks.
    pub fn reset(self, last: LogId) -> io::Result<()> {
        let bytes = json(&last)?;
        let (answer, answered) = oneshot::channel();
        self.send(Write::TruncateFrom(0, answer))?;
        answered.blocking_recv().map_err(|_| io::Error::other("the Raft log is closed"))??;
        let (answer, answered) = oneshot::channel();
        self.send(Write::Purge(last.index(), bytes, answer))?;
        answered.blocking_recv().map_err(|_| io::Error::other("the Raft log is closed"))?
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shrunk(&self, gone: &BTreeMap<u64, Kept>) {
        let bytes: usize = gone.values().map(|kept| kept.bytes).sum();
        self.size.send_modify(|size| *size = size.saturating_sub(bytes));
    }

    fn send(&self, write: Write) -> io::Result<()> {
        self.writer.send(write).map_err(|_| io::Error::other("the Raft log is closed"))
    }

    async fn ask(&self, write: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Write) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.send(write(answer))?;
        answered.await.map_err(|_| io::Error::other("the Raft log is closed"))?
    }
}

/// Opens the file; one that this process has just closed may take a moment until its lock is gone.
fn create(path: &Path) -> std::result::Result<Database, redb::DatabaseError> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match Database::create(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                std::thread::sleep(IDLE / 10)
            }
            other => return other,
        }
    }
}

fn load(database: &Database, vault: &Vault) -> io::Result<Shared> {
    let transaction = database.begin_write().map_err(io::Error::other)?;
    {
        let mut marks = transaction.open_table(MARKS).map_err(io::Error::other)?;
        let format = marks.get(FORMAT).map_err(io::Error::other)?.map(|value| value.value().to_vec());
        match format {
            None => drop(marks.insert(FORMAT, FORMAT_NOW).map_err(io::Error::other)?),
            Some(format) if format == FORMAT_NOW => {}
            Some(format) => {
                let text = String::from_utf8_lossy(&format).into_owned();
                return Err(io::Error::other(format!("format {text} is newer than this program")));
            }
        }
        transaction.open_table(ENTRIES).map_err(io::Error::other)?;
    }
    transaction.commit().map_err(io::Error::other)?;
    let transaction = database.begin_read().map_err(io::Error::other)?;
    let marks = transaction.open_table(MARKS).map_err(io::Error::other)?;
    let mark = |name| {
        marks.get(name).map_err(io::Error::other).map(|found| found.map(|value| value.value().to_vec()))
    };
    let mut shared = Shared {
        vote: mark(VOTE)?.map(|bytes| parse(&bytes)).transpose()?,
        purged: mark(PURGED)?.map(|bytes| parse(&bytes)).transpose()?,
        committed: mark(COMMITTED)?.map(|bytes| parse(&bytes)).transpose()?,
        entries: BTreeMap::new(),
    };
    let entries = transaction.open_table(ENTRIES).map_err(io::Error::other)?;
    for row in entries.iter().map_err(io::Error::other)? {
        let (index, bytes) = row.map_err(io::Error::other)?;
        let unsealed = vault.unseal(ENTRY, bytes.value().to_vec());
        let bytes = unsealed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        shared.entries.insert(index.value(), Kept { entry: parse(&bytes)?, bytes: bytes.len() });
    }
    Ok(shared)
}

/// Takes all that waits, writes it in one transaction, then answers: a group commit. Ends when the last [`Log`] is dropped.
fn write_loop(database: &Database, work: &Receiver<Write>) {
    let mut lazy: BTreeMap<&'static str, Option<Vec<u8>>> = BTreeMap::new();
    loop {
        let first = match work.recv_timeout(if lazy.is_empty() { Duration::from_secs(3600) } else { IDLE }) {
            Ok(write) => Some(write),
            Err(RecvTimeoutError::Timeout) if lazy.is_empty() => continue,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut group: Vec<Write> = first.into_iter().collect();
        group.extend(work.try_iter());
        if !group.is_empty() && group.iter().all(|write| matches!(write, Write::Lazy(..))) {
            for write in group {
                if let Write::Lazy(name, value) = write {
                    lazy.insert(name, value);
                }
            }
            continue;
        }
        commit(database, group, std::mem::take(&mut lazy));
    }
    if !lazy.is_empty() {
        commit(database, Vec::new(), lazy);
    }
}

fn commit(database: &Database, group: Vec<Write>, lazy: BTreeMap<&'static str, Option<Vec<u8>>>) {
    let mut done = Vec::with_capacity(group.len());
    let result = write_group(database, group, lazy, &mut done);
    if let Err(error) = &result {
        tracing::error!(error = %error, "writing the Raft log failed");
    }
    for waiting in done {
        let result = match &result {
            Ok(()) => Ok(()),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        match waiting {
            Done::Flushed(callback) => callback.io_completed(result),
            Done::Answer(sender) => drop(sender.send(result)),
        }
    }
}

fn write_group(
    database: &Database,
    group: Vec<Write>,
    lazy: BTreeMap<&'static str, Option<Vec<u8>>>,
    done: &mut Vec<Done>,
) -> io::Result<()> {
    let mut rows = Vec::new();
    for write in group {
        // The answer is registered before anything can fail, so that everyone hears of a failure.
        let row = match write {
            Write::Append(entries, callback) => {
                done.push(Done::Flushed(callback));
                Row::Append(entries)
            }
            Write::Mark(name, value, sender) => {
                done.push(Done::Answer(sender));
                Row::Mark(name, value)
            }
            Write::Lazy(name, value) => Row::Mark(name, value),
            Write::TruncateFrom(index, sender) => {
                done.push(Done::Answer(sender));
                Row::TruncateFrom(index)
            }
            Write::Purge(index, mark, sender) => {
                done.push(Done::Answer(sender));
                Row::Purge(index, mark)
            }
        };
        rows.push(row);
    }
    let mut transaction = database.begin_write().map_err(io::Error::other)?;
    transaction.set_durability(Durability::Immediate).map_err(io::Error::other)?;
    {
        let mut entries = transaction.open_table(ENTRIES).map_err(io::Error::other)?;
        let mut marks = transaction.open_table(MARKS).map_err(io::Error::other)?;
        for row in lazy.into_iter().map(|(name, value)| Row::Mark(name, value)).chain(rows) {
            row.write(&mut entries, &mut marks).map_err(io::Error::other)?;
        }
    }
    transaction.commit().map_err(io::Error::other)
}

enum Row {
    Append(Vec<(u64, Vec<u8>)>),
    Mark(&'static str, Option<Vec<u8>>),
    TruncateFrom(u64),
    Purge(u64, Vec<u8>),
}

impl Row {
    fn write(
        self,
        entries: &mut redb::Table<'_, u64, &'static [u8]>,
        marks: &mut redb::Table<'_, &'static str, &'static [u8]>,
    ) -> std::result::Result<(), redb::StorageError> {
        match self {
            Self::Append(rows) => {
                for (index, bytes) in rows {
                    entries.insert(index, bytes.as_slice())?;
                }
            }
            Self::Mark(name, Some(bytes)) => drop(marks.insert(name, bytes.as_slice())?),
            Self::Mark(name, None) => drop(marks.remove(name)?),
            Self::TruncateFrom(index) => entries.retain_in(index.., |_, _| false)?,
            Self::Purge(index, mark) => {
                marks.insert(PURGED, mark.as_slice())?;
                entries.retain_in(..=index, |_, _| false)?;
            }
        }
        Ok(())
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let bounds: (Bound<u64>, Bound<u64>) = (range.start_bound().cloned(), range.end_bound().cloned());
        Ok(self.lock().entries.range(bounds).map(|(_, kept)| kept.entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(self.lock().vote.clone())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let shared = self.lock();
        Ok(LogState { last_purged_log_id: shared.purged, last_log_id: shared.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        let bytes = json(vote)?;
        self.ask(|answer| Write::Mark(VOTE, Some(bytes), answer)).await?;
        self.lock().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let bytes = committed.as_ref().map(json).transpose()?;
        self.lock().committed = committed;
        self.send(Write::Lazy(COMMITTED, bytes))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // The mark may lag behind the snapshot or be ahead of a log that was cut: openraft wants it inside the log.
        let shared = self.lock();
        Ok(shared.committed.min(shared.last()).max(shared.purged))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let row = |entry: &Entry| Ok((entry.index(), sealed(&self.vault, entry)?));
        let rows = entries.iter().map(row).collect::<io::Result<Vec<_>>>()?;
        let sizes: Vec<usize> = rows.iter().map(|(_, bytes): &(u64, Vec<u8>)| bytes.len()).collect();
        let grown: usize = sizes.iter().sum();
        let kept =
            entries.into_iter().zip(sizes).map(|(entry, bytes)| (entry.index(), Kept { entry, bytes }));
        self.lock().entries.extend(kept);
        self.size.send_modify(|size| *size += grown);
        self.send(Write::Append(rows, callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index() + 1);
        let cut = self.lock().entries.split_off(&from);
        self.shrunk(&cut);
        self.ask(|answer| Write::TruncateFrom(from, answer)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let bytes = json(&upto)?;
        let index = upto.index();
        let gone = {
            let mut shared = self.lock();
            let rest = shared.entries.split_off(&(index + 1));
            shared.purged = Some(upto);
            std::mem::replace(&mut shared.entries, rest)
        };
        self.shrunk(&gone);
        self.ask(|answer| Write::Purge(index, bytes, answer)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Command;
    use openraft::storage::RaftLogStorageExt;
    use openraft::{EntryPayload, Vote};
    use std::sync::Arc;

    fn id(term: u64, index: u64) -> LogId {
        let node = gantry_model::id::NodeId::from_random([1; 17]);
        let leader = openraft::impls::leader_id_std::LeaderId { term, voted_for: node };
        LogId::new(openraft::vote::RaftLeaderId::to_committed(&leader), index)
    }

    fn entry(term: u64, index: u64) -> Entry {
        let at = jiff::Timestamp::UNIX_EPOCH;
        Entry {
            log_id: id(term, index),
            payload: EntryPayload::Normal(Command { at, changes: Arc::new(Vec::new()) }),
        }
    }

    async fn indexes(log: &mut Log) -> Vec<u64> {
        log.try_get_log_entries(..).await.expect("read").iter().map(RaftEntry::index).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_confirmed_is_there_after_opening_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log.redb");
        let vault = Vault::open(folder.path(), None).expect("vault");
        let mut log = Log::open(&path, vault.clone()).expect("open");
        assert_eq!(log.get_log_state().await.expect("state"), LogState::default());
        let vote = Vote::new(3, gantry_model::id::NodeId::from_random([1; 17]));
        log.save_vote(&vote).await.expect("vote");
        log.blocking_append((1..=10).map(|index| entry(3, index))).await.expect("append");
        log.truncate_after(Some(id(3, 8))).await.expect("truncate");
        log.purge(id(3, 2)).await.expect("purge");
        log.save_committed(Some(id(3, 7))).await.expect("committed");
        assert_eq!(indexes(&mut log).await, (3..=8).collect::<Vec<_>>());
        let size = *log.size().borrow();
        assert_eq!(size, log.lock().size(), "what is gone is not counted");
        assert!(size > 0);
        drop(log);

        let mut log = Log::open(&path, vault.clone()).expect("open again");
        assert_eq!(indexes(&mut log).await, (3..=8).collect::<Vec<_>>());
        assert_eq!(log.read_vote().await.expect("vote"), Some(vote));
        assert_eq!(log.read_committed().await.expect("committed"), Some(id(3, 7)));
        let state = log.get_log_state().await.expect("state");
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(3, 2)), Some(id(3, 8))));
        assert_eq!(log.try_get_log_entries(4..6).await.expect("range").len(), 2);

        let (sender, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(log.reset(id(3, 8))));
        done.recv().expect("thread").expect("reset");
        let mut log = Log::open(&path, vault).expect("open once more");
        assert_eq!(indexes(&mut log).await, Vec::<u64>::new());
        assert_eq!(*log.size().borrow(), 0);
        let state = log.get_log_state().await.expect("state");
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(3, 8)), Some(id(3, 8))));
        assert!(log.read_vote().await.expect("vote").is_some(), "no term is used twice");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_that_lost_everything_is_blank() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log.redb");
        let vault = Vault::open(folder.path(), None).expect("vault");
        let mut log = Log::open(&path, vault.clone()).expect("open");
        assert!(log.is_blank());
        log.save_vote(&Vote::new(3, gantry_model::id::NodeId::from_random([1; 17]))).await.expect("vote");
        assert!(!log.is_blank(), "a vote binds");
        drop(log);
        // The writing thread may still hold the file.
        drop(create(&path).expect("closed"));
        let file = std::fs::File::options().write(true).open(&path).expect("file");
        // As after a power loss on a file system that had written the name only.
        file.set_len(0).expect("empty");
        assert!(Log::open(&path, vault.clone()).expect("open again").is_blank());
    }

    #[test]
    fn a_log_of_a_newer_format_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log.redb");
        let vault = Vault::open(folder.path(), None).expect("vault");
        drop(Log::open(&path, vault.clone()).expect("open"));
        let database = create(&path).expect("database");
        let transaction = database.begin_write().expect("write");
        transaction.open_table(MARKS).expect("table").insert(FORMAT, b"2".as_slice()).expect("insert");
        transaction.commit().expect("commit");
        drop(database);
        let error = Log::open(&path, vault).err().expect("refused");
        assert!(error.message.contains("format 2 is newer than this program"), "{error}");
    }
}
