//! A runner drives one task through its life, forward only; the diagram is in [`crate::executor`].

use super::reports::Reports;
use crate::executor::{Adopted, TaskController, TaskError, TaskExit};
use gantry_model::id::TaskId;
use gantry_model::task::{PortStatus, Task, TaskContainerStatus, TaskState, TaskStatus};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause before a stop or removal that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A task that is told to stop goes on for so long while all nodes take it out of their virtual addresses and the mesh: the order to stop
/// and the new endpoints leave the leader together, and arrive and are applied one before the other.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// What is wanted of a task; a later goal overrides an earlier one, never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Ready to start, not started.
    Prepare,
    /// Running.
    Run,
    /// Stopped; the container stays, for its logs.
    Stop,
    /// Stopped and removed.
    Remove,
    /// The cluster has forgotten the task: removed, and nothing to report.
    Gone,
}

impl Goal {
    /// What a desired state asks of the node.
    pub fn of(desired: TaskState) -> Self {
        match desired {
            state if state <= TaskState::Ready => Self::Prepare,
            TaskState::Starting | TaskState::Running | TaskState::Complete => Self::Run,
            TaskState::Remove => Self::Remove,
            _ => Self::Stop,
        }
    }
}

/// A runner's handle.
pub struct Runner {
    goal: watch::Sender<Goal>,
    handle: JoinHandle<()>,
}

impl Runner {
    /// Starts to drive a task.
    pub fn start(task: Task, controller: Arc<dyn TaskController>, reports: Arc<Reports>, goal: Goal) -> Self {
        let (sender, receiver) = watch::channel(goal);
        let handle = tokio::spawn(Driver { task, controller, reports, goal: receiver }.run());
        Self { goal: sender, handle }
    }

    /// Changes the goal, forward only.
    pub fn want(&self, goal: Goal) {
        self.goal.send_if_modified(|now| {
            let further = goal > *now;
            if further {
                *now = goal;
            }
            further
        });
    }

    /// Ends the runner without touching the container.
    pub fn abort(&self) {
        self.handle.abort();
    }
}

struct Driver {
    task: Task,
    controller: Arc<dyn TaskController>,
    reports: Arc<Reports>,
    goal: watch::Receiver<Goal>,
}

/// How a life ended.
enum End {
    /// By itself.
    Exited(TaskExit),
    /// A step failed.
    Failed(TaskState, TaskError),
    /// It was told to.
    Told,
}

impl Driver {
    async fn run(mut self) {
        let id = self.task.id.clone();
        if !self.reports.get(&id).is_some_and(|status| status.state.is_terminal()) {
            let end = self.live(&id).await;
            self.finish(&id, end).await;
        }
        // What ended by itself may run again: `docker restart` ends it and starts it anew, with its replacement on its way already.
        self.reached(Goal::Stop).await;
        self.insist("stop", |controller| async move { controller.stop().await }).await;
        self.reached(Goal::Remove).await;
        self.insist("remove", |controller| async move { controller.remove().await }).await;
        self.reached(Goal::Gone).await;
        self.reports.forget(&id);
    }

    /// From nothing, or from what an earlier daemon left, to the end.
    async fn live(&mut self, id: &TaskId) -> End {
        let before = self.reports.get(id).map_or(TaskState::New, |status| status.state);
        let found = self.controller.adopt().await;
        if found == Adopted::Nothing {
            if before >= TaskState::Starting {
                return End::Failed(
                    TaskState::Failed,
                    TaskError("the container of this task is gone".into()),
                );
            }
            self.report(id, TaskState::Accepted, "accepted").await;
            if self.told() {
                return End::Told;
            }
            self.report(id, TaskState::Preparing, "preparing").await;
            let controller = Arc::clone(&self.controller);
            match self.unless_told(controller.prepare()).await {
                None => return End::Told,
                Some(Err(error)) => return End::Failed(TaskState::Rejected, error),
                Some(Ok(())) => {}
            }
        }
        if found != Adopted::Exited {
            self.report(id, TaskState::Ready, "prepared").await;
            self.reached(Goal::Run).await;
            if self.told() {
                return End::Told;
            }
            self.report(id, TaskState::Starting, "starting").await;
            let controller = Arc::clone(&self.controller);
            match self.unless_told(controller.start()).await {
                None => return End::Told,
                Some(Err(error)) => return End::Failed(TaskState::Failed, error),
                Some(Ok(())) => {}
            }
            self.report(id, TaskState::Running, "started").await;
        }
        let controller = Arc::clone(&self.controller);
        match self.unless_told(controller.wait()).await {
            None => End::Told,
            Some(Ok(exit)) => End::Exited(exit),
            Some(Err(error)) => End::Failed(TaskState::Failed, error),
        }
    }

    /// Stops what still runs, and reports the end.
    async fn finish(&self, id: &TaskId, end: End) {
        // Also after a failure: a container that became unhealthy, or half started, still runs.
        if !matches!(end, End::Exited(_)) {
            if matches!(end, End::Told) && self.serves(id) {
                tokio::time::sleep(LINGER).await;
            }
            self.insist("stop", |controller| async move { controller.stop().await }).await;
        }
        let mut container = self.controller.container().await;
        let (state, message, err) = match end {
            End::Told => (TaskState::Shutdown, "shutdown", String::new()),
            End::Exited(TaskExit { code: 0 }) => (TaskState::Complete, "finished", String::new()),
            End::Exited(TaskExit { code }) => {
                container.get_or_insert_with(TaskContainerStatus::default).exit_code = code;
                (TaskState::Failed, "started", format!("task: non-zero exit ({code})"))
            }
            End::Failed(state @ TaskState::Rejected, error) => (state, "preparing", error.0),
            End::Failed(state, error) => (state, "started", error.0),
        };
        self.put(
            id,
            TaskStatus {
                state,
                message: message.into(),
                err,
                container_status: container,
                ..TaskStatus::default()
            },
        );
    }

