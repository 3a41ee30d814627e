//! Nodes of the cluster.

use crate::id::NodeId;
use crate::nullable;
use crate::service::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A node (Docker API: `Node`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Node {
    /// Id: the common name of its certificate.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// What the operator wants.
    pub spec: NodeSpec,
    /// What the node says of itself.
    pub description: NodeDescription,
    /// What the managers see.
    pub status: NodeStatus,
    /// For managers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
    /// Small number, unique in the cluster: the node's place in the mesh's address plan.
    #[serde(rename = "GantryIndex")]
    pub index: u16,
    /// Address of the data path (VXLAN); empty: that of the status.
    #[serde(rename = "GantryDataPathAddr", deserialize_with = "nullable")]
    pub data_path_addr: String,
    /// Paths to other nodes that are broken, as the node's probes found.
    #[serde(rename = "GantryPaths", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathTrouble>,
}

/// A data path between two nodes that does not work as it must.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PathTrouble {
    /// The other node.
    pub peer: String,
    /// A whole sentence with both nodes and the cause.
    pub detail: String,
}

/// What the operator wants of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeSpec {
    /// Name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Role.
    pub role: NodeRole,
    /// Availability.
    pub availability: Availability,
}

/// What a node does in the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs tasks.
    #[default]
    Worker,
    /// Takes part in Raft as well.
    Manager,
}

impl NodeRole {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes and keeps.
    #[default]
    Active,
    /// Keeps, takes none.
    Pause,
    /// Gives up all.
    Drain,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Platform.
    pub platform: NodePlatform,
    /// What it has.
    pub resources: NodeResources,
    /// Engine.
    pub engine: EngineDescription,
    /// Trust root and issuer.
    #[serde(rename = "TLSInfo", deserialize_with = "nullable")]
    pub tls_info: TlsInfo,
}

/// A platform in the words of the cluster API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePlatform {
    /// `x86_64`.
    #[serde(rename = "Architecture", deserialize_with = "nullable")]
    pub architecture: String,
    /// `linux`.
    #[serde(rename = "OS", deserialize_with = "nullable")]
    pub os: String,
}

/// What a node has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeResources {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: i64,
    /// Bytes.
    #[serde(rename = "MemoryBytes")]
    pub memory_bytes: i64,
}

/// The engine of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EngineDescription {
    /// Version.
    pub engine_version: String,
    /// Labels of the daemon.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Plug-ins.
    #[serde(deserialize_with = "nullable")]
    pub plugins: Vec<EnginePlugin>,
}

/// A plug-in of a node's engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EnginePlugin {
    /// `Network`, `Volume`, `Log`.
    pub r#type: String,
    /// Name.
    pub name: String,
}

/// Trust root and issuer of certificates, public parts only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TlsInfo {
    /// PEM.
    #[serde(deserialize_with = "nullable")]
    pub trust_root: String,
    /// DER in base64.
    #[serde(deserialize_with = "nullable")]
    pub cert_issuer_subject: String,
    /// DER in base64.
    #[serde(deserialize_with = "nullable")]
    pub cert_issuer_public_key: String,
}

/// What the managers see of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeStatus {
    /// State.
    pub state: NodeState,
    /// Why.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Address it speaks from.
    #[serde(deserialize_with = "nullable")]
    pub addr: String,
    /// RFC 3339, when the state last changed; kept by the store.
    #[serde(rename = "GantrySince", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Down, and dead beyond doubt: most other nodes hear nothing of it either.
    #[serde(rename = "GantryGone", skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not heard of since the leader changed.
    #[default]
    Unknown,
    /// Missed its heartbeats.
    Down,
    /// Answers.
    Ready,
    /// Was asked to leave.
    Disconnected,
}

/// A manager's part in Raft.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManagerStatus {
    /// Leads.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leader: bool,
    /// `reachable`, `unreachable`, `unknown`.
    pub reachability: String,
    /// host:port.
    pub addr: String,
}
