//! The folder of a group in one hierarchy: made with what it needs to take processes, listed, removed.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

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

pub(super) fn create_folder(folder: &Folder) -> Result<(), CgroupError> {
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

pub(super) fn collect_processes(folder: &Path, pids: &mut Vec<i32>) {
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

pub(super) fn remove_tree(folder: &Path, deadline: Instant) -> io::Result<()> {
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

/// A descriptor of the group's folder on v2, as systemd and BPF take it.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fd)
}