    /// Whether requests may be on their way to it.
    fn serves(&self, id: &TaskId) -> bool {
        let running = self.reports.get(id).is_some_and(|status| status.state == TaskState::Running);
        running && !self.task.networks_attachments.is_empty()
    }

    async fn report(&self, id: &TaskId, state: TaskState, message: &str) {
        let container_status =
            if state >= TaskState::Ready { self.controller.container().await } else { None };
        let ports = if state == TaskState::Running { self.task.host_ports.clone() } else { Vec::new() };
        let port_status = PortStatus { ports };
        self.put(
            id,
            TaskStatus {
                state,
                message: message.into(),
                container_status,
                port_status,
                ..TaskStatus::default()
            },
        );
    }

    fn put(&self, id: &TaskId, status: TaskStatus) {
        let timestamp = jiff::Timestamp::now().to_string();
        self.reports.put(id, TaskStatus { timestamp, ..status });
    }

    fn told(&self) -> bool {
        *self.goal.borrow() >= Goal::Stop
    }

    /// Waits for a goal. When nobody can change it any more, the runner is about to be dropped.
    async fn reached(&mut self, goal: Goal) {
        if self.goal.wait_for(|now| *now >= goal).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Does a step unless the task is told to stop before it is done.
    async fn unless_told<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.reached(Goal::Stop) => None,
            result = step => Some(result),
        }
    }

    /// Does what must be done until it succeeds.
    async fn insist<F, Fut>(&self, act: &str, step: F)
    where
        F: Fn(Arc<dyn TaskController>) -> Fut,
        Fut: Future<Output = Result<(), TaskError>>,
    {
        while let Err(error) = step(Arc::clone(&self.controller)).await {
            tracing::warn!(task = %self.task.id, %error, "could not {act} a task; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::async_trait;
    use gantry_model::task::NetworkAttachment;
    use std::sync::Mutex;
    use std::time::Instant;

    #[derive(Default)]
    struct Stoppable {
        /// How its process ends; absent: not before it is stopped.
        exit: Option<TaskExit>,
        stops: Mutex<Vec<Instant>>,
    }

    #[async_trait]
    impl TaskController for Stoppable {
        async fn adopt(&self) -> Adopted {
            Adopted::Running
        }
        async fn prepare(&self) -> Result<(), TaskError> {
            Ok(())
        }
        async fn start(&self) -> Result<(), TaskError> {
            Ok(())
        }
        async fn wait(&self) -> Result<TaskExit, TaskError> {
            match self.exit {
                Some(exit) => Ok(exit),
                None => std::future::pending().await,
            }
        }
        async fn stop(&self) -> Result<(), TaskError> {
            self.stops.lock().expect("lock").push(Instant::now());
            Ok(())
        }
        async fn remove(&self) -> Result<(), TaskError> {
            Ok(())
        }
        async fn container(&self) -> Option<TaskContainerStatus> {
            None
        }
    }

    /// How long after the order to stop a running task is stopped.
    async fn stopped_after(networks: Vec<NetworkAttachment>) -> Duration {
        let task =
            Task { id: TaskId::from_random([1; 17]), networks_attachments: networks, ..Task::default() };
        let (id, controller) = (task.id.clone(), Arc::new(Stoppable::default()));
        let reports = Arc::new(Reports::new(Default::default()));
        let runner = Runner::start(task, controller.clone(), Arc::clone(&reports), Goal::Run);
        let state = |wanted| reports.get(&id).is_some_and(|status| status.state == wanted);
        while !state(TaskState::Running) {
            tokio::task::yield_now().await;
        }
        let told = Instant::now();
        runner.want(Goal::Stop);
        while !state(TaskState::Shutdown) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stopped = *controller.stops.lock().expect("lock").first().expect("stopped");
        stopped - told
    }

    #[tokio::test]
    async fn what_ended_by_itself_is_stopped_with_its_task_because_it_may_run_again() {
        let task = Task { id: TaskId::from_random([2; 17]), ..Task::default() };
        let id = task.id.clone();
        let controller = Arc::new(Stoppable { exit: Some(TaskExit { code: 1 }), ..Stoppable::default() });
        let reports = Arc::new(Reports::new(Default::default()));
        let runner = Runner::start(task, controller.clone(), Arc::clone(&reports), Goal::Run);
        while reports.get(&id).is_none_or(|status| status.state != TaskState::Failed) {
            tokio::task::yield_now().await;
        }
        assert_eq!(controller.stops.lock().expect("lock").len(), 0, "nobody wanted that yet");
        runner.want(Goal::Stop);
        while controller.stops.lock().expect("lock").is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_task_with_a_network_goes_on_until_nobody_is_sent_to_it() {
        assert!(stopped_after(vec![NetworkAttachment::default()]).await >= LINGER);
        assert!(stopped_after(Vec::new()).await < LINGER, "nobody is sent to it");
    }
}
