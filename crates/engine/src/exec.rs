//! Processes run in running containers: prepared, started with a monitor of their own, found again after a restart.

use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, io, parameter};
use crate::launch::{Launched, PID_FILE, process_json};
use crate::lifecycle::read_exit;
use crate::monitor::{self, DEFAULT_DETACH_KEYS, Ends, Plug, PlugOptions};
use crate::request::{Attachment, ExecSpec, ExecStart, ExecView, Flow, Frame, StdStream};
use crate::{limits, reopen, rootfs, security, spec};
use futures_util::StreamExt;
use gantry_model::container::ContainerStatus;
use gantry_model::id::ContainerId;
use gantry_runtime::monitor::frame::Subscription;
use gantry_runtime::monitor::{MonitorConfig, MonitorKind, Report};
use gantry_runtime::oci::{self, defaults};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Name of the file with an exec's specification in its folder.
const SPEC_FILE: &str = "exec.json";
/// How long an ended exec can still be asked for its exit code.
const REMEMBERED: Duration = Duration::from_secs(300);

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    id: String,
    container: ContainerId,
    spec: ExecSpec,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
    /// The client left by its detach keys.
    detached: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    run: Option<ExecRun>,
    exit_code: Option<i32>,
}

/// The process of an exec that runs.
#[derive(Debug, Clone)]
struct ExecRun {
    pid: i32,
    /// None when it had ended before it could be opened: its exit is being told already.
    pidfd: Option<Arc<OwnedFd>>,
    dir: PathBuf,
}

impl ExecRun {
    fn kill(&self) {
        let Some(pidfd) = &self.pidfd else { return };
        if let Err(error) = gantry_linux::process::signal(pidfd.as_fd(), crate::signal::KILL) {
            tracing::debug!(pid = self.pid, %error, "kill exec");
        }
    }
}

/// What is kept of an exec in its folder, so that a later engine finds it again.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    container: ContainerId,
    spec: ExecSpec,
}

impl Exec {
    fn new(id: String, container: ContainerId, spec: ExecSpec) -> Self {
        Self {
            id,
            container,
            spec,
            state: Mutex::default(),
            ended: watch::Sender::new(false),
            detached: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, exit_code: i32) {
        let mut state = self.state();
        state.run = None;
        state.exit_code = Some(exit_code);
        drop(state);
        self.ended.send_replace(true);
    }
}

impl Engine {
    /// Prepares a process for a running container; its id.
    pub async fn exec_create(&self, reference: &str, spec: ExecSpec) -> Result<String> {
        let container = self.find(reference)?;
        if spec.cmd.is_empty() {
            return Err(parameter("No exec command specified"));
        }
        if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
            return Err(parameter(format!(
                "the working directory '{}' needs to be an absolute path",
                spec.working_dir
            )));
        }
        self.check_exec(&container)?;
        let id = crate::engine::random_id()?;
        let words = spec.cmd.join(" ");
        let exec = Arc::new(Exec::new(id.clone(), container.id.clone(), spec));
        self.execs().insert(id.clone(), exec);
        container.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        self.container_event(&container, &format!("exec_create: {words}"), &[("execID", id.clone())]);
        Ok(id)
    }

