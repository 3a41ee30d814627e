//! The objects of the store, and the names by which a change refers to them.

use crate::table::Keyed;
use gantry_model::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use gantry_model::network::Network;
use gantry_model::node::Node;
use gantry_model::secret::{Config, Secret};
use gantry_model::service::{Service, Version};
use gantry_model::swarm::{Cluster, JoinTokens};
use gantry_model::task::Task;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A network of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterNetwork {
    /// What clients see; the allocator fills in the subnets and gateways of `spec.ipam.config`.
    #[serde(flatten)]
    pub network: Network,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub updated_at: String,
    /// VXLAN network identifier; 0 until the allocator gave one.
    #[serde(rename = "VNI")]
    pub vni: u32,
}

impl ClusterNetwork {
    /// The id, as the indexes want it.
    pub fn id(&self) -> NetworkId {
        NetworkId::parse(&self.network.id).unwrap_or_default()
    }

    /// Whether it has its VNI and subnets, so that tasks can join.
    pub fn is_allocated(&self) -> bool {
        let subnets = &self.network.spec.ipam.config;
        self.vni != 0
            && !subnets.is_empty()
            && subnets.iter().all(|s| !s.subnet.is_empty() && !s.gateway.is_empty())
    }
}

/// The cluster itself with what only managers may know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterRecord {
    /// What clients see.
    pub cluster: Cluster,
    /// Keys and tokens.
    pub secrets: ClusterSecrets,
}

/// Keys and tokens of the cluster. The planner carries them and never looks inside.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterSecrets {
    /// PEM.
    pub ca_certificate: String,
    /// PEM.
    pub ca_key: String,
    /// Join tokens.
    pub join_tokens: JoinTokens,
    /// Unlock key of the managers' disks; empty: none.
    pub unlock_key: String,
    /// What else the crate `cluster` keeps here.
    pub other: BTreeMap<String, String>,
}

impl fmt::Debug for ClusterSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecrets(…)")
    }
}

/// One object of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// The cluster; there is one.
    Cluster(Box<ClusterRecord>),
    /// A node.
    Node(Box<Node>),
    /// A service.
    Service(Box<Service>),
    /// A task.
    Task(Box<Task>),
    /// A network.
    Network(Box<ClusterNetwork>),
    /// A secret.
    Secret(Box<Secret>),
    /// A config.
    Config(Box<Config>),
}

impl Object {
    /// Which object this is.
    pub fn reference(&self) -> ObjectRef {
        match self {
            Self::Cluster(_) => ObjectRef::Cluster,
            Self::Node(node) => ObjectRef::Node(node.id.clone()),
            Self::Service(service) => ObjectRef::Service(service.id.clone()),
            Self::Task(task) => ObjectRef::Task(task.id.clone()),
            Self::Network(network) => ObjectRef::Network(network.id()),
            Self::Secret(secret) => ObjectRef::Secret(secret.id.clone()),
            Self::Config(config) => ObjectRef::Config(config.id.clone()),
        }
    }

    /// The version that the object carries.
    pub fn version(&self) -> Version {
        match self {
            Self::Cluster(record) => record.cluster.version,
            Self::Node(node) => node.version,
            Self::Service(service) => service.version,
            Self::Task(task) => task.version,
            Self::Network(network) => network.version,
            Self::Secret(secret) => secret.version,
            Self::Config(config) => config.version,
        }
    }
}

/// The name of one object of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectRef {
    /// The cluster.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A network.
    Network(NetworkId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Secret(id) => write!(f, "secret {id}"),
            Self::Config(id) => write!(f, "config {id}"),
        }
    }
}

macro_rules! keyed {
    ($($type:ty),*) => {
        $(impl Keyed for $type {
            fn key(&self) -> &str {
                self.id.as_str()
            }
        })*
    };
}

keyed!(Node, Service, Task, Secret, Config);

impl Keyed for ClusterNetwork {
    fn key(&self) -> &str {
        &self.network.id
    }
}
