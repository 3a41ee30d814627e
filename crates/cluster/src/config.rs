//! What the daemon tells the cluster, and what the cluster tells the daemon about this node.

use crate::executor::Executor;
use gantry_model::id::NodeId;
use gantry_model::node::Availability;
use gantry_model::swarm::{Cluster as ClusterObject, JoinTokens, SwarmSpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the daemon gives when it opens the cluster.
#[derive(Clone)]
pub struct ClusterConfig {
    /// Folder for identity, Raft log and the last assignment; made if missing, mode 0700.
    pub state_dir: PathBuf,
    /// Runs the tasks.
    pub executor: Arc<dyn Executor>,
    /// How fast things happen.
    pub timing: Timing,
}

/// Managers keep the log in memory as well: this much of it is no burden for a small machine.
const SNAPSHOT_BYTES: usize = 16 << 20;

/// How fast things happen. The default is for real networks; tests take [`Timing::fast`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats of the Raft leader.
    pub raft_heartbeat: Duration,
    /// A follower that heard nothing for this long asks for votes (the upper bound is twice that).
    pub election: Duration,
    /// Between heartbeats of agents; absent: as the cluster's specification says (5 s).
    pub agent_heartbeat: Option<Duration>,
    /// How long a write waits for a leader and a majority.
    pub write_timeout: Duration,
    /// Changes within this time go to a node together.
    pub debounce: Duration,
    /// How long a certificate is valid; absent: as the cluster's specification says (90 days).
    pub certificate_validity: Option<Duration>,
    /// Log entries between snapshots.
    pub snapshot_every: u64,
    /// Bytes of log entries, each as large as its specifications, after which a snapshot comes sooner.
    pub snapshot_bytes: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            raft_heartbeat: Duration::from_millis(250),
            election: Duration::from_millis(1000),
            agent_heartbeat: None,
            write_timeout: Duration::from_millis(2000),
            debounce: Duration::from_millis(50),
            certificate_validity: None,
            snapshot_every: 5000,
            snapshot_bytes: SNAPSHOT_BYTES,
        }
    }
}

impl Timing {
    /// For tests on one machine.
    pub fn fast() -> Self {
        Self {
            raft_heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(500),
            agent_heartbeat: Some(Duration::from_secs(1)),
            write_timeout: Duration::from_millis(1500),
            debounce: Duration::from_millis(10),
            certificate_validity: None,
            snapshot_every: 5000,
            snapshot_bytes: SNAPSHOT_BYTES,
        }
    }
}

/// The port of nodes unless said otherwise.
pub const DEFAULT_PORT: u16 = 2377;

/// Makes a new cluster with this node as its only manager.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InitRequest {
    /// `ip`, `ip:port` or empty (all addresses, 2377). The daemon resolves interface names.
    pub listen_addr: String,
    /// `ip`, `ip:port` or empty (the listening address, or the one with which this host reaches others).
    pub advertise_addr: String,
    /// `ip` or empty (that of `advertise_addr`).
    pub data_path_addr: String,
    /// Pools for overlay subnets; empty: 10.0.0.0/8.
    pub default_addr_pool: Vec<String>,
    /// Prefix length of those subnets; 0: 24.
    pub subnet_size: u32,
    /// VXLAN port; 0: 4789.
    pub data_path_port: u32,
    /// Keep the state of a cluster that lost its majority, with this node as its only manager.
    pub force_new_cluster: bool,
    /// Make managers ask for an unlock key when they start.
    pub auto_lock_managers: bool,
    /// What the operator wants.
    pub spec: SwarmSpec,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// Joins an existing cluster.
#[derive(Clone, Default, PartialEq)]
pub struct JoinRequest {
    /// Managers, `host[:port]` each; one that answers is enough.
    pub remote_addrs: Vec<String>,
    /// Which cluster, and in which role.
    pub token: String,
    /// As in [`InitRequest`].
    pub listen_addr: String,
    /// As in [`InitRequest`].
    pub advertise_addr: String,
    /// As in [`InitRequest`].
    pub data_path_addr: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("remote_addrs", &self.remote_addrs)
            .field("listen_addr", &self.listen_addr)
            .field("advertise_addr", &self.advertise_addr)
            .finish_non_exhaustive()
    }
}

/// Whether this node is part of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalNodeState {
    /// No.
    #[default]
    Inactive,
    /// It is joining, or has not found a manager since it started.
    Pending,
    /// Yes.
    Active,
    /// Yes, and something is wrong: see the error.
    Error,
    /// It needs the unlock key.
    Locked,
}

impl LocalNodeState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// A manager that this node knows of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RemoteManager {
    /// Its id.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// `host:port`.
    pub addr: String,
}

/// This node in the cluster: the `Swarm` section of `docker info`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalInfo {
    /// Its id, or empty.
    pub node_id: NodeId,
    /// Its advertised address without the port, or empty.
    pub node_addr: String,
    /// Whether it is part of a cluster.
    pub local_node_state: LocalNodeState,
    /// Whether it is a manager.
    pub control_available: bool,
    /// What is wrong, or empty.
    pub error: String,
    /// Managers.
    pub remote_managers: Vec<RemoteManager>,
    /// Number of nodes (managers know it).
    pub nodes: u64,
    /// Number of managers (managers know it).
    pub managers: u64,
    /// The cluster (managers know it).
    pub cluster: Option<ClusterObject>,
}

/// The cluster with its join tokens: `GET /swarm`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SwarmInfo {
    /// The cluster.
    pub cluster: ClusterObject,
    /// How to join it.
    pub join_tokens: JoinTokens,
}

/// Which secrets of the cluster are to be replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate {
    /// The workers' join token.
    pub worker_token: bool,
    /// The managers' join token.
    pub manager_token: bool,
    /// The unlock key.
    pub manager_unlock_key: bool,
}
