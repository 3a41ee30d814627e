//! Runs the cluster's tasks on this node: the `Executor` that `gantry_cluster` defines, over engine, images and networks.
//!
//! `container` and `files` are pure: from a task to what the engine is asked for. `controller` drives one task's
//! container, found again after a restart by its label. `describe` says what this node is.

mod container;
mod controller;
mod describe;
mod files;

use crate::pull::Puller;
use controller::Controller;
use futures_util::StreamExt;
use gantry_cluster::executor::{
    Executor, LogChunk, LogOptions, LogSource, LogStream, TaskContext, TaskController, TaskError, async_trait,
};
use gantry_engine::{ContainerView, Engine, RemoveOptions, StdStream};
use gantry_model::id::{NodeId, TaskId};
use gantry_model::node::{NodeDescription, PathTrouble};
use gantry_model::overlay::OverlayState;
use gantry_model::task::Task;
use gantry_network::Networks;
use std::collections::HashSet;
use std::sync::Arc;

pub use container::LABEL_TASK_ID;
pub use describe::Description;

/// The executor of this node.
pub struct NodeExecutor {
    engine: Engine,
    networks: Arc<Networks>,
    puller: Arc<Puller>,
    description: Description,
}

impl NodeExecutor {
    /// Over the parts of this node.
    pub fn new(
        engine: Engine,
        networks: Arc<Networks>,
        puller: Arc<Puller>,
        description: Description,
    ) -> Self {
        Self { engine, networks, puller, description }
    }
}

/// The container of a task, by its label.
fn find(engine: &Engine, task: &TaskId) -> Option<ContainerView> {
    engine
        .list()
        .into_iter()
        .find(|view| view.config.labels.get(LABEL_TASK_ID).is_some_and(|id| id == task.as_str()))
}

#[async_trait]
impl Executor for NodeExecutor {
    async fn describe(&self) -> NodeDescription {
        self.description.node()
    }

    async fn apply_overlay(&self, overlay: OverlayState) -> Result<(), TaskError> {
        let networks = Arc::clone(&self.networks);
        let applied = tokio::task::spawn_blocking(move || networks.apply_overlay(overlay)).await;
        match applied {
            Ok(result) => result.map_err(|error| TaskError::of(&error)),
            Err(error) => Err(TaskError::of(&error)),
        }
    }

    fn controller(&self, task: TaskContext) -> Arc<dyn TaskController> {
        Arc::new(Controller::new(self.engine.clone(), Arc::clone(&self.puller), task))
    }

    async fn retain(&self, tasks: &[TaskId]) {
        let keep: HashSet<&str> = tasks.iter().map(TaskId::as_str).collect();
        for view in self.engine.list() {
            let Some(task) = view.config.labels.get(LABEL_TASK_ID) else { continue };
            if keep.contains(task.as_str()) {
                continue;
            }
            let options = RemoveOptions { force: true, volumes: true, link: false };
            if let Err(error) = self.engine.remove(view.id.as_str(), options).await {
                tracing::warn!(
                    container = view.id.short(),
                    task,
                    error = error.whole(),
                    "the container of a past task stays"
                );
            }
        }
    }

    async fn logs(&self, task: &Task, options: &LogOptions) -> Result<LogStream, TaskError> {
        let Some(view) = find(&self.engine, &task.id) else {
            return Err(TaskError(format!("task {} has no container on this node any more", task.id)));
        };
        let wanted = gantry_engine::LogOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            since: options.since,
            until: options.until,
            tail: options.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            follow: options.follow,
        };
        let lines =
            self.engine.logs(view.id.as_str(), wanted).await.map_err(|error| TaskError::of(&error))?;
        Ok(lines.map(|line| line.map(chunk).map_err(|error| TaskError::of(&error))).boxed())
    }

    fn path_trouble(&self) -> Vec<PathTrouble> {
        self.networks.path_trouble()
    }

    fn silent_nodes(&self) -> Vec<NodeId> {
        self.networks.silent_nodes()
    }
}

fn chunk(line: gantry_engine::LogLine) -> LogChunk {
    let source = match line.stream {
        StdStream::Stdout => LogSource::Stdout,
        StdStream::Stderr => LogSource::Stderr,
    };
    LogChunk { time: line.time, source, data: line.bytes }
}
