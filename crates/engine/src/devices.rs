//! Devices that a container gets, and its cgroup as the engine reaches it.

use crate::error::{Error, Result, io, parameter};
use gantry_linux::cgroup::{Cgroup, CgroupError, Hierarchies, Layout};
use gantry_model::container::{DeviceMapping, HostConfig};
use gantry_runtime::oci;
use rustix::fs::{FileType, Stat};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The devices of a container with their access.
pub(crate) fn of(host: &HostConfig) -> Result<Vec<(oci::Device, String)>> {
    let mut list = Vec::new();
    if host.privileged {
        list.extend(all_devices()?);
    }
    for mapping in &host.resources.devices {
        list.extend(one(mapping)?);
    }
    Ok(list)
}

/// `--device`: a node, or a folder of nodes.
fn one(mapping: &DeviceMapping) -> Result<Vec<(oci::Device, String)>> {
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    if !access.chars().all(|c| "rwm".contains(c)) {
        return Err(parameter(format!("invalid device mode: {access}")));
    }
    let source = Path::new(&mapping.path_on_host);
    let inside =
        if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
    // A link such as /dev/cdrom stands for the node it leads to.
    let real = source.canonicalize().map_err(|error| {
        parameter(format!(
            "error gathering device information while adding custom device {:?}: {error}",
            mapping.path_on_host
        ))
    })?;
    if real.is_dir() {
        let nodes = nodes_below(&real)?;
        let under = |path: &PathBuf| {
            let rest = path.strip_prefix(&real).unwrap_or(path);
            Path::new(inside).join(rest).to_string_lossy().into_owned()
        };
        return Ok(nodes
            .iter()
            .filter_map(|path| device(path, &under(path)))
            .map(|device| (device, access.to_owned()))
            .collect());
    }
    let device = device(&real, inside).ok_or_else(|| {
        parameter(format!(
            "error gathering device information while adding custom device {:?}: not a device node",
            mapping.path_on_host
        ))
    })?;
    Ok(vec![(device, access.to_owned())])
}

fn device(path: &Path, inside: &str) -> Option<oci::Device> {
    let stat: Stat = rustix::fs::stat(path).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    Some(oci::Device {
        kind: kind.to_owned(),
        path: inside.to_owned(),
        major: Some(i64::from(rustix::fs::major(stat.st_rdev))),
        minor: Some(i64::from(rustix::fs::minor(stat.st_rdev))),
        file_mode: Some(stat.st_mode & 0o7777),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    })
}

/// All device nodes of the host, for privileged containers; without those that every container has of its own.
fn all_devices() -> Result<Vec<(oci::Device, String)>> {
    const OWN: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
    let nodes = nodes_below(Path::new("/dev"))?;
    let wanted = nodes.into_iter().filter(|path| {
        let name = path.strip_prefix("/dev").unwrap_or(path);
        !OWN.iter().any(|own| name == Path::new(own))
            && !["pts", "shm", "mqueue", "fd"].iter().any(|folder| name.starts_with(folder))
    });
    Ok(wanted
        .filter_map(|path| device(&path, &path.to_string_lossy()))
        .map(|device| (device, "rwm".to_owned()))
        .collect())
}

/// Device nodes in a folder of the host and below it.
fn nodes_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut nodes = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(io("list devices in", &folder))?;
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_char_device() || kind.is_block_device() {
                nodes.push(entry.path());
            }
        }
    }
    nodes.sort();
    Ok(nodes)
}

fn hierarchies() -> Result<&'static Hierarchies> {
    static FOUND: OnceLock<std::result::Result<Hierarchies, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| Hierarchies::detect().map_err(|error| crate::error::whole(&error)))
        .as_ref()
        .map_err(|error| io("find cgroups in", "/proc/self/mountinfo")(std::io::Error::other(error.clone())))
}

/// Whether the host has the unified hierarchy only.
pub(crate) fn unified_cgroups() -> bool {
    hierarchies().is_ok_and(|h| matches!(h.layout(), Layout::Unified))
}

/// An existing cgroup by its path in every hierarchy.
pub(crate) fn cgroup(path: &str) -> Result<Cgroup> {
    Cgroup::at(hierarchies()?, path).map_err(|error| cgroup_error(path, &error))
}

/// An error of a cgroup as one of ours.
pub(crate) fn cgroup_error(path: &str, error: &CgroupError) -> Error {
    io("change cgroup", path)(std::io::Error::other(crate::error::whole(error)))
}

/// Writes limits into the existing cgroup of a running container. Devices stay as they are.
pub(crate) fn apply(path: &str, resources: &oci::Resources) -> Result<()> {
    use gantry_linux::cgroup::{CpuLimits, Limits, MemoryLimits};
    let memory = resources.memory.clone().unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    let limits = Limits {
        memory: MemoryLimits {
            limit: memory.limit,
            reservation: memory.reservation,
            swap: memory.swap,
            ..MemoryLimits::default()
        },
        cpu: CpuLimits {
            shares: cpu.shares,
            quota: cpu.quota,
            period: cpu.period,
            realtime_runtime: cpu.realtime_runtime,
            realtime_period: cpu.realtime_period,
            cpus: cpu.cpus,
            mems: cpu.mems,
            ..CpuLimits::default()
        },
        pids: resources.pids.map(|pids| pids.limit),
        ..Limits::default()
    };
    cgroup(path)?.apply(&limits).map(drop).map_err(|error| cgroup_error(path, &error))
}
