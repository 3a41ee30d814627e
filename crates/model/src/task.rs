//! Tasks: one try to run one container of a service on one node.
//!
//! A task's observed state only moves forward, a task is never reused: a restart is a new task in the same slot.
//!
//! ```text
//! new → pending → assigned → accepted → preparing → ready → starting → running → complete
//!                                                                        │         shutdown, failed, rejected, orphaned, remove
//! ```

use crate::id::{NodeId, ServiceId, TaskId};
use crate::nullable;
use crate::service::{PortConfig, TaskSpec, Version};
use crate::shared::Shared;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a task is, in SwarmKit's order; also used for the state that the managers want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Made, addresses not yet given.
    #[default]
    New,
    /// Waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// The node knows of it.
    Accepted,
    /// The node fetches what it needs.
    Preparing,
    /// Could start.
    Ready,
    /// Is being started.
    Starting,
    /// Runs (and is healthy).
    Running,
    /// Ended by itself with success.
    Complete,
    /// Was stopped as wanted.
    Shutdown,
    /// Ended with an error.
    Failed,
    /// The node could not prepare it.
    Rejected,
    /// (desired only) to be removed with its history.
    Remove,
    /// Its node is gone for long.
    Orphaned,
}

impl TaskState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// Whether the container has ended (or never will run).
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

/// A task (Docker API: `Task`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    /// Id.
    #[serde(rename = "ID")]
    pub id: TaskId,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// Name, for attachments.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// What it runs: a copy, so that a change of the service does not reach it.
    pub spec: Shared<TaskSpec>,
    /// Version of the service's template that it was made from.
    #[serde(rename = "GantrySpecVersion")]
    pub spec_version: u64,
    /// The service; empty for attachments.
    #[serde(rename = "ServiceID", skip_serializing_if = "ServiceId::is_empty")]
    pub service_id: ServiceId,
    /// Name of the service, for names of containers and DNS.
    #[serde(rename = "GantryServiceName", skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// Labels of the service when the task was made, for its templates.
    #[serde(
        rename = "GantryServiceLabels",
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub service_labels: BTreeMap<String, String>,
    /// 1… for replicated services; 0 for global ones.
    #[serde(skip_serializing_if = "zero_slot")]
    pub slot: u64,
    /// The node; empty while it waits.
    #[serde(rename = "NodeID", skip_serializing_if = "NodeId::is_empty")]
    pub node_id: NodeId,
    /// Observed: written by the agent of the node (and by the managers before it has one).
    pub status: TaskStatus,
    /// Wanted: written by the managers only.
    pub desired_state: TaskState,
    /// Addresses in the networks.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub networks_attachments: Vec<NetworkAttachment>,
    /// Ports published on the node itself, numbers chosen.
    #[serde(
        rename = "GantryHostPorts",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub host_ports: Vec<PortConfig>,
    /// Earliest start of a replacement (RFC 3339); empty: at once.
    #[serde(
        rename = "GantryStartAfter",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub start_after: String,
    /// Iteration of the job that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Version>,
    /// RFC 3339, by the managers' clock, when it was first seen running; kept by the store.
    #[serde(
        rename = "GantryRunningAt",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub running_at: String,
    /// RFC 3339, by the managers' clock, when it was seen to have ended; kept by the store.
    #[serde(
        rename = "GantryEndedAt",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub ended_at: String,
}

fn zero_slot(slot: &u64) -> bool {
    *slot == 0
}

/// What is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskStatus {
    /// RFC 3339, of the last change.
    pub timestamp: String,
    /// State.
    pub state: TaskState,
    /// What is going on.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What went wrong, whole.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub err: String,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<TaskContainerStatus>,
    /// Ports that the node itself publishes.
    #[serde(deserialize_with = "nullable")]
    pub port_status: PortStatus,
}

/// The container of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskContainerStatus {
    /// Id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Process id on the node.
    #[serde(rename = "PID")]
    pub pid: i64,
    /// Exit code once it ended.
    #[serde(rename = "ExitCode")]
    pub exit_code: i64,
    /// Its host name, templates filled in; empty: the first twelve digits of its id.
    #[serde(rename = "GantryHostname", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

impl TaskContainerStatus {
    /// The names that the container has besides that of its task: its host name, and the short form of its id, which is what it
    /// takes for its host name when none is given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let short = self.container_id.get(..12).unwrap_or(&self.container_id);
        [self.hostname.as_str(), short].into_iter().filter(|name| !name.is_empty())
    }
}

/// Ports that a task publishes on its own node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortStatus {
    /// Ports.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

/// A task's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachment {
    /// The network.
    #[serde(rename = "GantryNetworkID")]
    pub network_id: String,
    /// With the length of the prefix: `10.0.1.7/24`.
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    /// Names of the task there beside its own.
    #[serde(rename = "GantryAliases", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}
