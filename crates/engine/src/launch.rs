//! Starting a container's process: network, files, mounts, configuration, monitor, in this order; what was made is
//! taken back when a later step fails.
//!
//! Whatever dies in the middle is found again: the monitor undoes a create that gets no start order, and the engine
//! reads the process id and the exit status from the run folder when it opens.

use crate::config::RuntimeKind;
use crate::container::{Container, Run};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, io};
use crate::monitor::{self, Spawned};
use crate::mounts::{ContainerMount, Source};
use crate::network;
use crate::plug::Plugged;
use crate::record::{LogChoice, Record};
use crate::spec::{self, Share, Surroundings};
use crate::{devices, rootfs};
use gantry_runtime::monitor::frame::Subscription;
use gantry_runtime::monitor::{LogConfig, MonitorConfig, MonitorKind, Overlay, Report, RuntimeChoice};
use gantry_runtime::oci;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// A process that was started, and the connection on which its end will be told.
pub(crate) struct Launched {
    pub run: Run,
    pub exit: UnixStream,
}

/// Name of the file that says which process runs: pid and start time.
pub(crate) const PID_FILE: &str = "pid";

impl Engine {
    /// Starts the process of a container that does not run. The operation lock is held by the caller.
    pub(crate) async fn launch(&self, container: &Arc<Container>) -> Result<Launched> {
        let plugged = self.plug(container).await;
        let launched = match plugged {
            Ok(plugged) => self.launch_plugged(container, &plugged).await,
            Err(error) => Err(error),
        };
        if launched.is_err() {
            self.after_run(container).await;
            // The monitor's exit status of a failed start is no end of a run.
            if let Err(error) = crate::remove::remove_small(&self.run_folder(container.id.as_str())) {
                tracing::warn!(container = container.id.short(), error = error.whole(), "remove run folder");
            }
        }
        launched
    }

    /// Takes away what a run has besides its process: network, volume mounts, shared memory.
    pub(crate) async fn after_run(&self, container: &Container) {
        self.unplug(container).await;
        let (mounts, ipc) = {
            let record = container.record();
            (record.mounts.clone(), record.host.ipc_mode.clone())
        };
        self.release_volumes(&mounts, container.id.as_str());
        if ipc == "shareable" {
            let path = self.container_folder(&container.id).join("shm");
            if path.exists()
                && let Err(error) = gantry_linux::mount::unmount(&path)
            {
                tracing::debug!(container = container.id.short(), %error, "unmount shared memory");
            }
        }
    }

    async fn launch_plugged(&self, container: &Arc<Container>, plugged: &Plugged) -> Result<Launched> {
        let dir = self.fresh_run_folder(container)?;
        let record = container.record().clone();
        let around = self.surroundings(container, &record, plugged)?;
        let spec = spec::build(&record, &around)?;
        let config = serde_json::to_vec(&spec).map_err(|source| Error::Document {
            act: format!("write the OCI configuration of {}", container.id.short()),
            source,
        })?;
        let path = dir.join("config.json");
        std::fs::write(&path, config).map_err(io("write", &path))?;
        let monitor = self.monitor_config(&record, &dir)?;
        if record.host.auto_remove && record.has_run {
            forget_volatile(&record.rootfs.work)?;
        }
        let mut spawned = monitor::spawn(self.monitor_program(), &dir, &monitor).await?;
        let pid = match spawned.report().await? {
            Report::Created { pid } => pid,
            Report::Failed { message, exit_code } => {
                return Err(start_error(explain_init(message, &around), exit_code));
            }
            other @ Report::Started { .. } => return Err(unexpected(container, &other)),
        };
        self.order(container, spawned, dir, pid).await.map_err(|error| match error {
            Error::Start { message, exit_code } => {
                Error::Start { message: explain_init(message, &around), exit_code }
            }
            other => other,
        })
    }

