//! The store: propose changes, read the state, follow it. What the rest of the crate knows of consensus.

use super::log::Log;
use super::machine::{Disk, Machine};
use super::network::Network;
use super::novice::Novice;
use super::{Command, Member, Raft, Types};
use crate::config::{RemoteManager, Timing};
use crate::error::{Error, Result, chain};
use crate::identity::vault::Vault;
use crate::rpc::dial::Dialer;
use gantry_model::id::NodeId;
use gantry_planner::change::{Change, Refusal, Refused};
use gantry_planner::state::State;
use jiff::Timestamp;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, RaftMetrics, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Why changes did not get into the store.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The state has moved on, or a name is taken.
    #[error("the batch was refused")]
    Refused(#[source] Refused),
    /// No leader, or no majority.
    #[error("the swarm has no leader here")]
    NoLeader,
    /// Raft stopped.
    #[error("Raft stopped: {0}")]
    Stopped(String),
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader => Error::no_leader(),
            ProposeError::Stopped(text) => Error::internal(format!("Raft stopped: {text}")),
            ProposeError::Refused(refused) => match refused.why {
                Refusal::OutOfSequence(_) => Error::out_of_sequence(),
                Refusal::Missing(object) => Error::not_found(format!("{object} not found")),
                taken @ Refusal::PortConflict { .. } => Error::invalid(taken.to_string()),
                conflict @ Refusal::NameConflict { .. } => Error::exists(conflict.to_string()),
                exists @ Refusal::Exists(_) => Error::exists(exists.to_string()),
            },
        }
    }
}

/// The replicated store of this manager; clones are handles to the same.
#[derive(Clone)]
pub struct Store {
    raft: Raft,
    machine: Machine,
    timing: Timing,
    id: NodeId,
    novice: Arc<Novice>,
    /// When another manager was last heard as the leader; at first the time of the start.
    heard: Arc<Mutex<Instant>>,
}