    fn check_exec(&self, container: &Container) -> Result<()> {
        match container.status() {
            ContainerStatus::Running => Ok(()),
            ContainerStatus::Paused => Err(Error::Paused(container.id.to_string(), "exec")),
            ContainerStatus::Restarting => Err(Error::Conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            ))),
            _ => Err(Error::NotRunning(container.id.to_string())),
        }
    }

    fn find_exec(&self, id: &str) -> Result<Arc<Exec>> {
        self.execs().get(id).cloned().ok_or_else(|| Error::NoSuchExec(id.to_owned()))
    }

    /// Starts a prepared process. Attached: a connection to its stdio as its specification says.
    pub async fn exec_start(&self, exec: &str, how: ExecStart) -> Result<Option<Attachment>> {
        let exec = self.find_exec(exec)?;
        let container = self.find(exec.container.as_str())?;
        self.check_exec(&container)?;
        {
            let mut state = exec.state();
            if state.started {
                let what = if state.exit_code.is_some() { "has already run" } else { "is already running" };
                return Err(Error::Conflict(format!("exec command {} {what}", exec.id)));
            }
            state.started = true;
        }
        let words = exec.spec.cmd.join(" ");
        self.container_event(&container, &format!("exec_start: {words}"), &[("execID", exec.id.clone())]);
        let (plug, ends) = self.exec_plug(&exec, how);
        let size = match how {
            ExecStart::Attached { console_size: Some(size) } => Some(size),
            _ => exec.spec.console_size,
        };
        let engine = self.clone();
        let (started, owner) = (Arc::clone(&exec), Arc::clone(&container));
        // A client that goes away must not leave a process that nobody watches.
        let ran = tokio::spawn(async move { engine.run_exec(&owner, &started, size, plug).await })
            .await
            .map_err(|_| Error::Cancelled("starting an exec"))?;
        match ran {
            Ok(()) => {}
            // Whoever is attached reads the reason in the stream and the code from the exec, as with Docker.
            Err(error @ Error::ExecStart { .. }) if ends.is_some() => {
                return Ok(Some(last_words(&exec, &error)));
            }
            Err(error) => return Err(error),
        }
        Ok(ends.map(|ends| Attachment {
            tty: exec.spec.tty,
            input: ends.input,
            output: until_recorded(ends.output, &exec),
        }))
    }

    fn exec_plug(&self, exec: &Exec, how: ExecStart) -> (Option<Plug>, Option<Ends>) {
        if how == ExecStart::Detached {
            return (None, None);
        }
        let keys =
            monitor::detach_keys(&exec.spec.detach_keys).unwrap_or_else(|| DEFAULT_DETACH_KEYS.to_vec());
        let (plug, ends) = Plug::new(PlugOptions {
            stdin: exec.spec.attach_stdin,
            stdout: exec.spec.attach_stdout,
            stderr: exec.spec.attach_stderr,
            close_stdin: true,
            detach_keys: exec.spec.tty.then_some(keys),
        });
        (Some(plug), Some(ends))
    }

    async fn run_exec(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        size: Option<(u16, u16)>,
        plug: Option<Plug>,
    ) -> Result<()> {
        let started = self.launch_exec(container, exec, size, plug).await;
        match started {
            Ok((run, exit)) => {
                exec.state().run = Some(run.clone());
                let (engine, exec, container) = (self.clone(), Arc::clone(exec), Arc::clone(container));
                tokio::spawn(async move { engine.watch_exec(container, exec, run, exit).await });
                Ok(())
            }
            Err(error) => {
                let code = match &error {
                    Error::ExecStart { exit_code, .. } => *exit_code,
                    _ => 126,
                };
                exec.finish(code);
                self.exec_ended(container, exec, code);
                Err(error)
            }
        }
    }

    async fn launch_exec(
        &self,
        container: &Arc<Container>,
        exec: &Exec,
        size: Option<(u16, u16)>,
        plug: Option<Plug>,
    ) -> Result<(ExecRun, UnixStream)> {
        let dir = self.exec_folder(&exec.id);
        std::fs::create_dir_all(&dir).map_err(io("create folder", &dir))?;
        let kept = Kept { id: exec.id.clone(), container: exec.container.clone(), spec: exec.spec.clone() };
        write_json(&dir.join(SPEC_FILE), &kept)?;
        let process = self.exec_process(container, &exec.spec, size).await?;
        let document = dir.join("process.json");
        std::fs::write(&document, process_json(&process, &exec.id)?).map_err(io("write", &document))?;
        let runtime = container.record().host.runtime.clone();
        let config = MonitorConfig {
            id: exec.id.clone(),
            kind: MonitorKind::Exec { container: container.id.to_string(), process: document },
            runtime: self.runtime_choice(&runtime)?,
            terminal: exec.spec.tty,
            open_stdin: exec.spec.attach_stdin && plug.is_some(),
            stdin_once: true,
            console_size: size,
            log: None,
        };
        let mut spawned = monitor::spawn(self.monitor_program(), &dir, &config).await?;
        let mut report = spawned.report().await?;
        let mut joined: Option<UnixStream> = None;
        let mut plug = plug;
        if matches!(report, Report::Created { .. }) {
            joined = Some(self.join_exec(container, exec, &dir, plug.take()).await?);
            spawned.order_start().await?;
            report = spawned.report().await?;
        }
        let pid = match report {
            Report::Started { pid } => pid.unwrap_or(0),
            Report::Failed { message, exit_code } => return Err(Error::ExecStart { message, exit_code }),
            Report::Created { .. } => {
                return Err(Error::Monitor { id: exec.id.clone(), reason: "it reported twice".to_owned() });
            }
        };
        let exit = match joined {
            Some(exit) => exit,
            None => self.join_exec(container, exec, &dir, plug).await?,
        };
        Ok((self.exec_run(&dir, pid)?, exit))
    }

    /// Joins the client to the exec's monitor, and subscribes to its end.
    async fn join_exec(
        &self,
        container: &Arc<Container>,
        exec: &Exec,
        dir: &Path,
        plug: Option<Plug>,
    ) -> Result<UnixStream> {
        if let Some(plug) = plug {
            let (engine, owner, left) = (self.clone(), Arc::clone(container), exec.detached.clone());
            let detached = move || {
                left.cancel();
                engine.container_event(&owner, "exec_detach", &[]);
            };
            plug.join(dir, detached).await.map_err(io("attach to monitor in", dir))?;
        }
        monitor::connect(dir, Subscription::EXIT).await.map_err(io("connect to monitor in", dir))
    }

    /// Notes the process of an exec, which may have ended already.
    fn exec_run(&self, dir: &Path, pid: i32) -> Result<ExecRun> {
        let pidfd = gantry_linux::process::pidfd(pid).ok().map(Arc::new);
        let start_time = gantry_linux::process::start_time(pid).unwrap_or(0);
        let note = dir.join(PID_FILE);
        std::fs::write(&note, format!("{pid} {start_time}")).map_err(io("write", &note))?;
        Ok(ExecRun { pid, pidfd, dir: dir.to_owned() })
    }

    async fn exec_process(
        &self,
        container: &Arc<Container>,
        exec: &ExecSpec,
        size: Option<(u16, u16)>,
    ) -> Result<oci::Process> {
        let record = container.record().clone();
        let user = if exec.user.is_empty() { record.config.user.clone() } else { exec.user.clone() };
        let (owner, groups) = (Arc::clone(container), record.host.group_add.clone());
        let identity =
            blocking("looking up a user", move || rootfs::identity_in(&owner, &user, &groups)).await?;
        let options = security::Options::parse(&record.host.security_opt)?;
        let capabilities =
            if exec.privileged { security::grantable() } else { security::capabilities(&record.host)? };
        let mut env = record.config.env.clone();
        env.extend(exec.env.iter().cloned());
        let cwd = [&exec.working_dir, &record.config.working_dir]
            .into_iter()
            .find(|dir| !dir.is_empty())
            .cloned()
            .unwrap_or_else(|| "/".to_owned());
        Ok(oci::Process {
            terminal: exec.tty,
            console_size: size.map(|(height, width)| oci::ConsoleSize { height, width }),
            user: spec::user(&identity),
            args: exec.cmd.clone(),
            env: spec::environment(&env, exec.tty, &self.hostname_of(&record), &identity.home),
            cwd,
            capabilities: Some(defaults::capability_sets(&capabilities)),
            rlimits: limits::rlimits(&record.host.resources.ulimits, &self.config().default_ulimits)?,
            no_new_privileges: options.no_new_privileges && !exec.privileged,
            oom_score_adj: Some(record.host.oom_score_adj),
            ..oci::Process::default()
        })
    }

    async fn watch_exec(self, container: Arc<Container>, exec: Arc<Exec>, run: ExecRun, stream: UnixStream) {
        let told = tokio::select! {
            told = monitor::wait_exit(stream) => told,
            () = self.closing().cancelled() => return,
        };
        let code = match told.or_else(|| read_exit(&run.dir)) {
            Some(status) => status.exit_code,
            // The exec's monitor was killed; its process has no owner any more.
            None => {
                run.kill();
                137
            }
        };
        exec.finish(code);
        self.exec_ended(&container, &exec, code);
    }

    fn exec_ended(&self, container: &Container, exec: &Arc<Exec>, code: i32) {
        let more = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
        self.container_event(container, "exec_die", &more);
        if let Err(error) = crate::remove::remove_small(&self.exec_folder(&exec.id)) {
            tracing::warn!(exec = exec.id, error = error.whole(), "remove an exec's folder");
        }
        let (engine, id) = (self.clone(), exec.id.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(REMEMBERED) => {}
                () = engine.closing().cancelled() => return,
            }
            engine.forget_exec(&id);
        });
    }

    fn forget_exec(&self, id: &str) {
        let Some(exec) = self.execs().remove(id) else { return };
        if let Ok(container) = self.find(exec.container.as_str()) {
            container.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }

    /// The execs of a container that have not ended: those that did are only remembered for their exit codes.
    pub(crate) fn open_execs(&self, container: &Container) -> Vec<String> {
        let ids = container.execs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.execs();
        let open = |id: &String| known.get(id).is_some_and(|exec| exec.state().exit_code.is_none());
        ids.into_iter().filter(open).collect()
    }

    /// Forgets all execs of a container that is removed.
    pub(crate) fn forget_execs(&self, container: &Container) {
        let ids = std::mem::take(&mut *container.execs.lock().unwrap_or_else(PoisonError::into_inner));
        for id in ids {
            self.execs().remove(&id);
        }
    }

    /// An exec at this moment.
    pub fn exec_get(&self, exec: &str) -> Result<ExecView> {
        let exec = self.find_exec(exec)?;
        let state = exec.state();
        Ok(ExecView {
            id: exec.id.clone(),
            container: exec.container.clone(),
            spec: exec.spec.clone(),
            running: state.run.is_some(),
            exit_code: state.exit_code,
            pid: state.run.as_ref().map_or(0, |run| run.pid),
        })
    }

    /// Waits for the end of an exec; its exit code.
    pub async fn exec_wait(&self, exec: &str) -> Result<i32> {
        let exec = self.find_exec(exec)?;
        let mut ended = exec.ended.subscribe();
        ended.wait_for(|ended| *ended).await.map_err(|_| Error::Cancelled("an exec"))?;
        let code = exec.state().exit_code;
        Ok(code.unwrap_or(137))
    }

    /// Kills an exec's process.
    pub(crate) fn exec_kill(&self, exec: &str) {
        let run = self.find_exec(exec).ok().and_then(|exec| exec.state().run.clone());
        if let Some(run) = run {
            run.kill();
        }
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        let exec = self.find_exec(exec)?;
        let dir = {
            let state = exec.state();
            state.run.as_ref().map(|run| run.dir.clone())
        };
        let dir: PathBuf = dir.ok_or_else(|| Error::Conflict(format!("exec {} is not running", exec.id)))?;
        monitor::resize(&dir, rows, columns).await.map_err(io("resize the terminal through", &dir))
    }

    /// Finds execs of a former engine again: running ones are watched, ended ones tell their exit code.
    pub(crate) async fn find_execs(&self) {
        let folder = self.config().run_dir.join("x");
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        for dir in entries.flatten().map(|entry| entry.path()) {
            if !self.find_one_exec(&dir).await
                && let Err(error) = crate::remove::remove_small(&dir)
            {
                tracing::warn!(error = error.whole(), "remove a stray exec's folder");
            }
        }
    }

    async fn find_one_exec(&self, dir: &Path) -> bool {
        let Ok(bytes) = std::fs::read(dir.join(SPEC_FILE)) else { return false };
        let Ok(kept) = serde_json::from_slice::<Kept>(&bytes) else { return false };
        let Ok(container) = self.find(kept.container.as_str()) else { return false };
        let exec = Arc::new(Exec::new(kept.id.clone(), kept.container, kept.spec));
        exec.state().started = true;
        self.execs().insert(kept.id.clone(), Arc::clone(&exec));
        container.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(kept.id);
        if let Some(launched) = reopen::find_run(dir).await {
            let Launched { run, exit } = launched;
            let run = ExecRun { pid: run.pid, pidfd: Some(run.pidfd), dir: run.dir };
            exec.state().run = Some(run.clone());
            let engine = self.clone();
            tokio::spawn(async move { engine.watch_exec(container, exec, run, exit).await });
        } else {
            let code = read_exit(dir).map_or(137, |status| status.exit_code);
            exec.finish(code);
            self.exec_ended(&container, &exec, code);
        }
        true
    }
}

/// An attachment that only says why there is no process.
fn last_words(exec: &Exec, error: &Error) -> Attachment {
    let bytes = format!("{}\r\n", error.whole()).into();
    let frame = Frame { stream: StdStream::Stdout, bytes };
    let output: Flow<Frame> = Box::pin(futures_util::stream::once(std::future::ready(Ok(frame))));
    Attachment { tty: exec.spec.tty, input: None, output }
}

/// Output that ends only when the exit code can be asked for: clients ask as soon as the stream has ended.
fn until_recorded(output: Flow<Frame>, exec: &Arc<Exec>) -> Flow<Frame> {
    let exec = Arc::clone(exec);
    let recorded = futures_util::stream::once(async move {
        let mut ended = exec.ended.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = exec.detached.cancelled() => {}
        }
    });
    Box::pin(output.map(Some).chain(recorded.map(|()| None)).filter_map(std::future::ready))
}

fn write_json(path: &Path, document: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(document)
        .map_err(|source| Error::Document { act: format!("write {}", path.display()), source })?;
    std::fs::write(path, bytes).map_err(io("write", path))
}