    /// The container exists: note its process, connect those who wait, and give the start order.
    async fn order(
        &self,
        container: &Arc<Container>,
        mut spawned: Spawned,
        dir: PathBuf,
        pid: i32,
    ) -> Result<Launched> {
        let pidfd = gantry_linux::process::pidfd(pid).map_err(io("open process of", &dir))?;
        let start_time = gantry_linux::process::start_time(pid).unwrap_or(0);
        let note = dir.join(PID_FILE);
        std::fs::write(&note, format!("{pid} {start_time}")).map_err(io("write", &note))?;
        let exit =
            monitor::connect(&dir, Subscription::EXIT).await.map_err(io("connect to monitor in", &dir))?;
        let pending =
            std::mem::take(&mut *container.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for plug in pending {
            let (engine, id) = (self.clone(), Arc::clone(container));
            let detached = move || engine.container_event(&id, "detach", &[]);
            plug.join(&dir, detached).await.map_err(io("attach to monitor in", &dir))?;
        }
        spawned.order_start().await?;
        match spawned.report().await? {
            Report::Started { .. } => {
                let run = Run { pid, pidfd: Arc::new(pidfd), dir, over: CancellationToken::new() };
                Ok(Launched { run, exit })
            }
            Report::Failed { message, exit_code } => Err(start_error(message, exit_code)),
            other @ Report::Created { .. } => Err(unexpected(container, &other)),
        }
    }

    fn fresh_run_folder(&self, container: &Container) -> Result<PathBuf> {
        let dir = self.run_folder(container.id.as_str());
        crate::remove::remove_small(&dir)?;
        // The rootfs folder is where external runtimes get the file system mounted.
        let inner = dir.join("rootfs");
        std::fs::create_dir_all(&inner).map_err(io("create folder", &inner))?;
        Ok(dir)
    }

    fn monitor_config(&self, record: &Record, dir: &Path) -> Result<MonitorConfig> {
        let [rows, columns] = record.host.console_size;
        let log = match record.log {
            LogChoice::None => None,
            LogChoice::JsonFile { max_size, max_file } => {
                Some(LogConfig::JsonFile { path: self.log_path(&record.id), max_size, max_file })
            }
        };
        Ok(MonitorConfig {
            id: record.id.to_string(),
            kind: MonitorKind::Container {
                bundle: dir.to_owned(),
                rootfs: Some(Overlay {
                    lower: record.rootfs.lower.clone(),
                    upper: record.rootfs.upper.clone(),
                    work: record.rootfs.work.clone(),
                    // What is removed at its end need not reach the disk.
                    volatile: record.host.auto_remove,
                }),
            },
            runtime: self.runtime_choice(&record.host.runtime)?,
            terminal: record.config.tty,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            console_size: (rows > 0 && columns > 0).then_some((rows, columns)),
            log,
        })
    }

    pub(crate) fn runtime_choice(&self, name: &str) -> Result<RuntimeChoice> {
        let entry = self.config().runtimes.get(name).ok_or_else(|| {
            Error::Parameter(format!(
                "unknown or invalid runtime name: {name}; it was removed from the configuration"
            ))
        })?;
        let root = self.runtime_root(name);
        Ok(match entry.kind {
            RuntimeKind::Own => RuntimeChoice::Own { root },
            RuntimeKind::External => {
                RuntimeChoice::External { path: entry.path.clone(), root, systemd_cgroup: false }
            }
        })
    }

    fn surroundings(
        &self,
        container: &Container,
        record: &Record,
        plugged: &Plugged,
    ) -> Result<Surroundings> {
        let config = self.config();
        let user = record.config.user.as_str();
        let identity = rootfs::identity(&record.rootfs, user, &record.host.group_add)?;
        let uts_host = record.host.uts_mode == "host";
        let hostname = if uts_host { host_name() } else { self.hostname_of(record) };
        let etc = self.write_etc(container, record, plugged, &hostname)?;
        let (ipc, shm) = self.ipc(record)?;
        let init = record.host.init.unwrap_or(config.default_init).then(|| match &config.init_binary {
            Some(path) => (path.clone(), vec!["--".to_owned()]),
            None => (config.monitor.clone(), vec!["init".to_owned(), "--".to_owned()]),
        });
        let (mounts, held) = self.mount_sources(record)?;
        Ok(Surroundings {
            identity,
            netns: plugged.netns.clone(),
            ipc,
            pid: self.share("pid", &record.host.pid_mode)?,
            uts: if uts_host { Share::Host } else { Share::Own },
            shm,
            hostname,
            etc,
            mounts,
            _held: held,
            devices: devices::of(&record.host)?,
            init,
            files: record.files.clone(),
            cgroup_v2: devices::unified_cgroups(),
            cgroups_path: cgroups_path(&self.parent_cgroup(record), record.id.as_str()),
            default_ulimits: config.default_ulimits.clone(),
            default_shm_size: config.default_shm_size,
        })
    }

    fn parent_cgroup(&self, record: &Record) -> String {
        let own = &record.host.resources.cgroup_parent;
        if own.is_empty() { self.config().cgroup_parent.clone() } else { own.clone() }
    }

    /// The cgroup of a container, as a path in every hierarchy.
    pub(crate) fn cgroup_of(&self, container: &Container) -> String {
        let record = container.record();
        cgroups_path(&self.parent_cgroup(&record), record.id.as_str())
    }

    fn share(&self, kind: &str, mode: &str) -> Result<Share> {
        if mode == "host" {
            return Ok(Share::Host);
        }
        let Some(reference) = mode.strip_prefix("container:") else { return Ok(Share::Own) };
        let other = self.find(reference)?;
        let Some(run) = other.run() else {
            return Err(Error::Conflict(format!(
                "cannot join {} of a non running container: {}",
                kind.to_ascii_uppercase(),
                other.id
            )));
        };
        Ok(Share::Path(PathBuf::from(format!("/proc/{}/ns/{kind}", run.pid))))
    }

    /// The ipc namespace, and the folder that is /dev/shm.
    fn ipc(&self, record: &Record) -> Result<(Share, Option<PathBuf>)> {
        let share = self.share("ipc", &record.host.ipc_mode)?;
        let folder = match (&share, record.host.ipc_mode.as_str()) {
            (Share::Host, _) => Some(PathBuf::from("/dev/shm")),
            (Share::Path(_), mode) => {
                let other = self.find(mode.trim_start_matches("container:"))?;
                let folder = self.container_folder(&other.id).join("shm");
                if !folder.exists() {
                    return Err(Error::Conflict(format!(
                        "cannot join IPC of container {}: its IPC mode is not shareable",
                        other.id
                    )));
                }
                Some(folder)
            }
            (Share::Own, "shareable") => Some(self.shared_memory(record)?),
            (Share::Own, _) => None,
        };
        Ok((share, folder))
    }

    /// Memory on the host that other containers can join.
    fn shared_memory(&self, record: &Record) -> Result<PathBuf> {
        use rustix::mount::{MountFlags, mount};
        let folder = self.container_folder(&record.id).join("shm");
        std::fs::create_dir_all(&folder).map_err(io("create folder", &folder))?;
        let _ = gantry_linux::mount::unmount(&folder);
        let options = std::ffi::CString::new(format!("mode=1777,size={}", record.host.shm_size))
            .map_err(|error| io("mount memory on", &folder)(std::io::Error::other(error)))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", &folder, "tmpfs", flags, Some(options.as_c_str()))
            .map_err(|error| io("mount memory on", &folder)(error.into()))?;
        Ok(folder)
    }

    /// A container's name for itself. Docker: in the host's network the host's unless it asks for its own, in another container's
    /// network that one's.
    pub(crate) fn hostname_of(&self, record: &Record) -> String {
        match network::mode(&record.host.network_mode) {
            Ok(network::Mode::Host) if record.config.hostname.is_empty() => host_name(),
            Ok(network::Mode::Container(other)) if record.config.hostname.is_empty() => {
                // Removed meanwhile: then it can't start either.
                let other = self.find(&other).map(|other| other.record().clone());
                network::hostname(other.as_ref().unwrap_or(record))
            }
            _ => network::hostname(record),
        }
    }

    /// Writes /etc/hostname, /etc/hosts and /etc/resolv.conf; a container in another's network takes that one's.
    fn write_etc(
        &self,
        container: &Container,
        record: &Record,
        plugged: &Plugged,
        hostname: &str,
    ) -> Result<Vec<(&'static str, PathBuf)>> {
        let mut owner = container.id.clone();
        let Some((resolv_conf, hosts)) = &plugged.texts else {
            if let network::Mode::Container(other) = network::mode(&record.host.network_mode)? {
                owner = self.find(&other)?.id.clone();
            }
            return Ok(etc_files(&self.container_folder(&owner)));
        };
        self.write_texts(container, resolv_conf, hosts)?;
        let folder = self.container_folder(&owner);
        let path = folder.join("hostname");
        std::fs::write(&path, format!("{hostname}\n")).map_err(io("write", &path))?;
        Ok(etc_files(&folder))
    }

    /// The mounts with the host paths of their sources, made or mounted where needed, and the descriptors that some of
    /// these paths lead through.
    fn mount_sources(&self, record: &Record) -> Result<Sources> {
        let (mut all, mut held) = (Vec::new(), Vec::new());
        for mount in &record.mounts {
            let source = match &mount.source {
                Source::Tmpfs { .. } => PathBuf::from("tmpfs"),
                Source::Bind { path, create, .. } => bind_source(Path::new(path), *create)?,
                Source::Volume { name, subpath, .. } => {
                    self.hold_volume(name, record.id.as_str())?;
                    let (path, fd) = self.volume_source(name, subpath)?;
                    held.extend(fd.map(Arc::new));
                    path
                }
            };
            all.push((mount.clone(), source));
        }
        Ok((all, held))
    }

    /// The folder of a volume, or what lies in it. That is resolved beneath the volume, whose content is a container's,
    /// and named by its descriptor: a container that swaps it for a link meanwhile changes nothing (CVE-2021-30465).
    fn volume_source(&self, name: &str, subpath: &str) -> Result<(PathBuf, Option<OwnedFd>)> {
        let path = self.volume_path(name);
        if subpath.is_empty() {
            return Ok((path, None));
        }
        let root = gantry_linux::root::Root::open(&path)?;
        let fd = root.open_path(subpath, gantry_linux::root::Links::Follow)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        Ok((path.into(), Some(fd)))
    }

    /// Freezes or thaws all processes of a container.
    pub(crate) async fn freeze(&self, container: &Container, frozen: bool) -> Result<()> {
        let path = self.cgroup_of(container);
        blocking("freezing a container", move || {
            let cgroup = devices::cgroup(&path)?;
            let done = if frozen { cgroup.freeze() } else { cgroup.thaw() };
            done.map_err(|error| devices::cgroup_error(&path, &error))
        })
        .await
    }
}

fn etc_files(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("/etc/resolv.conf", folder.join("resolv.conf")),
        ("/etc/hostname", folder.join("hostname")),
        ("/etc/hosts", folder.join("hosts")),
    ]
}

