//! Control groups: finding the hierarchies (v1, v2, and both side by side), and one container's group in all of them.
//!
//! A group is a set of folders, one in each hierarchy. On v1 a process joins fastest by writing `0` into `tasks`
//! itself: the kernel then skips the global lock that every write of another process's id takes.

mod devices;
mod hierarchy;
mod limits;
mod stats;

use std::{
    fmt, fs,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use devices::{DeviceAccess, DeviceKind, DeviceRule};
pub use hierarchy::{Hierarchies, Hierarchy, Layout, Version};
pub use limits::{BlockLimits, CpuLimits, Limits, MemoryLimits, Rate, Setting};
pub use stats::{BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("read {path}")]
    Detect {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A folder cannot be made or removed.
    #[error("{act} cgroup {path}")]
    Folder {
        /// `create` or `remove`.
        act: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file refuses a value.
    #[error("write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A limit needs a controller that no hierarchy has.
    #[error("{setting} needs the {controller} controller, which this host does not offer")]
    NoController {
        /// What was asked for.
        setting: String,
        /// What is missing.
        controller: String,
    },
    /// A path that would leave the hierarchy.
    #[error("cgroup path {0:?} must not contain '..'")]
    Path(String),
    /// The device filter of v2 cannot be loaded.
    #[error("load the device filter of cgroup {path}")]
    DeviceFilter {
        /// The group.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Frozen or thawed too slowly.
    #[error("cgroup {path} did not become {wanted} within {seconds} s")]
    Timeout {
        /// The group.
        path: PathBuf,
        /// `frozen`, `thawed` or `empty`.
        wanted: &'static str,
        /// How long.
        seconds: u64,
    },
}

/// One folder of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Which kind of hierarchy.
    pub version: Version,
    /// Controllers that act there.
    pub controllers: Vec<String>,
    /// The folder.
    pub path: PathBuf,
    /// Mount point of the hierarchy.
    pub mount: PathBuf,
}

/// One group in all hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    folders: Vec<Folder>,
}

/// How long freezing, killing and removing may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Names the group at `path` (beneath the root of each hierarchy); makes nothing.
    pub fn at(hierarchies: &Hierarchies, path: &str) -> Result<Cgroup, CgroupError> {
        if path.split('/').any(|part| part == "..") {
            return Err(CgroupError::Path(path.to_owned()));
        }
        let relative = path.trim_matches('/');
        let folder = |hierarchy: &Hierarchy| Folder {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            path: if relative.is_empty() { hierarchy.mount.clone() } else { hierarchy.mount.join(relative) },
            mount: hierarchy.mount.clone(),
        };
        Ok(Cgroup { folders: hierarchies.list.iter().map(folder).collect() })
    }

    /// The group that a process is in.
    pub fn of_process(hierarchies: &Hierarchies, pid: i32) -> Result<Cgroup, CgroupError> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = fs::read_to_string(&file).map_err(|source| CgroupError::Read { path: file, source })?;
        let mut folders = Vec::new();
        for line in text.lines() {
            // cgroups(7): id:controllers:path
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let matches = |hierarchy: &&Hierarchy| match hierarchy.version {
                Version::V2 => controllers.is_empty(),
                Version::V1 => controllers.split(',').eq(hierarchy.controllers.iter().map(String::as_str)),
            };
            if let Some(hierarchy) = hierarchies.list.iter().find(matches) {
                folders.push(Folder {
                    version: hierarchy.version,
                    controllers: hierarchy.controllers.clone(),
                    path: hierarchy.mount.join(path.trim_start_matches('/')),
                    mount: hierarchy.mount.clone(),
                });
            }
        }
        Ok(Cgroup { folders })
    }

    /// Its folders.
    pub fn folders(&self) -> &[Folder] {
        &self.folders
    }

    fn unified(&self) -> Option<&Folder> {
        self.folders.iter().find(|folder| folder.version == Version::V2)
    }

    fn v1(&self, controller: &str) -> Option<&Folder> {
        self.folders.iter().find(|folder| {
            folder.version == Version::V1 && folder.controllers.iter().any(|name| name == controller)
        })
    }

    /// Makes the folder of the unified hierarchy and opens it, so that a process can be cloned into it.
    pub fn create_unified(&self) -> Result<Option<OwnedFd>, CgroupError> {
        use rustix::fs::{Mode, OFlags};
        let Some(folder) = self.unified() else { return Ok(None) };
        create_folder(folder)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&folder.path, flags, Mode::empty()).map_err(|error| {
            CgroupError::Folder { act: "open", path: folder.path.clone(), source: error.into() }
        })?;
        Ok(Some(fd))
    }

    /// Makes the folders of all hierarchies.
    pub fn create(&self) -> Result<(), CgroupError> {
        self.folders.iter().try_for_each(create_folder)
    }

    /// Whether any of its folders is there.
    pub fn exists(&self) -> bool {
        self.folders.iter().any(|folder| folder.path.exists())
    }

    /// Whether any of its folders has a process in it.
    pub fn is_occupied(&self) -> bool {
        self.folders.iter().any(|folder| {
            fs::read_to_string(folder.path.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty())
        })
    }

    /// Moves the calling process (which must have one thread) into the v1 folders.
    pub fn join_v1(&self) -> Result<(), CgroupError> {
        let v1 = self.folders.iter().filter(|folder| folder.version == Version::V1);
        for folder in v1 {
            write(&folder.path.join("tasks"), "0")?;
        }
        Ok(())
    }

    /// Moves the calling process into the unified folder.
    pub fn join_unified(&self) -> Result<(), CgroupError> {
        match self.unified() {
            Some(folder) => write(&folder.path.join("cgroup.procs"), "0"),
            None => Ok(()),
        }
    }

    /// Moves a process into the v1 folders, from outside.
    pub fn add_v1(&self, pid: i32) -> Result<(), CgroupError> {
        let v1 = self.folders.iter().filter(|folder| folder.version == Version::V1);
        for folder in v1 {
            write(&folder.path.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Moves a process into all folders, from outside.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.folders.iter().try_for_each(|folder| write(&folder.path.join("cgroup.procs"), &pid.to_string()))
    }

    /// Opens the unified folder, for cloning into it.
    pub fn open_unified(&self) -> Option<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(&self.unified()?.path, flags, Mode::empty()).ok()
    }

    /// Puts limits and device rules in force.
    pub fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        let legacy = self.folders.iter().any(|folder| folder.version == Version::V1);
        let settings = if legacy { limits.v1() } else { limits.v2() };
        // Limits depend on each other (memory may not exceed memory and swap together, quota depends on the period), and
        // which must go first depends on what is in force: what is refused is tried again after the others.
        let mut refused = Vec::new();
        for setting in &settings {
            match self.put(setting) {
                Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                    refused.push(setting);
                }
                other => other?,
            }
        }
        refused.into_iter().try_for_each(|setting| self.put(setting))?;
        if legacy {
            limits.unified_settings().iter().try_for_each(|setting| self.put_unified(setting))?;
        }
        self.apply_devices(limits, legacy)
    }

    fn apply_devices(&self, limits: &Limits, legacy: bool) -> Result<(), CgroupError> {
        if limits.devices.is_empty() {
            return Ok(());
        }
        if legacy && let Some(folder) = self.v1("devices") {
            for rule in &limits.devices {
                let file = if rule.allow { "devices.allow" } else { "devices.deny" };
                write(&folder.path.join(file), &rule.v1_text())?;
            }
            return Ok(());
        }
        match self.unified() {
            Some(folder) => devices::attach(&folder.path, &limits.devices),
            None => Err(CgroupError::NoController {
                setting: "device rules".into(),
                controller: "devices".into(),
            }),
        }
    }

    fn put(&self, setting: &Setting) -> Result<(), CgroupError> {
        let folder = match self.v1(setting.controller) {
            Some(folder) => folder,
            None => match self.unified() {
                Some(folder) if self.folders.len() == 1 => folder,
                _ if setting.optional => return Ok(()),
                _ => {
                    return Err(CgroupError::NoController {
                        setting: setting.file.clone(),
                        controller: setting.controller.to_owned(),
                    });
                }
            },
        };
        put_in(folder, setting)
    }

    fn put_unified(&self, setting: &Setting) -> Result<(), CgroupError> {
        match self.unified() {
            Some(folder) => put_in(folder, setting),
            None => Err(CgroupError::NoController {
                setting: setting.file.clone(),
                controller: "unified hierarchy".to_owned(),
            }),
        }
    }

    /// Stops every process until [`Cgroup::thaw`].
    pub fn freeze(&self) -> Result<(), CgroupError> {
        if let Some(folder) = self.v1("freezer") {
            let state = folder.path.join("freezer.state");
            return await_state(&folder.path, "frozen", || {
                // Repeating the order catches processes that were forked while it was carried out.
                write(&state, "FROZEN")?;
                Ok(read(&state)?.trim() == "FROZEN")
            });
        }
        self.freeze_unified("1", "frozen", "frozen 1")
    }

    /// Lets them run again.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        if let Some(folder) = self.v1("freezer") {
            let state = folder.path.join("freezer.state");
            return await_state(&folder.path, "thawed", || {
                write(&state, "THAWED")?;
                Ok(read(&state)?.trim() == "THAWED")
            });
        }
        self.freeze_unified("0", "thawed", "frozen 0")
    }

    fn freeze_unified(&self, order: &str, wanted: &'static str, line: &str) -> Result<(), CgroupError> {
        let Some(folder) = self.unified() else {
            return Err(CgroupError::NoController { setting: "pause".into(), controller: "freezer".into() });
        };
        write(&folder.path.join("cgroup.freeze"), order)?;
        let events = folder.path.join("cgroup.events");
        await_state(&folder.path, wanted, || Ok(read(&events)?.lines().any(|l| l == line)))
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        if let Some(folder) = self.v1("freezer") {
            return read(&folder.path.join("freezer.state")).is_ok_and(|state| state.trim() != "THAWED");
        }
        self.unified().is_some_and(|folder| {
            read(&folder.path.join("cgroup.freeze")).is_ok_and(|state| state.trim() == "1")
        })
    }

    /// Processes in it and in the groups below it.
    pub fn processes(&self) -> Vec<i32> {
        let folder = ["pids", "memory", "freezer", "devices"].iter().find_map(|name| self.v1(name));
        let Some(folder) = folder.or_else(|| self.unified()).or_else(|| self.folders.first()) else {
            return Vec::new();
        };
        let mut pids = Vec::new();
        collect_processes(&folder.path, &mut pids);
        pids
    }

    /// Kills everything in it and waits until it is empty.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(folder) = self.unified()
            && folder.path.join("cgroup.kill").exists()
        {
            // A process in a v1 folder only (of a runtime that leaves v2 alone) is caught below.
            write(&folder.path.join("cgroup.kill"), "1").or_else(ignore_missing)?;
        }
        let own = std::process::id().cast_signed();
        let path = self.folders.first().map(|folder| folder.path.clone()).unwrap_or_default();
        await_state(&path, "empty", || {
            let pids: Vec<i32> = self.processes().into_iter().filter(|pid| *pid != own).collect();
            for pid in &pids {
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    // It may be gone already.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if !pids.is_empty() && self.is_frozen() {
                // A v1 freezer delivers SIGKILL only after the thaw.
                self.thaw()?;
            }
            Ok(pids.is_empty())
        })
    }

    /// Removes the folders, with those below them. What is not there is fine.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + PATIENCE;
        let mut first_error = None;
        for folder in &self.folders {
            if folder.path == folder.mount {
                continue;
            }
            if let Err(source) = remove_tree(&folder.path, deadline) {
                let error = CgroupError::Folder { act: "remove", path: folder.path.clone(), source };
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// How often the kernel killed something in it for want of memory.
    pub fn oom_kills(&self) -> u64 {
        stats::oom_kills(self)
    }

    /// What it uses.
    pub fn stats(&self) -> Stats {
        stats::read_stats(self)
    }

    /// A file of a v1 controller, or of the unified folder when no v1 hierarchy has it.
    fn file(&self, controller: &str, v1_name: &str, v2_name: &str) -> Option<String> {
        match self.v1(controller) {
            Some(folder) => fs::read_to_string(folder.path.join(v1_name)).ok(),
            None => fs::read_to_string(self.unified()?.path.join(v2_name)).ok(),
        }
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folders.first() {
            Some(folder) => write!(f, "{}", folder.path.display()),
            None => f.write_str("no cgroup"),
        }
    }
}

fn put_in(folder: &Folder, setting: &Setting) -> Result<(), CgroupError> {
    let result = write(&folder.path.join(&setting.file), &setting.value);
    match result {
        Err(CgroupError::Write { source, .. })
            if setting.optional && source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

fn ignore_missing(error: CgroupError) -> Result<(), CgroupError> {
    match error {
        CgroupError::Write { source, .. } if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Err(other),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let result =
        fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    result.map_err(|source| CgroupError::Write { path: path.to_owned(), value: value.to_owned(), source })
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn create_folder(folder: &Folder) -> Result<(), CgroupError> {
    let fail = |path: &Path, source| CgroupError::Folder { act: "create", path: path.to_owned(), source };
    match fs::create_dir(&folder.path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = folder.path.parent().filter(|parent| parent.starts_with(&folder.mount));
            let parent = parent.ok_or_else(|| fail(&folder.path, error))?;
            create_folder(&Folder { path: parent.to_owned(), ..folder.clone() })?;
            fs::create_dir(&folder.path).map_err(|source| fail(&folder.path, source))?;
        }
        Err(source) => return Err(fail(&folder.path, source)),
    }
    match folder.version {
        Version::V1 if folder.controllers.iter().any(|name| name == "cpuset") => inherit_cpuset(&folder.path),
        Version::V1 => Ok(()),
        Version::V2 => delegate_controllers(folder),
    }
}

/// A new v1 cpuset is empty and takes no process before it has CPUs and memory nodes.
fn inherit_cpuset(path: &Path) -> Result<(), CgroupError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = read(&parent.join(file))?;
        write(&path.join(file), value.trim())?;
    }
    Ok(())
}

/// Turns the controllers on for the new folder, in its parent; those that the parent cannot give are left out.
fn delegate_controllers(folder: &Folder) -> Result<(), CgroupError> {
    let Some(parent) = folder.path.parent() else { return Ok(()) };
    let offered = read(&parent.join("cgroup.controllers"))?;
    let active = read(&parent.join("cgroup.subtree_control"))?;
    for name in
        offered.split_whitespace().filter(|name| !active.split_whitespace().any(|other| other == *name))
    {
        // A parent with processes of its own refuses (cgroups(7), no internal processes); what needs it will say so.
        let _ = write(&parent.join("cgroup.subtree_control"), &format!("+{name}"));
    }
    Ok(())
}

fn collect_processes(folder: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in child_folders(folder) {
        collect_processes(&child, pids);
    }
}

fn child_folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(folder: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A process that has just ended, or groups that the container made below.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                for child in child_folders(folder) {
                    remove_tree(&child, deadline)?;
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}

fn await_state(
    path: &Path,
    wanted: &'static str,
    mut reached: impl FnMut() -> Result<bool, CgroupError>,
) -> Result<(), CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    while !reached()? {
        if Instant::now() > deadline {
            return Err(CgroupError::Timeout { path: path.to_owned(), wanted, seconds: PATIENCE.as_secs() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}

/// A descriptor of the group's folder on v2, as systemd and BPF take it.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fd)
}
