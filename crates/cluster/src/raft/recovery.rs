//! Recovery: a cluster that lost its majority goes on with one manager (`swarm init --force-new-cluster`).

use super::log::Log;
use super::machine::{Disk, SnapshotMeta};
use super::novice::Novice;
use super::{Member, StoredMembershipOf, Types};
use crate::error::{Error, Result};
use crate::identity::vault::Vault;
use gantry_model::id::NodeId;
use gantry_planner::state::State;
use openraft::entry::RaftEntry;
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Rewrites the store of this stopped manager: everything in its log counts as decided, and it becomes the only member. Blocks.
///
/// The result is a snapshot beside an empty log. The snapshot is written first: if the process dies in between, the old log is still
/// there, and doing it again gives the same.
pub fn only_member(folder: &Path, vault: &Vault, id: &NodeId, addr: &str) -> Result<()> {
    let log_path = folder.join("log.redb");
    let disk = Disk::new(folder, vault.clone());
    let (meta, mut state) = disk.read()?.unwrap_or_else(|| {
        (
            SnapshotMeta { last_log_id: None, last_membership: StoredMembershipOf::<Types>::default() },
            State::default(),
        )
    });
    let log = Log::open(&log_path, vault.clone())?;
    let mut last = meta.last_log_id;
    for entry in log.entries() {
        let entry_id = entry.log_id();
        if last.as_ref().is_some_and(|last| entry_id <= *last) {
            continue;
        }
        if let EntryPayload::Normal(command) = &entry.payload {
            // A refusal is an outcome like any other: the batch had no effect on the others either.
            drop(state.apply(entry_id.index(), command.at, &command.changes));
        }
        last = Some(entry_id);
    }
    let last = last.ok_or_else(|| {
        Error::precondition("this manager has no log from which a cluster could be recovered")
    })?;
    let members =
        BTreeMap::from([(id.clone(), Member { addr: addr.to_owned(), incarnation: String::new() })]);
    let membership = Membership::new(vec![BTreeSet::from([id.clone()])], members)
        .map_err(|e| Error::trouble("make this node the only member", &e))?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembershipOf::<Types>::new(Some(last), membership),
    };
    disk.write(meta, state)?;
    // Whatever it still waited for: it is the only member now.
    Novice::forget(folder)?;
    log.reset(last).map_err(|e| Error::trouble("empty the Raft log", &e))
}
