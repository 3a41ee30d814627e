//! Control groups: finding the hierarchies (v1, v2, and both side by side), and one container's group in all of them.
//!
//! A group is a set of folders, one in each hierarchy. On v1 a process joins fastest by writing `0` into `tasks`
//! itself: the kernel then skips the global lock that every write of another process's id takes.

mod details;
mod devices;
mod error;
mod folder;
mod freezer;
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

use crate::pseudo_file;
pub use details::{Counter, CpusetDetails, Details, Pressure, Stalls};
pub use devices::{DeviceAccess, DeviceKind, DeviceRule};
pub use error::CgroupError;
pub use folder::{Folder, open_folder};
use folder::{collect_processes, create_folder, remove_tree};
pub use hierarchy::{Hierarchies, Hierarchy, Layout, Version};
pub use limits::{
    Absence, BlockLimits, CpuLimits, InForce, Limits, MemoryLimits, Rate, Setting, weight_of_shares,
};
pub use stats::{BlockStats, CpuStats, HugePageStats, MemoryStats, PidsStats, Stats, V1_UNLIMITED};

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
        let text =
            pseudo_file::read_to_string(&file).map_err(|source| CgroupError::Read { path: file, source })?;
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

    /// The group at a path below this one, for one controller or for all; the others stay.
    pub fn below(mut self, controller: Option<&str>, path: &str) -> Result<Cgroup, CgroupError> {
        if path.split('/').any(|part| part == "..") {
            return Err(CgroupError::Path(path.to_owned()));
        }
        let relative = path.trim_matches('/');
        let mut found = false;
        for folder in &mut self.folders {
            let wanted = controller.is_none_or(|name| {
                folder
                    .controllers
                    .iter()
                    .any(|known| known == name || known.strip_prefix("name=") == Some(name))
                    || name.is_empty() && folder.version == Version::V2
            });
            let below = folder.path.join(relative);
            // A hierarchy without controllers need not have the group that the others have.
            if wanted && !relative.is_empty() && (controller.is_some() || below.is_dir()) {
                folder.path = below;
            }
            found |=
                wanted && folder.path.is_dir() && (relative.is_empty() || folder.path.ends_with(relative));
        }
        if found {
            return Ok(self);
        }
        Err(CgroupError::NoGroup {
            path: path.to_owned(),
            controller: controller.unwrap_or("any").to_owned(),
        })
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

    /// Whether there is a process in any of its folders, or below.
    pub fn is_occupied(&self) -> bool {
        let mut pids = Vec::new();
        self.folders.iter().any(|folder| {
            collect_processes(&folder.path, &mut pids);
            !pids.is_empty()
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

    /// Puts limits and device rules in force; returns what this kernel has no file for.
    pub fn apply(&self, limits: &Limits) -> Result<Vec<String>, CgroupError> {
        self.check_usage(limits)?;
        let legacy = self.folders.iter().any(|folder| folder.version == Version::V1);
        let in_force = self.in_force(limits);
        let mut settings = limits.v2(&in_force);
        let mut passed_over: Vec<String> = Vec::new();
        if legacy {
            // Controllers that the unified hierarchy has beside those of v1 are used there.
            settings.retain(|setting| self.unified_has(&setting.controller));
            let v1 = limits.v1();
            settings.extend(v1.into_iter().filter(|setting| !self.unified_has(&setting.controller)));
        } else {
            passed_over.extend(limits.without_v2().into_iter().map(str::to_owned));
        }
        self.put_all(&settings, &mut passed_over)?;
        for setting in limits.unified_settings() {
            self.put_unified(&setting)?;
        }
        self.apply_devices(limits, legacy)?;
        Ok(passed_over)
    }

    fn put_all(&self, settings: &[Setting], passed_over: &mut Vec<String>) -> Result<(), CgroupError> {
        // Limits depend on each other (memory may not exceed memory and swap together, quota depends on the period), and
        // which must go first depends on what is in force: what is refused is tried again after the others.
        let mut refused = Vec::new();
        for setting in settings {
            match self.put(setting) {
                Ok(Outcome::Done) => {}
                Ok(Outcome::NoFile) if setting.absence == Absence::Fine => {}
                Ok(Outcome::NoFile) => {
                    passed_over.extend(setting.choices.first().map(|(file, _)| file.clone()))
                }
                Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                    refused.push(setting);
                }
                Err(error) => return Err(error),
            }
        }
        refused.into_iter().try_for_each(|setting| self.put(setting).map(drop))
    }

    /// Refuses a memory limit below what is in use, when that is asked for.
    fn check_usage(&self, limits: &Limits) -> Result<(), CgroupError> {
        let Some(limit) = limits.memory.limit.filter(|limit| *limit > 0 && limits.memory.check_before_update)
        else {
            return Ok(());
        };
        let usage = self.file("memory", "memory.usage_in_bytes", "memory.current");
        match usage.and_then(|text| text.trim().parse::<i64>().ok()) {
            Some(usage) if usage > limit => Err(CgroupError::InUse { limit, usage }),
            _ => Ok(()),
        }
    }

    fn in_force(&self, limits: &Limits) -> InForce {
        let mut in_force = InForce::default();
        let Some(folder) = self.unified() else { return in_force };
        if limits.memory.swap.is_some_and(|swap| swap > 0) && limits.memory.limit.is_none() {
            in_force.memory_max =
                read(&folder.path.join("memory.max")).ok().and_then(|text| text.trim().parse().ok());
        }
        if limits.cpu.period.is_some() && limits.cpu.quota.is_none() {
            let text = read(&folder.path.join("cpu.max")).unwrap_or_default();
            in_force.cpu_max = text.split_whitespace().next().map(str::to_owned);
        }
        in_force
    }

    fn unified_has(&self, controller: &str) -> bool {
        self.v1(controller).is_none()
            && self.unified().is_some_and(|folder| folder.controllers.iter().any(|name| name == controller))
    }

    fn apply_devices(&self, limits: &Limits, legacy: bool) -> Result<(), CgroupError> {
        if limits.devices.is_empty() {
            return Ok(());
        }
        if legacy && let Some(folder) = self.v1("devices") {
            for rule in &limits.devices {
                let file = if rule.allow { "devices.allow" } else { "devices.deny" };
                for text in rule.v1_texts() {
                    write(&folder.path.join(file), &text)?;
                }
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

    fn put(&self, setting: &Setting) -> Result<Outcome, CgroupError> {
        let folder = match self.v1(&setting.controller) {
            Some(folder) => folder,
            None => match self
                .unified()
                .filter(|_| self.folders.len() == 1 || self.unified_has(&setting.controller))
            {
                Some(folder) => folder,
                _ if setting.absence != Absence::Error => return Ok(Outcome::NoFile),
                _ => {
                    return Err(CgroupError::NoController {
                        setting: setting.choices.first().map(|(file, _)| file.clone()).unwrap_or_default(),
                        controller: setting.controller.clone(),
                    });
                }
            },
        };
        put_in(folder, setting)
    }

    fn put_unified(&self, setting: &Setting) -> Result<(), CgroupError> {
        let (file, _) = setting.choices.first().cloned().unwrap_or_default();
        // One file of the folder, never a path.
        if file.is_empty() || file.contains('/') || file == ".." || file == "." {
            return Err(CgroupError::NotAFile(file));
        }
        let offered = |folder: &&Folder| {
            let known = |name: &String| *name == setting.controller;
            setting.controller == "cgroup" || self.folders.len() == 1 || folder.controllers.iter().any(known)
        };
        match self.unified().filter(offered) {
            Some(folder) => put_in(folder, setting).map(drop),
            None => Err(CgroupError::NotUnified { file, controller: setting.controller.clone() }),
        }
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

    /// Removes the folders, with those below them. What is not there is fine.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.remove_until(Instant::now() + PATIENCE)
    }

    /// As [`Cgroup::remove`]; what still runs in it is killed before.
    pub fn end(&self) -> Result<(), CgroupError> {
        // Most groups are empty: nothing is looked up then.
        self.remove_until(Instant::now()).or_else(|_| self.kill_all().and_then(|()| self.remove()))
    }

    fn remove_until(&self, deadline: Instant) -> Result<(), CgroupError> {
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

    /// A descriptor that becomes readable when the kernel kills something in it for want of memory.
    pub fn oom_watch(&self) -> Result<OwnedFd, CgroupError> {
        stats::oom_watch(self)
    }

    /// Where a controller acts.
    fn folder_of(&self, controller: &str) -> Option<(&Path, Version)> {
        let v1 = self.v1(controller).map(|folder| (folder.path.as_path(), Version::V1));
        let has = |folder: &&Folder| folder.controllers.iter().any(|name| name == controller);
        v1.or_else(|| self.unified().filter(has).map(|folder| (folder.path.as_path(), Version::V2)))
    }

    /// What only `events` tells of it.
    pub fn details(&self) -> Details {
        details::read(self)
    }

    /// What it uses.
    pub fn stats(&self) -> Stats {
        stats::read_stats(self)
    }

    /// A file of a v1 controller, or of the unified folder when no v1 hierarchy has it.
    fn file(&self, controller: &str, v1_name: &str, v2_name: &str) -> Option<String> {
        match self.v1(controller) {
            Some(folder) => pseudo_file::read_to_string(folder.path.join(v1_name)).ok(),
            None => pseudo_file::read_to_string(self.unified()?.path.join(v2_name)).ok(),
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

/// What became of a setting.
enum Outcome {
    Done,
    NoFile,
}

fn put_in(folder: &Folder, setting: &Setting) -> Result<Outcome, CgroupError> {
    let mut last = None;
    for (file, value) in &setting.choices {
        match write(&folder.path.join(file), value) {
            Ok(()) => return Ok(Outcome::Done),
            Err(CgroupError::Write { path, value, source }) if source.kind() == io::ErrorKind::NotFound => {
                last = Some(CgroupError::Write { path, value, source });
            }
            Err(error) => return Err(error),
        }
    }
    match last {
        Some(error) if setting.absence == Absence::Error => Err(error),
        _ => Ok(Outcome::NoFile),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let result =
        fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    result.map_err(|source| CgroupError::Write { path: path.to_owned(), value: value.to_owned(), source })
}

fn read(path: &Path) -> Result<String, CgroupError> {
    pseudo_file::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}