/// overlayfs refuses a work folder that a volatile mount has used, because after a power loss its content would be in
/// doubt (Documentation/filesystems/overlayfs.rst). Here the same machine goes on with it.
fn forget_volatile(work: &Path) -> Result<()> {
    let mark = work.join("work/incompat");
    match std::fs::remove_dir_all(&mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &mark)(error)),
        _ => Ok(()),
    }
}

fn cgroups_path(parent: &str, id: &str) -> String {
    format!("/{}/{id}", parent.trim_matches('/'))
}

fn bind_source(path: &Path, create: bool) -> Result<PathBuf> {
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path).map_err(io("create bind source", path))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Parameter(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                path.display()
            )));
        }
        Err(error) => return Err(io("look at bind source", path)(error)),
    }
    Ok(path.to_owned())
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// An init that is missing although it is mounted lacks its dynamic loader: says what to do.
fn explain_init(message: String, around: &Surroundings) -> String {
    if around.init.is_some() && message.contains("docker-init") {
        format!(
            "{message} (--init needs a statically linked gantry-runtime, or an init named in the configuration)"
        )
    } else {
        message
    }
}

/// Docker's exit codes of a start that failed: 127 not found, 126 not executable, 128 anything else.
fn start_error(message: String, exit_code: i32) -> Error {
    let exit_code = if matches!(exit_code, 126 | 127) { exit_code } else { 128 };
    Error::Start { message, exit_code }
}

fn unexpected(container: &Container, report: &Report) -> Error {
    Error::Monitor {
        id: container.id.short().to_owned(),
        reason: format!("it reported {report:?} out of turn"),
    }
}

/// Mounts with the host paths of their sources, and descriptors that keep some of these paths valid.
type Sources = (Vec<(ContainerMount, PathBuf)>, Vec<Arc<OwnedFd>>);

/// Keeps the type of process documents next to the specification's.
pub(crate) fn process_json(process: &oci::Process, id: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(process)
        .map_err(|source| Error::Document { act: format!("write the process document of {id}"), source })
}
