//! What a container of an ordinary user gets in place of what only root may have: for now its cgroup.

use std::io;

use gantry_linux::cgroup::{Cgroup, CgroupError, Limits};

use crate::{
    error::{Error, Result},
    limits,
};

/// The container's group when the caller may make it; none, to which nothing is written, for the container of an ordinary
/// user to whom no group was delegated.
pub fn usable(group: Cgroup) -> Result<Cgroup, CgroupError> {
    if rustix::process::geteuid().is_root() {
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

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound
    )
}

/// Applies limits. Device rules without a group are left to the kernel, which lets an ordinary user make no devices.
pub fn apply(group: &Cgroup, limits: &Limits, id: &str) -> Result<()> {
    if !group.folders().is_empty() {
        return limits::apply(group, limits, id);
    }
    let rest = Limits { devices: Vec::new(), ..limits.clone() };
    if rest == Limits::default() {
        return Ok(());
    }
    Err(Error::Config {
        field: "linux.resources".into(),
        problem: "limits need cgroups, and this user may not make any here".into(),
    })
}
