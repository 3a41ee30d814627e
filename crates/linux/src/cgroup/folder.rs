//! The folder of a group in one hierarchy: made with what it needs to take processes, listed, removed.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{CgroupError, Version, read, write};

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

/// How often a parent is made again that another process removes.
const TRIES: u32 = 100;

pub(super) fn create_folder(folder: &Folder) -> Result<(), CgroupError> {
    let fail = |path: &Path, source| CgroupError::Folder { act: "create", path: path.to_owned(), source };
    let mut tries = 0;
    loop {
        match fs::create_dir(&folder.path) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            // Who removes another container may take an empty parent along just after it was made or found here.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {
                tries += 1;
                let parent = folder.path.parent().filter(|parent| parent.starts_with(&folder.mount));
                let parent = parent.ok_or_else(|| fail(&folder.path, error))?;
                create_folder(&Folder { path: parent.to_owned(), ..folder.clone() })?;
            }
            Err(source) => return Err(fail(&folder.path, source)),
        }
    }
    match folder.version {
        Version::V1 if folder.controllers.iter().any(|name| name == "cpuset") => {
            inherit(&folder.path, "cpuset.cpus", &folder.mount)?;
            inherit(&folder.path, "cpuset.mems", &folder.mount)
        }
        Version::V1 => Ok(()),
        Version::V2 => delegate_controllers(folder),
    }
}

/// A new v1 cpuset is empty and takes no process before it has CPUs and memory nodes (cpuset(7)). Its parent may be just as new: made
/// by another runtime that has not come to this step yet.
fn inherit(path: &Path, file: &str, mount: &Path) -> Result<(), CgroupError> {
    let Some(parent) = path.parent().filter(|parent| parent.starts_with(mount)) else { return Ok(()) };
    let mut value = read(&parent.join(file))?;
    if value.trim().is_empty() {
        inherit(parent, file, mount)?;
        value = read(&parent.join(file))?;
    }
    write(&path.join(file), value.trim())
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

/// Adds the processes of a group and of all below it.
pub(super) fn collect_processes(folder: &Path, pids: &mut Vec<i32>) {
    // What has gone has no processes.
    let _ = Walk::begin(folder).and_then(|mut walk| {
        let mut left = vec![walk.children()?];
        walk.collect(pids);
        while let Some(children) = left.last_mut() {
            match children.pop() {
                Some(child) => {
                    // It may be gone by now.
                    if walk.down(&child).is_ok() {
                        walk.collect(pids);
                        left.push(walk.children()?);
                    }
                }
                None => {
                    left.pop();
                    if !left.is_empty() {
                        walk.up()?;
                    }
                }
            }
        }
        Ok(())
    });
}

/// A place in a tree of groups. A container may make groups below its own as deep as it likes, deeper than a path can be long: so one
/// step at a time, with one descriptor.
struct Walk {
    here: OwnedFd,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Walk {
    fn begin(folder: &Path) -> io::Result<Walk> {
        Ok(Walk { here: rustix::fs::open(folder, FOLDER, Mode::empty())? })
    }

    fn down(&mut self, child: &CStr) -> io::Result<()> {
        self.here = rustix::fs::openat(&self.here, child, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(())
    }

    fn up(&mut self) -> io::Result<()> {
        self.here = rustix::fs::openat(&self.here, c"..", FOLDER, Mode::empty())?;
        Ok(())
    }

    /// Names of the groups right below.
    fn children(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.here)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn collect(&self, pids: &mut Vec<i32>) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.here, c"cgroup.procs", flags, Mode::empty());
        let text = file.map(|file| io::read_to_string(fs::File::from(file)).unwrap_or_default());
        pids.extend(text.unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()));
    }

    /// Removes a group right below; waits for processes in it that have just ended.
    fn remove(&self, child: &CStr, deadline: Instant) -> io::Result<()> {
        removed(deadline, || Ok(rustix::fs::unlinkat(&self.here, child, AtFlags::REMOVEDIR)?))
    }
}

/// Tries to remove a group without groups below until its processes have gone.
fn removed(deadline: Instant, mut remove: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match remove() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

/// Removes a group, with those that the container made below.
pub(super) fn remove_tree(folder: &Path, deadline: Instant) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    let mut walk = match Walk::begin(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut above = Vec::new();
    loop {
        match walk.children()?.pop() {
            Some(child) => {
                walk.down(&child)?;
                above.push(child);
            }
            None => {
                let Some(child) = above.pop() else { break };
                walk.up()?;
                walk.remove(&child, deadline)?;
            }
        }
    }
    removed(deadline, || fs::remove_dir(folder))
}

/// A descriptor of the group's folder on v2, as systemd and BPF take it.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FOLDER, Mode::empty())?)
}
