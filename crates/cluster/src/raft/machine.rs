//! The state machine: the planner's [`State`] in memory, readable at any time, with snapshots in one file.

use super::{Applied, Types};
use crate::error::{Error, Result};
use crate::identity::files;
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
    file: PathBuf,
}

#[derive(Clone, Default)]
struct Position {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Machine {
    /// An empty machine whose snapshot is in this folder; openraft fills it.
    pub fn new(folder: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: RwLock::default(),
                applied: watch::Sender::new(0),
                position: Mutex::default(),
                file: folder.join("snapshot.json.zst"),
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

/// Reads a snapshot's file for recovery. Blocks.
pub fn read_file(folder: &Path) -> Result<Option<(SnapshotMeta, State)>> {
    let path = folder.join("snapshot.json.zst");
    let act = || format!("read the snapshot {}", path.display());
    match std::fs::read(&path) {
        Ok(bytes) => {
            let file = decode(&bytes).map_err(|e| Error::trouble(act(), &e))?;
            Ok(Some((file.meta, file.state)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::trouble(act(), &e)),
    }
}

/// Writes a snapshot's file for recovery. Blocks.
pub fn write_file(folder: &Path, meta: SnapshotMeta, state: State) -> Result<()> {
    let path = folder.join("snapshot.json.zst");
    let act = || format!("write the snapshot {}", path.display());
    let bytes = encode(&SnapshotFile { format: 1, meta, state }).map_err(|e| Error::trouble(act(), &e))?;
    files::replace(&path, &bytes).map_err(|e| Error::trouble(act(), &e))
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
        let (state, path) = (Arc::clone(&self.state), self.machine.shared.file.clone());
        let head = meta.clone();
        let snapshot = blocking(move || {
            let bytes = encode(&SnapshotFile { format: 1, meta: head, state: State::clone(&state) })?;
            files::replace(&path, &bytes).map_err(io::Error::other)?;
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
        let (bytes, path) = (snapshot.clone(), self.shared.file.clone());
        let file = blocking(move || {
            let file = decode(&bytes)?;
            files::replace(&path, &bytes).map_err(io::Error::other)?;
            Ok(file)
        })
        .await?;
        self.take(meta, file.state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let path = self.shared.file.clone();
        blocking(move || match std::fs::read(&path) {
            Ok(bytes) => {
                let file = decode(&bytes)?;
                Ok(Some(Snapshot { meta: file.meta, snapshot: bytes.into() }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }
}