/// Without a leader for so long, there are too few managers: an election takes a fraction of it.
const ELECTION_OVER: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the store of this folder and takes part in Raft. The store is empty and passive until [`Store::initialize`], or until a
    /// leader adds this node.
    pub async fn open(
        folder: &Path,
        vault: &Vault,
        id: NodeId,
        dialer: Dialer,
        timing: Timing,
    ) -> Result<Self> {
        let (log_path, own, keys) = (folder.join("log.redb"), folder.to_owned(), vault.clone());
        // The note that this is a beginning is written before anything into the log, which would make it look like a continuation.
        let open = move || -> Result<_> {
            let log = Log::open(&log_path, keys)?;
            Ok((Novice::open(&own, log.is_blank())?, log))
        };
        let (novice, log) = tokio::task::spawn_blocking(open)
            .await
            .map_err(|e| Error::trouble("open the Raft log", &e))??;
        let machine = Machine::new(Disk::new(folder, vault.clone()));
        let config = openraft::Config { enable_elect: !novice.is_waiting(), ..raft_config(&timing) };
        let config = config.validate().map_err(|e| Error::trouble("configure Raft", &e))?;
        let size = log.size();
        let raft = Raft::new(id.clone(), Arc::new(config), Network::new(dialer), log, machine.clone())
            .await
            .map_err(|e| Error::trouble("start Raft", &e))?;
        tokio::spawn(keep_small(raft.clone(), size, timing.snapshot_bytes));
        let novice = Arc::new(novice);
        if novice.is_waiting() {
            tokio::spawn(Arc::clone(&novice).until_member(raft.clone(), id.clone()));
        }
        let heard = Arc::new(Mutex::new(Instant::now()));
        Ok(Self { raft, machine, timing, id, novice, heard })
    }

    /// Makes this node the only member of a new cluster.
    pub async fn initialize(&self, addr: &str) -> Result<()> {
        let members = BTreeMap::from([(self.id.clone(), self.member(addr))]);
        self.raft.initialize(members).await.map_err(|e| Error::trouble("initialise Raft", &e))?;
        self.wait_leader(Duration::from_secs(10)).await.map(drop)
    }

    /// This node as the membership shall name it.
    fn member(&self, addr: &str) -> Member {
        Member { addr: addr.to_owned(), incarnation: self.novice.incarnation().to_owned() }
    }

    /// The state of this node's beginning as a member.
    pub fn novice(&self) -> &Novice {
        &self.novice
    }

    /// Consensus itself, for the calls of other managers.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// This node.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The state as this node knows it.
    pub fn read(&self) -> Arc<State> {
        self.machine.state()
    }

    /// Follows the index of the last applied entry.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.machine.applied()
    }

    /// What Raft says of itself.
    pub fn metrics(&self) -> RaftMetrics<Types> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Waits until this node has applied an index.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> Result<()> {
        let mut applied = self.watch();
        let reached = tokio::time::timeout(limit, applied.wait_for(|now| *now >= index)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => {
                Err(Error::unavailable(format!("this manager did not catch up with change {index} in time")))
            }
        }
    }

    /// Whether all that is in this node's log is applied.
    pub fn is_settled(&self) -> bool {
        let metrics = self.metrics();
        metrics.last_applied.as_ref().map(|id| id.index()) == metrics.last_log_index
    }

    /// Whether this node leads and a majority has answered within the election timeout.
    pub fn leads(&self) -> bool {
        let metrics = self.metrics();
        if metrics.state != ServerState::Leader {
            return false;
        }
        if metrics.membership_config.membership().voter_ids().count() <= 1 {
            return true;
        }
        let limit = self.timing.election * 2;
        metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < limit)
    }

    /// Another manager has spoken as the leader, and Raft has accepted it.
    pub fn heard_leader(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago there was a sign of a leader that a majority follows.
    fn leaderless(&self) -> Duration {
        let metrics = self.metrics();
        if metrics.state == ServerState::Leader {
            return metrics.last_quorum_acked.map_or(Duration::ZERO, |at| at.elapsed());
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// How long a write may wait for a leader: as long as the others may still be electing one, and no longer.
    pub fn patience(&self) -> Duration {
        ELECTION_OVER.saturating_sub(self.leaderless())
    }

    /// Why Raft has stopped by itself, if it has: a log that cannot be written, for example.
    pub fn stopped(&self) -> Option<String> {
        self.metrics().running_state.err().map(|fatal| chain(&fatal))
    }

    /// The leader as this node sees it, with its address. A leader that lost its majority is none, and neither is one that is not heard.
    pub fn leader(&self) -> Option<RemoteManager> {
        let metrics = self.metrics();
        let leader = metrics.current_leader.clone()?;
        let valid =
            if leader == self.id { self.leads() } else { self.leaderless() < self.timing.election * 2 };
        if !valid {
            return None;
        }
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some(RemoteManager { node_id: leader, addr: node.addr.clone() })
    }

    /// Waits for a leader that this node believes in.
    pub async fn wait_leader(&self, limit: Duration) -> Result<RemoteManager> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            if Instant::now() >= deadline {
                return Err(Error::no_leader());
            }
            // `leads` depends on the clock as well as on events, so there is nothing to await but time.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Members of Raft (voters and learners) with their addresses.
    pub fn members(&self) -> Vec<RemoteManager> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        membership
            .nodes()
            .map(|(id, node)| RemoteManager { node_id: id.clone(), addr: node.addr.clone() })
            .collect()
    }

    /// Members that vote.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.metrics().membership_config.membership().voter_ids().collect()
    }

    /// Members that have answered the leader within twice the election timeout; this node is one of them. Only the leader knows.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        let metrics = self.metrics();
        let limit = self.timing.election * 2;
        let mut reachable = BTreeSet::from([self.id.clone()]);
        for (id, at) in metrics.heartbeat.iter().flatten() {
            if at.as_ref().is_some_and(|at| at.elapsed() < limit) {
                reachable.insert(id.clone());
            }
        }
        reachable
    }

    /// Puts changes into the store: all or nothing. Only the leader can. Returns the index at which they are visible.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<u64, ProposeError> {
        if !self.leads() {
            return Err(ProposeError::NoLeader);
        }
        let command = Command { at: Timestamp::now(), changes: Arc::new(changes) };
        let write = tokio::time::timeout(self.timing.write_timeout, self.raft.client_write(command));
        match write.await {
            Ok(Ok(response)) => match response.data.refused {
                None => Ok(response.log_id.index()),
                Some(refused) => Err(ProposeError::Refused(refused)),
            },
            // A write that was not confirmed in time may still be decided later; versions make a repetition harmless.
            Err(_) => Err(ProposeError::NoLeader),
            Ok(Err(RaftError::APIError(_))) => Err(ProposeError::NoLeader),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ProposeError::Stopped(chain(&fatal))),
        }
    }

    /// Adds a manager: first as a learner that catches up, then as a voter. Only the leader can.
    pub async fn add_member(&self, id: NodeId, member: Member) -> Result<()> {
        let known = self.metrics().membership_config.membership().get_node(&id).cloned();
        if let Some(known) = known
            && !member.incarnation.is_empty()
            && known.incarnation != member.incarnation
        {
            // Its log of that time is gone, so what the leader believes it to have, and its votes, count no more.
            self.remove_member(&id).await?;
        } else if self.voters().contains(&id) {
            return Ok(());
        }
        let limit = Duration::from_secs(30);
        let act = || format!("add manager {id} at {}", member.addr);
        let learner =
            tokio::time::timeout(limit, self.raft.add_learner(id.clone(), member.clone(), true)).await;
        if let Err(error) = outcome(learner, &act()) {
            // A learner that never caught up must not stay.
            self.remove_node(&id).await;
            return Err(error);
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id.clone()]));
        outcome(tokio::time::timeout(limit, self.raft.change_membership(change, true)).await, &act())
    }

    async fn remove_node(&self, id: &NodeId) {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id.clone()]));
        if let Err(error) = self.raft.change_membership(change, false).await {
            tracing::warn!(node = %id, error = %chain(&error), "a manager that could not be added stays a learner");
        }
    }

    /// Whether a majority of the voters without this one can be reached. Only the leader knows.
    pub fn can_lose(&self, id: &NodeId) -> bool {
        let mut voters = self.voters();
        voters.remove(id);
        let reachable = self.reachable();
        let alive = voters.iter().filter(|voter| reachable.contains(*voter)).count();
        !voters.is_empty() && alive > voters.len() / 2
    }

    /// Removes a manager. Only the leader can, and not itself: it hands over first.
    pub async fn remove_member(&self, id: &NodeId) -> Result<()> {
        if !self.members().iter().any(|member| member.node_id == *id) {
            return Ok(());
        }
        let act = || format!("remove manager {id}");
        let limit = Duration::from_secs(10);
        if self.voters().contains(id) {
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([id.clone()]));
            return outcome(
                tokio::time::timeout(limit, self.raft.change_membership(change, false)).await,
                &act(),
            );
        }
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id.clone()]));
        outcome(tokio::time::timeout(limit, self.raft.change_membership(change, false)).await, &act())
    }

    /// Hands leadership to another reachable voter.
    pub async fn hand_over(&self) -> Result<()> {
        let reachable = self.reachable();
        let heir = self.voters().into_iter().find(|voter| *voter != self.id && reachable.contains(voter));
        let heir =
            heir.ok_or_else(|| Error::precondition("no other manager can take over the leadership"))?;
        self.raft
            .trigger()
            .transfer_leader(heir)
            .await
            .map_err(|e| Error::trouble("hand over the leadership", &e))
    }

    /// Makes a snapshot of now, and drops from the log what is in it.
    pub async fn compact(&self) {
        compact(&self.raft).await;
    }

    /// Stops taking part. The files may be removed afterwards.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
    }
}

