//! The state machine: the planner's [`State`] in memory, readable at any time, with snapshots in one file.

use super::{Applied, Types};
use crate::error::{Error, Result};
use crate::identity::files;
use crate::identity::vault::Vault;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use gantry_planner::state::State;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{CommittedLeaderIdOf, LogIdOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

/// Head of a snapshot.
pub type SnapshotMeta =
    openraft::storage::SnapshotMeta<CommittedLeaderIdOf<Types>, gantry_model::id::NodeId, super::Member>;
/// A snapshot: its head, and the file's bytes.
pub type Snapshot =
    openraft::storage::Snapshot<CommittedLeaderIdOf<Types>, gantry_model::id::NodeId, super::Member, Bytes>;

/// What the vault knows a snapshot as.
const SNAPSHOT: &str = "a snapshot of Raft";
/// Level of zstd: snapshots are written often and read seldom.
const COMPRESSION: i32 = 3;

/// A snapshot as a file: JSON, compressed.
#[derive(Serialize, Deserialize)]
struct SnapshotFile {
    format: u32,
    meta: SnapshotMeta,
    state: State,
}

/// The state machine; clones share everything.
#[derive(Clone)]
pub struct Machine {
    shared: Arc<Shared>,
}

struct Shared {
    /// What readers get.
    state: RwLock<Arc<State>>,
    /// Index of the last log entry that readers can see.
    applied: watch::Sender<u64>,
    position: Mutex<Position>,
    disk: Disk,
}

/// The file of the last snapshot: sealed under the vault's data key. Its calls block.
#[derive(Clone)]
pub struct Disk {
    file: PathBuf,
    vault: Vault,
}

impl Disk {
    /// In this folder.
    pub fn new(folder: &Path, vault: Vault) -> Self {
        Self { file: folder.join("snapshot.json.zst"), vault }
    }

    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(&self.file) {
            Ok(bytes) => self.vault.unseal(SNAPSHOT, bytes).map(Some).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let sealed = self.vault.seal(SNAPSHOT, bytes).map_err(io::Error::other)?;
        files::replace(&self.file, &sealed).map_err(io::Error::other)
    }

    /// Reads the snapshot, if there is one, for recovery.
    pub fn read(&self) -> Result<Option<(SnapshotMeta, State)>> {
        let read = || self.load()?.map(|bytes| decode(&bytes)).transpose();
        let file = read().map_err(|e: io::Error| {
            Error::trouble(format!("read the snapshot {}", self.file.display()), &e)
        })?;
        Ok(file.map(|file| (file.meta, file.state)))
    }

    /// Writes the snapshot, for recovery.
    pub fn write(&self, meta: SnapshotMeta, state: State) -> Result<()> {
        let bytes = encode(&SnapshotFile { format: 1, meta, state });
        bytes
            .and_then(|bytes| self.save(&bytes))
            .map_err(|e| Error::trouble(format!("write the snapshot {}", self.file.display()), &e))
    }
}

#[derive(Clone, Default)]
struct Position {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Machine {
    /// An empty machine whose snapshot is here; openraft fills it.
    pub fn new(disk: Disk) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: RwLock::default(),
                applied: watch::Sender::new(0),
                position: Mutex::default(),
                disk,
            }),
        }
    }

    /// The state now.
    pub fn state(&self) -> Arc<State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the index of the last applied entry.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.shared.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: State) {
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    fn announce(&self) {
        let index = self.position().last.as_ref().map_or(0, |id| id.index());
        self.shared.applied.send_replace(index);
    }

    fn apply_entry(&self, entry: &super::EntryOf<Types>) -> Applied {
        let mut applied = Applied::default();
        let id = entry.log_id();
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(command) => {
                let mut state = State::clone(&self.state());
                match state.apply(id.index(), command.at, &command.changes) {
                    Ok(()) => self.publish(state),
                    Err(refused) => applied.refused = Some(refused),
                }
            }
            EntryPayload::Membership(membership) => {
                self.position().membership = StoredMembershipOf::<Types>::new(Some(id), membership.clone());
            }
        }
        self.position().last = Some(id);
        applied
    }

    /// Takes over what a snapshot holds, in memory only.
    fn take(&self, meta: &SnapshotMeta, state: State) {
        *self.position() = Position { last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.publish(state);
        self.announce();
    }
}

fn encode(file: &SnapshotFile) -> io::Result<Bytes> {
    let mut encoder = zstd::Encoder::new(Vec::new(), COMPRESSION)?;
    serde_json::to_writer(&mut encoder, file)?;
    Ok(encoder.finish()?.into())
}

fn decode(bytes: &[u8]) -> io::Result<SnapshotFile> {
    let reader = io::BufReader::new(zstd::Decoder::new(bytes)?);
    let file: SnapshotFile = serde_json::from_reader(reader)?;
    if file.format != 1 {
        return Err(io::Error::other(format!(
            "snapshot of format {} is newer than this program",
            file.format
        )));
    }
    Ok(file)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Builds a snapshot of the state at one moment.
pub struct Builder {
    machine: Machine,
    state: Arc<State>,
    position: Position,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = SnapshotMeta {
            last_log_id: self.position.last,
            last_membership: self.position.membership.clone(),
        };
        let (state, disk) = (Arc::clone(&self.state), self.machine.shared.disk.clone());
        let head = meta.clone();
        let snapshot = blocking(move || {
            let bytes = encode(&SnapshotFile { format: 1, meta: head, state: State::clone(&state) })?;
            disk.save(&bytes)?;
            Ok(bytes)
        })
        .await?;
        Ok(Snapshot { meta, snapshot })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        let position = self.position();
        Ok((position.last, position.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.apply_entry(&entry);
            // First visible, then answered: a writer reads its own write.
            self.announce();
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { machine: self.clone(), state: self.state(), position: self.position().clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (bytes, disk) = (snapshot.clone(), self.shared.disk.clone());
        let file = blocking(move || {
            let file = decode(&bytes)?;
            disk.save(&bytes)?;
            Ok(file)
        })
        .await?;
        self.take(meta, file.state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let disk = self.shared.disk.clone();
        blocking(move || {
            let Some(bytes) = disk.load()? else { return Ok(None) };
            let file = decode(&bytes)?;
            Ok(Some(Snapshot { meta: file.meta, snapshot: bytes.into() }))
        })
        .await
    }
}
