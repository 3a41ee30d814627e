//! What a monitor stays with: a container or an exec, of this runtime or of another.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use gantry_linux::{
    cgroup::{Cgroup, Hierarchies},
    mount::{self, Detached},
    process::{self, Waiting},
};

use super::{MonitorConfig, MonitorKind, Overlay, RuntimeChoice, external::External, stdio::Streams};
use crate::{
    error::{Act, Error, Result},
    exec::{self, Entered, SubGroups, WhenPaused},
    inherited::Inherited,
    launch::{self, Created},
    oci::{Hooks, Process, Spec, Status},
    plan::{Choices, Gate, Keyring, Manager, Stdio},
    state::{Owner, Store},
};

/// The subject, by who made it.
pub enum Subject {
    /// A container of this runtime.
    Container {
        /// Where its state is.
        store: Store,
        /// What was made.
        created: Box<Created>,
        /// Its hooks.
        hooks: Option<Hooks>,
    },
    /// An exec of this runtime.
    Exec(Box<Entered>),
    /// A container of another runtime.
    ExternalContainer {
        /// The runtime.
        runtime: External,
        /// The container.
        id: String,
        /// Its first process.
        pid: i32,
        /// Its cgroup, for the memory killer's count.
        group: Option<Cgroup>,
        /// What the monitor has mounted.
        mounted: Option<PathBuf>,
    },
    /// An exec of another runtime; it exists from the start on.
    ExternalExec {
        /// The runtime.
        runtime: External,
        /// The container.
        container: String,
        /// OCI process document.
        process: PathBuf,
        /// The container's ends of the streams, until the start.
        stdio: Option<Stdio>,
        /// The process; 0 before the start.
        pid: i32,
    },
}

/// Makes the subject up to the start order, with its streams.
pub fn make(config: &MonitorConfig, folder: &Path) -> Result<(Subject, Streams)> {
    let (mut streams, stdio) = if config.terminal {
        (Streams::without_pipes(), Stdio::Terminal)
    } else {
        Streams::pipes(config.open_stdin)?
    };
    let (subject, terminal) = match (&config.kind, &config.runtime) {
        (MonitorKind::Container { bundle, rootfs }, RuntimeChoice::Own { root }) => {
            own_container(config, &Store::new(root), bundle, rootfs.clone(), stdio)?
        }
        (MonitorKind::Exec { container, process }, RuntimeChoice::Own { root }) => {
            own_exec(config, &Store::new(root), container, process, stdio)?
        }
        (kind, RuntimeChoice::External { path, root, systemd_cgroup }) => {
            let runtime = External {
                path: path.clone(),
                root: root.clone(),
                systemd_cgroup: *systemd_cgroup,
                folder: folder.to_owned(),
            };
            match kind {
                MonitorKind::Container { bundle, rootfs } => {
                    external_container(&config.id, runtime, bundle, rootfs.as_ref(), stdio)?
                }
                MonitorKind::Exec { container, process } => {
                    let (container, process) = (container.clone(), process.clone());
                    (Subject::ExternalExec { runtime, container, process, stdio: Some(stdio), pid: 0 }, None)
                }
            }
        }
    };
    if let Some(master) = terminal {
        join_terminal(&mut streams, master, config)?;
    }
    Ok((subject, streams))
}

fn join_terminal(streams: &mut Streams, master: OwnedFd, config: &MonitorConfig) -> Result<()> {
    streams.join_terminal(master, config.open_stdin).act(|| "join the terminal".to_owned())?;
    if let Some((rows, columns)) = config.console_size.filter(|size| *size != (0, 0)) {
        streams.resize(rows, columns);
    }
    Ok(())
}

type Made = Result<(Subject, Option<OwnedFd>)>;

fn own_container(
    config: &MonitorConfig,
    store: &Store,
    bundle: &Path,
    overlay: Option<Overlay>,
    stdio: Stdio,
) -> Made {
    let mut spec = Spec::load(bundle)?;
    // The monitor's own score is lower than what a container should have.
    if let Some(process) = spec.process.as_mut() {
        process.oom_score_adj = process.oom_score_adj.or(Some(0));
    }
    let hooks = spec.hooks.clone();
    store.reserve(&config.id)?;
    let choices = Choices {
        overlay,
        stdio,
        gate: Gate::Channel,
        console_size: config.console_size,
        inherited: Inherited::default(),
        keyring: Keyring::New,
        no_pivot: false,
        manager: Manager::Files,
    };
    let request = launch::Request { store, id: &config.id, bundle, spec, owner: Owner::Monitor, choices };
    let mut created = launch::create(request)?;
    let terminal = created.terminal.take();
    Ok((Subject::Container { store: store.clone(), created: Box::new(created), hooks }, terminal))
}

