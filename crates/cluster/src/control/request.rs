//! Writes as values: what the HTTP daemon of any manager asks, and what the leader answers. They travel as JSON when forwarded.

use crate::config::Rotate;
use crate::error::Error;
use gantry_model::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use gantry_model::network::NetworkSpec;
use gantry_model::node::NodeSpec;
use gantry_model::secret::DataSpec;
use gantry_model::service::{ServiceSpec, Version};
use gantry_model::swarm::SwarmSpec;
use gantry_model::task::Task;
use serde::{Deserialize, Serialize};

/// A write.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Request {
    UpdateSwarm {
        version: Version,
        spec: Box<SwarmSpec>,
        rotate: Rotate,
    },
    CreateService {
        spec: Box<ServiceSpec>,
    },
    UpdateService {
        id: ServiceId,
        version: Version,
        spec: Box<ServiceSpec>,
        auth: RegistryAuthFrom,
        rollback: Rollback,
    },
    RemoveService {
        id: ServiceId,
    },
    UpdateNode {
        id: NodeId,
        version: Version,
        spec: NodeSpec,
    },
    RemoveNode {
        id: NodeId,
        force: bool,
    },
    CreateNetwork {
        spec: Box<NetworkSpec>,
    },
    RemoveNetwork {
        id: NetworkId,
    },
    CreateSecret {
        spec: DataSpec,
    },
    UpdateSecret {
        id: SecretId,
        version: Version,
        spec: DataSpec,
    },
    RemoveSecret {
        id: SecretId,
    },
    CreateConfig {
        spec: DataSpec,
    },
    UpdateConfig {
        id: ConfigId,
        version: Version,
        spec: DataSpec,
    },
    RemoveConfig {
        id: ConfigId,
    },
    Attach(AttachRequest),
    Detach {
        node: NodeId,
        task: TaskId,
    },
}

/// Where a service's update takes the credentials for pulls from when it brings none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryAuthFrom {
    /// From the specification that it replaces.
    #[default]
    Spec,
    /// From the one before that.
    PreviousSpec,
}

/// Whether an update goes back to the specification before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollback {
    /// No: take the given specification.
    #[default]
    No,
    /// Yes: the given specification is ignored.
    Previous,
}

/// A container outside services wants to join a cluster network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Node of the container; the agent fills it in.
    pub node: NodeId,
    /// Id or name.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// Name, aliases and short id of the container.
    pub names: Vec<String>,
    /// Wanted address, or empty.
    pub address: String,
}

/// A container's place in a cluster network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The task that stands for the container; detaching names it.
    pub task: TaskId,
    /// The network.
    pub network_id: NetworkId,
    /// Name of the network.
    pub network_name: String,
    /// The container.
    pub container_id: String,
    /// With the length of the prefix: `10.0.1.7/24`.
    pub addresses: Vec<String>,
    /// The container's names in the network.
    pub names: Vec<String>,
}

/// What the leader answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Reply {
    Done,
    Service { id: ServiceId, warnings: Vec<String> },
    Network(NetworkId),
    Secret(SecretId),
    Config(ConfigId),
    Attached { task: Box<Task>, network: Box<gantry_model::network::Network> },
}

/// A reply with the index that a reader of his own writes waits for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Raft index up to which the write is visible.
    pub index: u64,
    /// The reply or the refusal.
    pub reply: Result<Reply, Error>,
}

impl Request {
    /// How long a manager waits for the leader's answer: an attachment waits for its address.
    pub fn patience(&self, write: std::time::Duration) -> std::time::Duration {
        match self {
            Self::Attach(_) => write + crate::control::ADDRESS,
            _ => write,
        }
    }
}
