//! Starting a container, and what follows when its process ends: the record, the restart policy, the removal.

use crate::container::{Container, Run};
use crate::devices;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::launch::Launched;
use crate::monitor;
use crate::record::Record;
use crate::request::{Exit, RemoveOptions};
use crate::restart::{self, Ended};
use crate::signal;
use crate::state::Step;
use gantry_model::container::ContainerStatus;
use gantry_runtime::monitor::ExitStatus;
use jiff::Timestamp;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// Docker's exit code for a container whose end nobody saw (the machine went down).
pub(crate) const UNSEEN: i32 = 255;
/// 128 + SIGKILL.
const KILLED: i32 = 137;

impl Engine {
    /// Runs work on a container to its end even if the caller goes away meanwhile.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        reference: &str,
        work: impl AsyncWork<T>,
    ) -> Result<T> {
        let container = self.find(reference)?;
        let engine = self.clone();
        tokio::spawn(async move { work.run(engine, container).await })
            .await
            .map_err(|_| Error::Cancelled("a change of a container"))?
    }

    /// Starts a container. [`Error::Already`] when it runs.
    pub async fn start(&self, reference: &str) -> Result<()> {
        self.whole(reference, |engine: Engine, container: Arc<Container>| async move {
            let _operation = container.operation.lock().await;
            engine.start_locked(&container).await
        })
        .await
    }

    pub(crate) async fn start_locked(&self, container: &Arc<Container>) -> Result<()> {
        match container.status() {
            ContainerStatus::Running => {
                return Err(Error::Already(container.id.short().to_owned(), "started"));
            }
            ContainerStatus::Paused => {
                return Err(refused("start", container, "it is paused, try unpause instead"));
            }
            ContainerStatus::Removing | ContainerStatus::Dead => {
                return Err(refused("start", container, "it is marked for removal"));
            }
            ContainerStatus::Created | ContainerStatus::Exited | ContainerStatus::Restarting => {}
        }
        container.call_off_restart();
        {
            let mut record = container.record();
            record.stopped_by_user = false;
            record.restart_count = 0;
        }
        container.restart.lock().unwrap_or_else(PoisonError::into_inner).last_pause = None;
        match self.launch(container).await {
            Ok(launched) => {
                self.began(container, launched);
                Ok(())
            }
            Err(error) => {
                self.start_failed(container, &error).await;
                Err(error)
            }
        }
    }

    /// A start that failed: the reason is kept with the container; one that removes itself goes.
    async fn start_failed(&self, container: &Arc<Container>, error: &Error) {
        let exit_code = match error {
            Error::Start { exit_code, .. } => *exit_code,
            _ => 128,
        };
        let remove = {
            let mut record = container.record();
            record.state.exit_code = exit_code;
            record.state.error = error.whole();
            record.state.finished_at = record.has_run.then(Timestamp::now);
            record.host.auto_remove
        };
        // From any state in which a start was tried this step is allowed.
        let _ = container.step(Step::StartFailed, "start");
        container.drop_pending();
        let exit = Exit { code: exit_code, error: Some(error.whole()) };
        container.life.send_modify(|life| {
            life.running = false;
            life.restarting = false;
            life.exit = exit;
        });
        if remove {
            let options = RemoveOptions { force: true, volumes: true, link: false };
            if let Err(error) = self.remove_locked(container, options).await {
                tracing::warn!(
                    container = container.id.short(),
                    error = error.whole(),
                    "remove after a failed start"
                );
            }
        } else {
            self.save_soon(container);
        }
    }

    /// Takes note of a process that was started, and watches it.
    pub(crate) fn began(&self, container: &Arc<Container>, launched: Launched) {
        {
            let mut record = container.record();
            record.has_run = true;
            record.state.pid = launched.run.pid;
            record.state.exit_code = 0;
            record.state.error.clear();
            record.state.oom_killed = false;
            record.state.started_at = Some(Timestamp::now());
            record.state.health = None;
        }
        if let Err(error) = container.step(Step::Started, "start") {
            // The operation lock makes this impossible; the process runs whatever the record says.
            tracing::error!(container = container.id.short(), error = error.whole(), "record a start");
        }
        self.adopt(container, launched);
        self.save_soon(container);
        self.container_event(container, "start", &[]);
    }

    /// Makes a running process the container's run: waiters, exit watcher, health checks.
    pub(crate) fn adopt(&self, container: &Arc<Container>, launched: Launched) {
        let Launched { run, exit } = launched;
        container.set_run(Some(run.clone()));
        container.life.send_modify(|life| {
            life.running = true;
            life.restarting = false;
        });
        let (engine, watched) = (self.clone(), Arc::clone(container));
        let watched_run = run.clone();
        tokio::spawn(async move { engine.watch(watched, watched_run, exit).await });
        self.start_health(container, &run);
    }

    /// Waits for the end of a run.
    async fn watch(self, container: Arc<Container>, run: Run, stream: UnixStream) {
        let told = tokio::select! {
            told = monitor::wait_exit(stream) => told,
            () = self.closing().cancelled() => return,
        };
        let status = match told {
            Some(status) => status,
            None => match self.exit_of(&container, &run).await {
                Some(status) => status,
                None => return,
            },
        };
        let _operation = container.operation.lock().await;
        // Removed or replaced meanwhile: somebody else has seen this end.
        if container.run().is_some_and(|now| Arc::ptr_eq(&now.pidfd, &run.pidfd)) {
            self.ended(&container, status).await;
        }
    }

    /// The connection broke: either the monitor wrote the exit status and was killed after, or it was killed before.
    async fn exit_of(&self, container: &Container, run: &Run) -> Option<ExitStatus> {
        if let Some(status) = read_exit(&run.dir) {
            return Some(status);
        }
        // A monitor that lives has only dropped this client (it was slow): subscribe again.
        let wanted = gantry_runtime::monitor::frame::Subscription::EXIT;
        if let Ok(stream) = monitor::connect(&run.dir, wanted).await
            && let Some(status) = tokio::select! {
                status = monitor::wait_exit(stream) => status,
                () = self.closing().cancelled() => return None,
            }
        {
            return Some(status);
        }
        if let Some(status) = read_exit(&run.dir) {
            return Some(status);
        }
        tracing::error!(
            container = container.id.short(),
            "the container's monitor died; killing the container"
        );
        self.destroy(container, Some(run)).await;
        Some(lost("the container's monitor died, so the container was killed"))
    }

    /// Kills whatever is left of a container without a monitor, and removes its cgroup.
    pub(crate) async fn destroy(&self, container: &Container, run: Option<&Run>) {
        if let Some(run) = run {
            let _ = run.signal(signal::KILL);
        }
        let path = self.cgroup_of(container);
        let done = blocking("killing a container", move || {
            let cgroup = devices::cgroup(&path)?;
            cgroup
                .kill_all()
                .and_then(|()| cgroup.remove())
                .map_err(|error| devices::cgroup_error(&path, &error))
        })
        .await;
        let forgotten = self.forget_runtime_state(container);
        for error in [done, forgotten].into_iter().filter_map(Result::err) {
            tracing::warn!(
                container = container.id.short(),
                error = error.whole(),
                "remove what a dead monitor left"
            );
        }
    }

    /// Removes what a runtime remembers of a container, and the mount that external runtimes need.
    fn forget_runtime_state(&self, container: &Container) -> Result<()> {
        let runtime = container.record().host.runtime.clone();
        let rootfs = self.run_folder(container.id.as_str()).join("rootfs");
        // Mostly nothing is mounted there: EINVAL.
        let _ = gantry_linux::mount::unmount(&rootfs);
        crate::remove::remove_small(&self.runtime_root(&runtime).join(container.id.as_str()))
    }

    /// Takes note of the end of a run and decides what follows. The operation lock is held.
    pub(crate) async fn ended(&self, container: &Arc<Container>, status: ExitStatus) {
        container.set_run(None);
        container.drop_pending();
        self.after_run(container).await;
        let finished = status.finished_at.parse().unwrap_or_else(|_| Timestamp::now());
        let (pause, ran, auto_remove) = self.note_end(container, &status, finished);
        self.announce_end(container, &status, ran);
        let keep = container.keep.load(Ordering::SeqCst);
        let exit = Exit { code: status.exit_code, error: status.error.clone() };
        if auto_remove && pause.is_none() && !keep {
            container.life.send_modify(|life| {
                life.exits += 1;
                life.running = false;
                life.exit = exit;
            });
            let options = RemoveOptions { force: true, volumes: true, link: false };
            if let Err(error) = self.remove_locked(container, options).await {
                tracing::warn!(
                    container = container.id.short(),
                    error = error.whole(),
                    "remove an ended container"
                );
            }
            return;
        }
        self.save_soon(container);
        container.life.send_modify(|life| {
            life.exits += 1;
            life.running = false;
            life.restarting = pause.is_some();
            life.exit = exit;
        });
        if let Some(pause) = pause {
            self.schedule_restart(container, pause);
        }
    }

    /// Writes the end into the record; the pause before a restart, the length of the run, whether it removes itself.
    fn note_end(
        &self,
        container: &Container,
        status: &ExitStatus,
        finished: Timestamp,
    ) -> (Option<Duration>, Duration, bool) {
        let mut restart = container.restart.lock().unwrap_or_else(PoisonError::into_inner);
        let (pause, ran, auto_remove) = {
            let mut record = container.record();
            let started = record.state.started_at.unwrap_or(finished);
            let ran = Duration::try_from(finished.duration_since(started)).unwrap_or_default();
            let ended = Ended {
                code: status.exit_code,
                by_user: record.stopped_by_user,
                restarts: record.restart_count,
                ran,
                last_pause: restart.last_pause,
            };
            let pause = restart::decide(&record.host.restart_policy, ended);
            fill_end(&mut record, status, finished);
            (pause, ran, record.host.auto_remove)
        };
        restart.last_pause = pause;
        drop(restart);
        let step = if pause.is_some() { Step::ExitedToRestart } else { Step::Exited };
        if let Err(error) = container.step(step, "end") {
            tracing::error!(container = container.id.short(), error = error.whole(), "record an end");
        }
        (pause, ran, auto_remove)
    }

    fn announce_end(&self, container: &Container, status: &ExitStatus, ran: Duration) {
        if status.oom_killed {
            self.container_event(container, "oom", &[]);
        }
        let code = status.exit_code.to_string();
        self.container_event(
            container,
            "die",
            &[("exitCode", code), ("execDuration", ran.as_secs().to_string())],
        );
    }

    /// Starts a container again after a pause, unless that is called off.
    pub(crate) fn schedule_restart(&self, container: &Arc<Container>, pause: Duration) {
        let token = CancellationToken::new();
        container.restart.lock().unwrap_or_else(PoisonError::into_inner).pending = Some(token.clone());
        let (engine, container) = (self.clone(), Arc::clone(container));
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = token.cancelled() => return,
                () = engine.closing().cancelled() => return,
            }
            let _operation = container.operation.lock().await;
            if token.is_cancelled() || container.status() != ContainerStatus::Restarting {
                return;
            }
            engine.restart_by_policy(&container).await;
        });
    }

    async fn restart_by_policy(&self, container: &Arc<Container>) {
        container.record().restart_count += 1;
        let error = match self.launch(container).await {
            Ok(launched) => return self.began(container, launched),
            Err(error) => error,
        };
        // A start that fails counts as a run that failed at once: the policy decides again.
        let code = match &error {
            Error::Start { exit_code, .. } => *exit_code,
            _ => 128,
        };
        let pause = {
            let mut restart = container.restart.lock().unwrap_or_else(PoisonError::into_inner);
            let mut record = container.record();
            record.state.exit_code = code;
            record.state.error = error.whole();
            let ended = Ended {
                code,
                by_user: record.stopped_by_user,
                restarts: record.restart_count,
                ran: Duration::ZERO,
                last_pause: restart.last_pause,
            };
            restart.last_pause = restart::decide(&record.host.restart_policy, ended);
            restart.last_pause
        };
        tracing::info!(container = container.id.short(), error = error.whole(), "restart failed");
        match pause {
            Some(pause) => self.schedule_restart(container, pause),
            None => self.start_failed(container, &error).await,
        }
    }
}

