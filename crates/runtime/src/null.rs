//! The null device as a container may have it: the host's own, seen through a read-only mount.
//!
//! The host's node belongs to root, and so does a container without a user namespace: through a descriptor or a bind
//! mount that can be written to it could give `/dev/null` of the whole machine another mode or owner. A read-only mount
//! refuses that and still lets the device be read and written.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use gantry_linux::{
    mount::{Attributes, Depth, Detached},
    process,
    root::{Links, Root},
};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::{
    error::{Act, Error, Result},
    privilege::Privilege,
};

/// Whether it is the null device.
pub fn is_null(stat: &Stat) -> bool {
    // The numbers are those of Documentation/admin-guide/devices.txt.
    FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == rustix::fs::makedev(1, 3)
}

/// The host's /dev/null, verified (CVE-2025-31133), to be cloned by [`cloned`].
pub fn of_host() -> Result<OwnedFd> {
    let words = || "open the host's /dev/null".to_owned();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).act(words)?;
    if !is_null(&rustix::fs::fstat(&null).act(words)?) {
        return Err(Error::Config {
            field: "host".into(),
            problem: "/dev/null is not the null device".into(),
        });
    }
    Ok(null)
}

/// A read-only mount of it.
pub fn cloned(null: impl AsFd) -> Result<Detached> {
    let words = || "make a read-only mount of /dev/null".to_owned();
    let tree = Detached::bind_fd(null.as_fd(), Depth::This, Path::new("/dev/null")).act(words)?;
    tree.set(Depth::This, Attributes::read_only()).act(words)?;
    Ok(tree)
}

/// Opens it for the standard streams of a container.
pub fn open(access: OFlags) -> Result<OwnedFd> {
    let tree = cloned(of_host()?)?;
    let path = format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd());
    rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty()).act(|| "open /dev/null".to_owned())
}

/// Replaces standard descriptors of this process that are the null device, before a container inherits them.
pub fn shield_stdio() -> Result<()> {
    if Privilege::own() == Privilege::User {
        // An ordinary user's container has no right over it that could be misused.
        return Ok(());
    }
    let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for (number, fd) in (0..).zip(stdio) {
        let words = || format!("replace descriptor {number}");
        // One that is closed stays so.
        if !rustix::fs::fstat(fd).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        let access = rustix::fs::fcntl_getfl(fd).act(words)? & OFlags::ACCMODE;
        process::place_fd(open(access)?.as_fd(), number).act(words)?;
    }
    Ok(())
}

/// Replaces standard descriptors of this process that are the null device by the container's own, where it has one. It is
/// called in the container's root, with the host's /proc.
///
/// A program may look for what its descriptors lie on, and criu does: the host's device lies on no mount of the container.
pub fn adopt(proc: BorrowedFd<'_>) -> Result<()> {
    let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut own = None;
    for (number, fd) in (0..).zip(stdio) {
        if !rustix::fs::fstat(fd).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        let words = || format!("replace descriptor {number}");
        let Some(own) = own.get_or_insert_with(of_container) else { return Ok(()) };
        let access = rustix::fs::fcntl_getfl(fd).act(words)? & OFlags::ACCMODE;
        let path = format!("self/fd/{}", own.as_raw_fd());
        // Where its mount or the container's device rules forbid it, the host's stays.
        if let Ok(opened) = rustix::fs::openat(proc, path, access | OFlags::CLOEXEC, Mode::empty()) {
            process::place_fd(opened.as_fd(), number).act(words)?;
        }
    }
    Ok(())
}

/// The null device of the root that this process is in; not what a link of that name leads to.
fn of_container() -> Option<OwnedFd> {
    let null = Root::open("/").ok()?.open_path("/dev/null", Links::Keep).ok()?;
    rustix::fs::fstat(&null).is_ok_and(|stat| is_null(&stat)).then_some(null)
}