/// Follows the log's size and makes a snapshot when it is large, which by number of entries only would be too late: one
/// specification may have a megabyte. Ends with the log.
async fn keep_small(raft: Raft, mut size: watch::Receiver<usize>, largest: usize) {
    while size.wait_for(|bytes| *bytes > largest).await.is_ok() {
        size.mark_unchanged();
        compact(&raft).await;
        // What could not be dropped now may be when there is more.
        if size.changed().await.is_err() {
            return;
        }
    }
}

async fn compact(raft: &Raft) {
    let Some(applied) = raft.metrics().borrow_watched().last_applied else { return };
    let waits = raft.wait(Some(Duration::from_secs(60)));
    let done = async {
        raft.trigger().snapshot().await.map_err(|e| chain(&e))?;
        let there = waits.metrics(|metrics| metrics.snapshot >= Some(applied), "snapshot");
        there.await.map_err(|e| chain(&e))?;
        raft.trigger().purge_log(applied.index()).await.map_err(|e| chain(&e))?;
        let gone = waits.metrics(|metrics| metrics.purged >= Some(applied), "purge");
        gone.await.map(drop).map_err(|e| chain(&e))
    };
    if let Err::<_, String>(error) = done.await {
        tracing::warn!(%error, "the Raft log is not made smaller");
    }
}

type WriteOutcome<T> = std::result::Result<T, RaftError<Types, ClientWriteError<Types>>>;

fn outcome<T>(
    result: std::result::Result<WriteOutcome<T>, tokio::time::error::Elapsed>,
    act: &str,
) -> Result<()> {
    match result {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::unavailable(format!("{act}: {}", chain(&error)))),
        Err(_) => Err(Error::unavailable(format!("{act}: not done in time"))),
    }
}

fn raft_config(timing: &Timing) -> openraft::Config {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: "gantry".into(),
        heartbeat_interval: millis(timing.raft_heartbeat),
        election_timeout_min: millis(timing.election),
        election_timeout_max: millis(timing.election * 2),
        install_snapshot_timeout: 30_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_every),
        max_in_snapshot_log_to_keep: timing.snapshot_every / 5,
        enable_pre_vote: Some(true),
        // A manager that lost its log says so to the leader before the leader has made it a novice: it is sent everything from the
        // beginning. It neither votes nor stands until its log names it (`novice`); what it acknowledges meanwhile it has.
        allow_log_reversion: Some(true),
        ..openraft::Config::default()
    }
}
