//! The executor: what a node must be able to do so that the cluster can run tasks on it. `daemon` implements it over the engine.
//!
//! The agent owns the life cycle. For each assigned task it asks the executor for one [`TaskController`] and drives it:
//!
//! ```text
//! adopt ─► prepare ─► (desired state ≥ running) start ─► wait ─► complete | failed
//!             │                                    │        │
//!             └ rejected                           └ failed └ desired state > running: stop ─► shutdown
//! remove: when the managers no longer list the task, or want it removed
//! ```
//!
//! The agent never calls two of `prepare`, `start` and `wait` of one task at the same time; it may drop their futures (to stop the task while its
//! image is pulled) and then calls `stop`, or `remove`. It may call every method again after a restart of the daemon.

use crate::error::Result;
use gantry_model::id::{NodeId, ServiceId, TaskId};
use gantry_model::node::{NodeDescription, PathTrouble};
use gantry_model::overlay::OverlayState;
use gantry_model::secret::{Config, Secret};
use gantry_model::task::{Task, TaskContainerStatus};
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::sync::Arc;

pub use tonic::async_trait;

/// What a node must be able to do.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What the node says of itself (host name, platform, resources, engine, labels); asked at every connection to a manager.
    /// The agent fills in `tls_info`.
    async fn describe(&self) -> NodeDescription;

    /// Makes the node's cluster networks as given: called with the complete state at every change, one call at a time, and before the tasks
    /// that need it are prepared. Without networks and mesh when the node leaves the cluster.
    async fn apply_overlay(&self, overlay: OverlayState) -> Result<(), TaskError>;

    /// The means to run one task; makes nothing yet.
    fn controller(&self, task: TaskContext) -> Arc<dyn TaskController>;

    /// Removes the containers of all tasks of the cluster but these: called once when the agent starts, and with nothing when the node
    /// leaves the cluster.
    async fn retain(&self, tasks: &[TaskId]);

    /// The output of one task that ran or runs on this node.
    async fn logs(&self, task: &Task, options: &LogOptions) -> Result<LogStream, TaskError>;

    /// The data paths to other nodes that are broken now; asked at every heartbeat.
    fn path_trouble(&self) -> Vec<PathTrouble>;

    /// The nodes of which this one hears nothing at all, not even their kernels; asked several times a second.
    fn silent_nodes(&self) -> Vec<NodeId>;
}

/// A task with all that it may use.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// The task: specification, addresses, host ports.
    pub task: Task,
    /// This node, for templates.
    pub node_id: NodeId,
    /// This node's host name, for templates.
    pub hostname: String,
    /// The secrets that the task refers to.
    pub secrets: Vec<Secret>,
    /// The configs that the task refers to.
    pub configs: Vec<Config>,
}

/// Runs one task. Every method is idempotent.
#[async_trait]
pub trait TaskController: Send + Sync {
    /// Looks for what an earlier run of the daemon left; must not change anything.
    async fn adopt(&self) -> Adopted;

    /// Fetches the image, makes the container (not started). An error rejects the task.
    async fn prepare(&self) -> Result<(), TaskError>;

    /// Starts the container; returns once it runs and, if it has a health check, is healthy.
    async fn start(&self) -> Result<(), TaskError>;

    /// Waits until the container ended, and says how; an error if it was ended because it became unhealthy.
    async fn wait(&self) -> Result<TaskExit, TaskError>;

    /// Stops the container with the grace period of its specification; returns when it has ended. Nothing to stop is success.
    async fn stop(&self) -> Result<(), TaskError>;

    /// Removes the container and what belongs to it; stops it first if need be.
    async fn remove(&self) -> Result<(), TaskError>;

    /// The container as far as it is known: for `Status.ContainerStatus`.
    async fn container(&self) -> Option<TaskContainerStatus>;
}

/// What was found of a task when the daemon came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// No container.
    Nothing,
    /// A container that was never started.
    Created,
    /// A container that runs (healthy or not yet).
    Running,
    /// A container that ended.
    Exited,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskExit {
    /// Its exit code.
    pub code: i64,
}

/// Why a step of a task failed: a whole sentence for `docker service ps --no-trunc`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(pub String);

impl TaskError {
    /// The whole chain of causes in one sentence.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(crate::error::chain(error))
    }
}

/// Which output is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on until the task ends.
    pub follow: bool,
    /// Only the last so many lines; absent: all.
    pub tail: Option<u64>,
    /// Not before this instant.
    pub since: Option<jiff::Timestamp>,
    /// Not after this instant.
    pub until: Option<jiff::Timestamp>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { stdout: true, stderr: true, follow: false, tail: None, since: None, until: None }
    }
}

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, as the executor reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// When it was written.
    pub time: jiff::Timestamp,
    /// Where it was written to.
    pub source: LogSource,
    /// The bytes, with the newline.
    pub data: bytes::Bytes,
}

/// Output as it comes; an error ends it.
pub type LogStream = Pin<Box<dyn futures_util::Stream<Item = Result<LogChunk, TaskError>> + Send>>;

/// A piece of output with where it is from, as the leader gathers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMessage {
    /// The node.
    pub node_id: NodeId,
    /// The service.
    pub service_id: ServiceId,
    /// The task.
    pub task_id: TaskId,
    /// When.
    pub time: jiff::Timestamp,
    /// Where it was written to.
    pub source: LogSource,
    /// Base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub data: bytes::Bytes,
}

/// Gathered output; an error ends it.
pub type LogMessages = Pin<Box<dyn futures_util::Stream<Item = Result<LogMessage>> + Send>>;

mod base64_bytes {
    //! Bytes in JSON.
    use base64::Engine;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(data: &bytes::Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(data))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bytes::Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let data =
            base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(data.into())
    }
}