/// A closure over an engine and a container that gives a future; names the bounds once.
pub(crate) trait AsyncWork<T>: Send + 'static {
    /// Runs it.
    fn run(self, engine: Engine, container: Arc<Container>) -> impl Future<Output = Result<T>> + Send;
}

impl<T, F, W> AsyncWork<T> for F
where
    F: FnOnce(Engine, Arc<Container>) -> W + Send + 'static,
    W: Future<Output = Result<T>> + Send,
{
    fn run(self, engine: Engine, container: Arc<Container>) -> impl Future<Output = Result<T>> + Send {
        self(engine, container)
    }
}

pub(crate) fn refused(act: &'static str, container: &Container, reason: &str) -> Error {
    Error::Refused { act, container: container.id.short().to_owned(), reason: reason.to_owned() }
}

/// Writes the end of a run into a record.
pub(crate) fn fill_end(record: &mut Record, status: &ExitStatus, finished: Timestamp) {
    record.state.pid = 0;
    record.state.exit_code = status.exit_code;
    record.state.error = status.error.clone().unwrap_or_default();
    record.state.oom_killed = status.oom_killed;
    record.state.finished_at = Some(finished);
}

/// The exit status in a monitor's folder; an unreadable one counts as none.
pub(crate) fn read_exit(dir: &Path) -> Option<ExitStatus> {
    match ExitStatus::read(dir) {
        Ok(status) => status,
        Err(error) => {
            tracing::error!(error = crate::error::whole(&error), "read exit status");
            None
        }
    }
}

/// The status of a run whose end nobody saw.
pub(crate) fn lost(reason: &str) -> ExitStatus {
    let now = Timestamp::now().to_string();
    ExitStatus {
        exit_code: KILLED,
        signal: Some(signal::KILL),
        oom_killed: false,
        started_at: String::new(),
        finished_at: now,
        dropped_log_lines: 0,
        error: Some(reason.to_owned()),
    }
}
