//! Start, stop, kill, pause, restart: what users ask, and what follows when a process ends.

use crate::container::{Container, Run};
use crate::devices;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, parameter};
use crate::launch::Launched;
use crate::record::Record;
use crate::request::{Exit, RemoveOptions, StopTimeout, UpdateRequest};
use crate::restart::{self, Ended};
use crate::signal;
use crate::state::Step;
use crate::{limits, monitor};
use gantry_model::container::{ContainerStatus, check_name};
use gantry_runtime::monitor::ExitStatus;
use jiff::Timestamp;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// How long a process may take to go after SIGKILL before the engine says that it does not.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// Docker's exit code for a container whose end nobody saw (the machine went down).
pub(crate) const UNSEEN: i32 = 255;
/// 128 + SIGKILL.
const KILLED: i32 = 137;

impl Engine {
    /// Runs work on a container to its end even if the caller goes away meanwhile.
    async fn whole<T: Send + 'static>(&self, reference: &str, work: impl AsyncWork<T>) -> Result<T> {
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

    async fn start_locked(&self, container: &Arc<Container>) -> Result<()> {
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

    /// Stops a container: its stop signal, then SIGKILL when the time is over. [`Error::Already`] when it does not run.
    pub async fn stop(&self, reference: &str, signal: Option<&str>, timeout: StopTimeout) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map(signal::parse).transpose()?;
        self.whole(reference, move |engine: Engine, container: Arc<Container>| async move {
            engine.stop_container(&container, signal, timeout).await
        })
        .await
    }

    pub(crate) async fn stop_container(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: StopTimeout,
    ) -> Result<()> {
        if self.stop_restarting(container).await? {
            return Ok(());
        }
        let Some(run) = container.run() else {
            return Err(Error::Already(container.id.short().to_owned(), "stopped"));
        };
        let (signal, patience) = {
            let mut record = container.record();
            record.stopped_by_user = true;
            (signal.unwrap_or_else(|| stop_signal(&record)), self.patience(&record, timeout))
        };
        self.signal_run(container, &run, signal).await?;
        if !self.gone_within(&run, container, patience).await {
            self.signal_run(container, &run, signal::KILL).await?;
            if !self.gone_within(&run, container, Some(AFTER_KILL)).await {
                return Err(refused("stop", container, "it did not end within 10 s after SIGKILL"));
            }
        }
        self.container_event(container, "stop", &[]);
        // What the user stopped stays stopped, also after a power loss.
        if container.life.borrow().removed { Ok(()) } else { self.save(container).await }
    }

    /// Calls off a pending restart; whether the container was waiting for one.
    async fn stop_restarting(&self, container: &Arc<Container>) -> Result<bool> {
        let _operation = container.operation.lock().await;
        if container.status() != ContainerStatus::Restarting {
            return Ok(false);
        }
        container.call_off_restart();
        container.record().stopped_by_user = true;
        container.step(Step::GaveUp, "stop")?;
        container.life.send_modify(|life| life.restarting = false);
        self.container_event(container, "stop", &[]);
        self.save(container).await?;
        Ok(true)
    }

    fn patience(&self, record: &Record, timeout: StopTimeout) -> Option<Duration> {
        match timeout {
            StopTimeout::Never => None,
            StopTimeout::After(time) => Some(time),
            StopTimeout::Default => match record.config.stop_timeout {
                Some(seconds) if seconds < 0 => None,
                Some(seconds) => Some(Duration::from_secs(seconds.unsigned_abs())),
                None => Some(Duration::from_secs(self.config().default_stop_timeout)),
            },
        }
    }

    /// Waits until the end of a run was taken note of.
    async fn gone_within(&self, run: &Run, container: &Container, patience: Option<Duration>) -> bool {
        let mut life = container.life.subscribe();
        let same = || container.run().is_some_and(|now| Arc::ptr_eq(&now.pidfd, &run.pidfd));
        let gone = async {
            // A container that removes itself counts when it is gone; others when the end is recorded.
            while same() || (!life.borrow().removed && life.borrow().running) {
                if life.changed().await.is_err() {
                    return;
                }
            }
        };
        match patience {
            None => {
                gone.await;
                true
            }
            Some(time) => tokio::time::timeout(time, gone).await.is_ok(),
        }
    }

    /// Sends a signal to a run; a frozen one is thawed so that it can take it.
    async fn signal_run(&self, container: &Container, run: &Run, signal: i32) -> Result<()> {
        run.signal(signal).map_err(crate::error::io("signal process of", &run.dir))?;
        self.container_event(container, "kill", &[("signal", signal.to_string())]);
        if container.status() == ContainerStatus::Paused {
            self.freeze(container, false).await?;
        }
        Ok(())
    }

    /// Sends a signal to a container's process; none: SIGKILL, for which the end is awaited.
    pub async fn kill(&self, reference: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map_or(Ok(signal::KILL), signal::parse)?;
        self.whole(reference, move |engine: Engine, container: Arc<Container>| async move {
            engine.kill_container(&container, signal).await
        })
        .await
    }