fn own_exec(config: &MonitorConfig, store: &Store, container: &str, process: &Path, stdio: Stdio) -> Made {
    let mut process = Process::load(process)?;
    process.oom_score_adj = process.oom_score_adj.or(Some(0));
    let record = store.load(container)?;
    let spec = store.config(&record)?;
    let mut entered = exec::enter(exec::Request {
        record: &record,
        spec: &spec,
        process,
        stdio,
        console_size: config.console_size,
        inherited: Inherited::default(),
        cgroups: SubGroups::default(),
        when_paused: WhenPaused::Refuse,
    })?;
    let terminal = entered.terminal.take();
    Ok((Subject::Exec(Box::new(entered)), terminal))
}

fn external_container(
    id: &str,
    runtime: External,
    bundle: &Path,
    overlay: Option<&Overlay>,
    stdio: Stdio,
) -> Made {
    let mounted = overlay.map(|overlay| mount_at(bundle, overlay)).transpose()?;
    match runtime.create(id, bundle, stdio) {
        Ok((pid, terminal)) => {
            let group = Hierarchies::detect().ok().and_then(|all| Cgroup::of_process(&all, pid).ok());
            Ok((Subject::ExternalContainer { runtime, id: id.to_owned(), pid, group, mounted }, terminal))
        }
        Err(error) => {
            // The failure that is being told matters more than those of the clean-up.
            let _ = runtime.delete(id);
            if let Some(path) = mounted {
                let _ = mount::unmount(&path);
            }
            Err(error)
        }
    }
}

/// Mounts the overlay where the other runtime expects the root file system.
fn mount_at(bundle: &Path, overlay: &Overlay) -> Result<PathBuf> {
    let spec = Spec::load(bundle)?;
    let path = crate::plan::rootfs_path(bundle, &spec)?;
    let words = || format!("mount root file system to {}", path.display());
    let tree =
        Detached::overlay(&overlay.lower, Some((&overlay.upper, &overlay.work)), overlay.volatile, false)
            .act(words)?;
    std::fs::create_dir_all(&path).act(words)?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let place = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).act(words)?;
    tree.attach(place.as_fd()).act(words)?;
    Ok(path)
}

impl Subject {
    /// Its process; 0 when it does not exist yet.
    pub fn pid(&self) -> i32 {
        match self {
            Subject::Container { created, .. } => created.child.pid,
            Subject::Exec(entered) => entered.child.pid,
            Subject::ExternalContainer { pid, .. } | Subject::ExternalExec { pid, .. } => *pid,
        }
    }

    /// Whether it is an exec.
    pub fn is_exec(&self) -> bool {
        matches!(self, Subject::Exec(_) | Subject::ExternalExec { .. })
    }

    /// Lets the program run.
    pub fn start(&mut self, streams: &mut Streams, config: &MonitorConfig) -> Result<()> {
        match self {
            Subject::Container { store, created, hooks } => {
                created.mark_started(store)?;
                created.order_start()?;
                if let Some(hooks) = hooks.take() {
                    let state = created.record.state(Status::Running);
                    crate::hooks::run("poststart", &hooks.poststart, &state)?;
                }
                Ok(())
            }
            Subject::Exec(entered) => entered.start(),
            Subject::ExternalContainer { runtime, id, .. } => runtime.start(id),
            Subject::ExternalExec { runtime, container, process, stdio, pid } => {
                let stdio = stdio.take().unwrap_or(Stdio::Inherit);
                let (started, terminal) = runtime.exec(container, process, stdio)?;
                *pid = started;
                match terminal {
                    Some(master) => join_terminal(streams, master, config),
                    None => Ok(()),
                }
            }
        }
    }

    /// Whether the kernel killed something in it for want of memory.
    pub fn oom_killed(&self) -> bool {
        match self {
            Subject::Container { created, .. } => created.group.oom_kills() > 0,
            Subject::ExternalContainer { group, .. } => {
                group.as_ref().is_some_and(|group| group.oom_kills() > 0)
            }
            Subject::Exec(_) | Subject::ExternalExec { .. } => false,
        }
    }

    /// Kills and reaps its process.
    pub fn kill(&self) {
        let pid = self.pid();
        if pid == 0 {
            return;
        }
        if let Ok(pidfd) = process::pidfd(pid) {
            // It may have ended by itself; either way it is gone after the wait.
            let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = process::wait(pid, Waiting::Block);
    }

    /// Takes away what is left of a container whose processes are gone. Goes on after errors and returns the first.
    pub fn clean_up(&self) -> Result<(), Error> {
        match self {
            Subject::Container { store, created, .. } => {
                launch::delete(store, &created.record, &created.group)
            }
            Subject::Exec(_) | Subject::ExternalExec { .. } => Ok(()),
            Subject::ExternalContainer { runtime, id, mounted, .. } => {
                let deleted = runtime.delete(id);
                let unmounted = match mounted {
                    Some(path) => mount::unmount(path).act(|| format!("unmount {}", path.display())),
                    None => Ok(()),
                };
                deleted.and(unmounted)
            }
        }
    }
}
