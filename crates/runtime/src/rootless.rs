//! The cgroup of a container that root of the host does not make: one that was delegated, or none.

use std::io;

use gantry_linux::cgroup::{Cgroup, CgroupError, Hierarchies, Limits};

use crate::{
    error::{Error, Result},
    limits,
    privilege::Privilege,
};

/// The container's group when the caller may make it; none, to which nothing is written, for a caller to whom no group was
/// delegated.
pub fn usable(group: Cgroup) -> Result<Cgroup, CgroupError> {
    if Privilege::own() == Privilege::Root {
        // It is made later, beside the first process.
        return Ok(group);
    }
    match group.create() {
        Ok(()) => Ok(group),
        Err(CgroupError::Folder { source, .. } | CgroupError::Write { source, .. }) if is_denied(&source) => {
            // Where some hierarchies are delegated and some are not, what was made is taken away again.
            let _ = group.remove();
            Ok(Cgroup::default())
        }
        Err(error) => Err(error),
    }
}

/// The group that a container sees as its own: without one, that of the runtime, in which it stays.
pub fn shown(group: &Cgroup, hierarchies: &Hierarchies) -> Result<Cgroup, CgroupError> {
    if !group.folders().is_empty() {
        return Ok(group.clone());
    }
    Cgroup::of_process(hierarchies, std::process::id().cast_signed())
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound
    )
}

/// Applies limits. Device rules need root of the host; without it they are left to the kernel, which lets nobody else make
/// devices.
pub fn apply(group: &Cgroup, limits: &Limits, id: &str) -> Result<()> {
    if Privilege::own() == Privilege::Root {
        return limits::apply(group, limits, id);
    }
    let rest = Limits { devices: Vec::new(), ..limits.clone() };
    if !group.folders().is_empty() {
        return limits::apply(group, &rest, id);
    }
    if rest == Limits::default() {
        return Ok(());
    }
    Err(Error::Config {
        field: "linux.resources".into(),
        problem: "limits need cgroups, and this user may not make any here".into(),
    })
}
