//! Raft, identity, leader loops, dispatcher and agent. Knows no containers: [`Executor`] runs them.
//!
//! Public face, for `daemon`:
//! - [`Executor`] and [`TaskController`]: what the node implements. The agent here drives each task's life cycle.
//! - [`Cluster`]: `open`, `init`, `join`, `leave`, `info`, reads, writes, logs, attachments, `shutdown`.

pub(crate) mod agent;
pub mod cluster;
pub mod config;
pub mod control;
pub mod error;
pub mod executor;
pub mod identity;
pub(crate) mod leader;
pub(crate) mod manager;
pub(crate) mod node;
pub(crate) mod orders;
pub(crate) mod raft;
pub(crate) mod rpc;

pub use cluster::Cluster;
pub use config::{
    ClusterConfig, InitRequest, JoinRequest, LocalInfo, LocalNodeState, RemoteManager, Rotate, SwarmInfo,
    Timing,
};
pub use control::request::{AttachRequest, Attachment, RegistryAuthFrom, Rollback};
pub use error::{Error, ErrorKind, Result};
pub use executor::{
    Adopted, Executor, LogChunk, LogMessage, LogMessages, LogOptions, LogSource, LogStream, TaskContext,
    TaskController, TaskError, TaskExit, async_trait,
};
pub use manager::events::ClusterEvent;

/// Messages between nodes, made from `proto/cluster.proto`.
#[allow(missing_docs, clippy::all)]
pub(crate) mod proto {
    tonic::include_proto!("gantry.cluster.v1");
}
