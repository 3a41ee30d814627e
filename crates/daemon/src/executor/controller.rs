//! Drives the container of one task. Every method can be called again, also after a restart of the daemon.

use super::container::{self, LABEL_TASK_ID};
use super::find;
use crate::pull::Puller;
use futures_util::StreamExt;
use gantry_cluster::executor::{Adopted, TaskContext, TaskController, TaskError, TaskExit, async_trait};
use gantry_engine::{
    ContainerView, Engine, ErrorKind, HealthStatus, RemoveOptions, StopTimeout, WaitCondition,
};
use gantry_model::container::ContainerStatus;
use gantry_model::task::TaskContainerStatus;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One task's container.
pub(super) struct Controller {
    engine: Engine,
    puller: Arc<Puller>,
    context: TaskContext,
    /// Id of the container once it is known; saves the search through all containers.
    known: Mutex<Option<String>>,
}

fn failed(error: gantry_engine::Error) -> TaskError {
    TaskError(error.whole())
}

impl Controller {
    pub(super) fn new(engine: Engine, puller: Arc<Puller>, context: TaskContext) -> Self {
        Self { engine, puller, context, known: Mutex::new(None) }
    }

    fn remember(&self, id: &str) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
    }

    /// The container as it is now.
    fn view(&self) -> Option<ContainerView> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(id) = known {
            return self.engine.get(&id).ok();
        }
        let view = find(&self.engine, &self.context.task.id)?;
        self.remember(view.id.as_str());
        Some(view)
    }

    fn needed(&self) -> Result<ContainerView, TaskError> {
        self.view()
            .ok_or_else(|| TaskError(format!("the container of task {} is gone", self.context.task.id)))
    }

    /// Waits until the container is healthy; at once when it has no check.
    async fn healthy(&self, id: &str) -> Result<(), TaskError> {
        let mut changes = self.changes(id)?;
        loop {
            let view = self.needed()?;
            if view.state.status != ContainerStatus::Running {
                return Err(ended(&view));
            }
            match view.state.health.as_ref().map(|health| health.status) {
                None | Some(HealthStatus::Healthy) => return Ok(()),
                Some(HealthStatus::Unhealthy) => return Err(self.give_up(&view).await),
                Some(HealthStatus::Starting) => {}
            }
            // The events of a lagging subscriber can be lost: look again now and then.
            let _ = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
        }
    }

    /// Events of the container.
    fn changes(&self, id: &str) -> Result<gantry_engine::Flow<gantry_engine::Event>, TaskError> {
        let filters = BTreeMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("container".to_owned(), vec![id.to_owned()]),
        ]);
        self.engine.events(None, None, filters).map_err(failed)
    }

    /// Ends an unhealthy container and says why.
    async fn give_up(&self, view: &ContainerView) -> TaskError {
        let last = view.state.health.as_ref().and_then(|health| health.log.last());
        let output = last.map(|check| check.output.trim().to_owned()).unwrap_or_default();
        if let Err(error) = self.engine.stop(view.id.as_str(), None, StopTimeout::Default).await
            && error.kind() != ErrorKind::NotModified
        {
            tracing::warn!(container = view.id.short(), error = error.whole(), "stop an unhealthy container");
        }
        match output.as_str() {
            "" => TaskError("task: unhealthy container".to_owned()),
            output => TaskError(format!("task: unhealthy container: the last check said: {output}")),
        }
    }

    /// Ends when the container turns unhealthy.
    async fn unhealthy(&self, id: &str) -> TaskError {
        let Ok(mut changes) = self.changes(id) else { return std::future::pending().await };
        loop {
            if let Some(view) = self.view()
                && view.state.status == ContainerStatus::Running
                && view.state.health.as_ref().is_some_and(|health| health.status == HealthStatus::Unhealthy)
            {
                return self.give_up(&view).await;
            }
            match changes.next().await {
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Why a container that should run does not.
fn ended(view: &ContainerView) -> TaskError {
    if view.state.error.is_empty() {
        TaskError(format!("task: non-zero exit ({})", view.state.exit_code))
    } else {
        TaskError(view.state.error.clone())
    }
}

#[async_trait]
impl TaskController for Controller {
    async fn adopt(&self) -> Adopted {
        match self.view().map(|view| view.state.status) {
            None | Some(ContainerStatus::Removing | ContainerStatus::Dead) => Adopted::Nothing,
            Some(ContainerStatus::Created) => Adopted::Created,
            Some(ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting) => {
                Adopted::Running
            }
            Some(ContainerStatus::Exited) => Adopted::Exited,
        }
    }

    async fn prepare(&self) -> Result<(), TaskError> {
        if self.view().is_some() {
            return Ok(());
        }
        let spec = self.context.task.spec.container_spec.as_ref();
        let spec = spec.ok_or_else(|| {
            TaskError(format!("task {} has no container specification", self.context.task.id))
        })?;
        self.puller.ensure(&spec.image, spec.pull_auth.as_ref()).await.map_err(TaskError)?;
        let request = container::request(&self.context).map_err(|error| TaskError::of(&error))?;
        debug_assert!(request.config.labels.contains_key(LABEL_TASK_ID));
        let created = self.engine.create(request).await.map_err(failed)?;
        self.remember(created.id.as_str());
        Ok(())
    }

    async fn start(&self) -> Result<(), TaskError> {
        let view = self.needed()?;
        match self.engine.start(view.id.as_str()).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotModified => {}
            Err(error) => return Err(failed(error)),
        }
        self.healthy(view.id.as_str()).await
    }

    async fn wait(&self) -> Result<TaskExit, TaskError> {
        let id = self.needed()?.id.to_string();
        let wait = self.engine.wait(&id, WaitCondition::NotRunning).map_err(failed)?;
        tokio::select! {
            exit = wait.done() => {
                let exit = exit.map_err(failed)?;
                match exit.error {
                    Some(error) if !error.is_empty() => Err(TaskError(error)),
                    _ => Ok(TaskExit { code: i64::from(exit.code) }),
                }
            }
            error = self.unhealthy(&id) => Err(error),
        }
    }

    async fn stop(&self) -> Result<(), TaskError> {
        let Some(view) = self.view() else { return Ok(()) };
        match self.engine.stop(view.id.as_str(), None, StopTimeout::Default).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotModified | ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn remove(&self) -> Result<(), TaskError> {
        let Some(view) = self.view() else { return Ok(()) };
        self.stop().await?;
        let options = RemoveOptions { force: true, volumes: true, link: false };
        match self.engine.remove(view.id.as_str(), options).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn container(&self) -> Option<TaskContainerStatus> {
        let view = self.view()?;
        Some(TaskContainerStatus {
            container_id: view.id.to_string(),
            pid: i64::from(view.state.pid),
            exit_code: i64::from(view.state.exit_code),
            hostname: view.config.hostname.clone(),
        })
    }
}