    async fn kill_container(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        if self.stop_restarting(container).await? {
            return Ok(());
        }
        let Some(run) = container.run() else {
            return Err(refused("kill", container, &format!("container {} is not running", container.id)));
        };
        let ends = {
            let mut record = container.record();
            let ends = signal == signal::KILL || signal == stop_signal(&record);
            record.stopped_by_user |= ends;
            ends
        };
        if ends {
            self.signal_run(container, &run, signal).await?;
        } else if container.status() == ContainerStatus::Paused {
            return Err(Error::Paused(container.id.short().to_owned(), "sending a signal to it"));
        } else {
            run.signal(signal).map_err(crate::error::io("signal process of", &run.dir))?;
            self.container_event(container, "kill", &[("signal", signal.to_string())]);
        }
        if signal == signal::KILL && !self.gone_within(&run, container, Some(AFTER_KILL)).await {
            return Err(refused("kill", container, "it did not end within 10 s after SIGKILL"));
        }
        Ok(())
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(&self, reference: &str, signal: Option<&str>, timeout: StopTimeout) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map(signal::parse).transpose()?;
        self.whole(reference, move |engine: Engine, container: Arc<Container>| async move {
            // One that removes itself must not do so in between.
            container.keep.store(true, Ordering::SeqCst);
            let stopped = engine.stop_container(&container, signal, timeout).await;
            container.keep.store(false, Ordering::SeqCst);
            match stopped {
                Ok(()) | Err(Error::Already(..)) => {}
                Err(error) => return Err(error),
            }
            let _operation = container.operation.lock().await;
            match engine.start_locked(&container).await {
                // Somebody else was faster.
                Ok(()) | Err(Error::Already(..)) => {}
                Err(error) => return Err(error),
            }
            engine.container_event(&container, "restart", &[]);
            Ok(())
        })
        .await
    }

    /// Freezes all processes of a container.
    pub async fn pause(&self, reference: &str) -> Result<()> {
        self.whole(reference, |engine: Engine, container: Arc<Container>| async move {
            let _operation = container.operation.lock().await;
            match container.status() {
                ContainerStatus::Running => {}
                ContainerStatus::Paused => {
                    return Err(Error::Conflict(format!("Container {} is already paused", container.id)));
                }
                _ => return Err(Error::NotRunning(container.id.to_string())),
            }
            engine.freeze(&container, true).await?;
            container.step(Step::Paused, "pause")?;
            engine.container_event(&container, "pause", &[]);
            engine.save(&container).await
        })
        .await
    }

    /// Thaws all processes of a container.
    pub async fn unpause(&self, reference: &str) -> Result<()> {
        self.whole(reference, |engine: Engine, container: Arc<Container>| async move {
            let _operation = container.operation.lock().await;
            if container.status() != ContainerStatus::Paused {
                return Err(Error::Conflict(format!("Container {} is not paused", container.id)));
            }
            engine.freeze(&container, false).await?;
            container.step(Step::Unpaused, "unpause")?;
            engine.container_event(&container, "unpause", &[]);
            engine.save(&container).await
        })
        .await
    }

    /// Gives a container another name.
    pub async fn rename(&self, reference: &str, name: &str) -> Result<()> {
        let container = self.find(reference)?;
        if name.trim_start_matches('/').is_empty() {
            return Err(parameter("Neither old nor new names may be empty"));
        }
        let name = check_name(name).map_err(|error| parameter(error.to_string()))?.to_owned();
        let _operation = container.operation.lock().await;
        let old = container.name();
        if old == name {
            return Err(parameter("Renaming a container with the same name as its current name"));
        }
        self.take_name(&name, container.id.as_str())?;
        container.record().name.clone_from(&name);
        if let Err(error) = self.save(&container).await {
            container.record().name = old;
            self.free_name(&name);
            return Err(error);
        }
        self.free_name(&old);
        self.container_event(&container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Changes limits and restart policy, of a running container at once. Returns warnings.
    pub async fn update(&self, reference: &str, update: UpdateRequest) -> Result<Vec<String>> {
        let container = self.find(reference)?;
        let _operation = container.operation.lock().await;
        let mut changed = container.record().clone();
        changed.host.resources = limits::updated(&changed.host.resources, &update.resources);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        limits::check(&changed.host.resources, i64::try_from(cpus).unwrap_or(i64::MAX))?;
        if let Some(mut policy) = update.restart_policy.filter(|policy| !policy.name.is_empty()) {
            restart::check(&policy, changed.host.auto_remove)?;
            std::mem::swap(&mut changed.host.restart_policy, &mut policy);
        }
        if container.run().is_some() {
            let resources = limits::to_oci(&changed.host.resources)?;
            let path = self.cgroup_of(&container);
            blocking("updating limits", move || devices::apply(&path, &resources)).await?;
        }
        container.record().host = changed.host;
        self.save(&container).await?;
        self.container_event(&container, "update", &[]);
        Ok(Vec::new())
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, reference: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.find(reference)?;
        let run = container.run().ok_or_else(|| Error::NotRunning(container.id.to_string()))?;
        monitor::resize(&run.dir, rows, columns)
            .await
            .map_err(crate::error::io("resize the terminal through", &run.dir))?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.container_event(&container, "resize", &size);
        Ok(())
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

fn refused(act: &'static str, container: &Container, reason: &str) -> Error {
    Error::Refused { act, container: container.id.short().to_owned(), reason: reason.to_owned() }
}

fn stop_signal(record: &Record) -> i32 {
    let text = record.config.stop_signal.as_deref().unwrap_or_default();
    signal::parse(text).unwrap_or(signal::TERM)
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
