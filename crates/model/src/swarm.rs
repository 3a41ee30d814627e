//! The cluster as a whole: its specification, its join tokens.

use crate::id::ClusterId;
use crate::node::TlsInfo;
use crate::nullable;
use crate::service::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The cluster (Docker API: `ClusterInfo`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Cluster {
    /// Id.
    #[serde(rename = "ID")]
    pub id: ClusterId,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// What the operator wants.
    pub spec: SwarmSpec,
    /// Trust root.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// The CA is being replaced.
    pub root_rotation_in_progress: bool,
    /// Pools from which overlay subnets are cut.
    pub default_addr_pool: Vec<String>,
    /// Length of the prefix of those subnets.
    pub subnet_size: u32,
    /// VXLAN port.
    pub data_path_port: u32,
}

/// What the operator wants of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SwarmSpec {
    /// Name: `default`.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Orchestration.
    #[serde(deserialize_with = "nullable")]
    pub orchestration: OrchestrationConfig,
    /// Raft.
    #[serde(deserialize_with = "nullable")]
    pub raft: RaftConfig,
    /// Dispatcher.
    #[serde(deserialize_with = "nullable")]
    pub dispatcher: DispatcherConfig,
    /// CA.
    #[serde(rename = "CAConfig", deserialize_with = "nullable")]
    pub ca_config: CaConfig,
    /// Defaults of tasks.
    #[serde(deserialize_with = "nullable")]
    pub task_defaults: TaskDefaults,
    /// Encryption of managers' disks.
    #[serde(deserialize_with = "nullable")]
    pub encryption_config: EncryptionConfig,
}

/// Orchestration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OrchestrationConfig {
    /// Old tasks kept for each slot; absent: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

/// Raft.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RaftConfig {
    /// Entries between snapshots.
    #[serde(deserialize_with = "nullable")]
    pub snapshot_interval: u64,
    /// Old snapshots kept.
    pub keep_old_snapshots: Option<u64>,
    /// Entries kept for slow followers.
    #[serde(deserialize_with = "nullable")]
    pub log_entries_for_slow_followers: u64,
    /// Heartbeats until an election.
    #[serde(deserialize_with = "nullable")]
    pub election_tick: i64,
    /// Ticks between heartbeats.
    #[serde(deserialize_with = "nullable")]
    pub heartbeat_tick: i64,
}

/// Dispatcher.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatcherConfig {
    /// Nanoseconds between heartbeats of agents; 0: 5 s.
    #[serde(deserialize_with = "nullable")]
    pub heartbeat_period: i64,
}

/// CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CaConfig {
    /// Nanoseconds for which a node's certificate is valid; 0: 90 days.
    #[serde(deserialize_with = "nullable")]
    pub node_cert_expiry: i64,
    /// A change of it replaces the CA.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Defaults of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskDefaults {
    /// Log driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<crate::service::LogDriver>,
}

/// Encryption of managers' disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EncryptionConfig {
    /// A manager needs the unlock key to start.
    #[serde(deserialize_with = "nullable")]
    pub auto_lock_managers: bool,
}

/// The two join tokens; secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinTokens {
    /// For workers.
    pub worker: String,
    /// For managers.
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}
