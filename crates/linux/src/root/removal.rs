//! Removal of whole trees whose content belongs to somebody else: no link is followed, no mount is entered, no depth is too much.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::list_dir;

/// Removes the object `name` in `dir`, a whole tree if it is a directory. Nothing there is fine; links are removed, not
/// followed; directories without permissions are made accessible first (matters without CAP_DAC_OVERRIDE only).
pub fn remove_tree_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR for a directory; POSIX allows EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    empty_tree(dir, name)?;
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// How many directories deep the removal descends before it moves the rest up; bounds stack and descriptors.
const REMOVE_DEPTH: usize = 128;

/// Empties the directory `name` in `dir`.
fn empty_tree(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let top = open_to_empty(dir, name)?;
    let mut moved = 0;
    // Once is enough unless subtrees were moved up to here.
    while !list_dir(top.as_fd())?.is_empty() {
        empty_directory(top.as_fd(), top.as_fd(), 0, &mut moved)?;
    }
    Ok(())
}

/// Opens a directory whose content will be removed. What is mounted there belongs to somebody else and is not entered,
/// also when it is a bind mount of the same file system, which no device number would tell.
fn open_to_empty(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    loop {
        match rustix::fs::openat2(dir, name, DIRECTORY_ITSELF, Mode::empty(), resolve) {
            // As the removal of the mount point itself would answer.
            Err(Errno::XDEV) => return Err(Errno::BUSY.into()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

pub(super) const DIRECTORY_ITSELF: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn empty_directory(
    dir: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> io::Result<()> {
    for name in list_dir(dir)? {
        match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        if depth == REMOVE_DEPTH {
            move_up(dir, &name, top, moved)?;
            continue;
        }
        let child = open_to_empty(dir, &name)?;
        empty_directory(child.as_fd(), top, depth + 1, moved)?;
        drop(child);
        rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Moves a directory that lies too deep right below the top, where a later pass finds it.
fn move_up(dir: BorrowedFd<'_>, name: &OsStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!(".deep-{moved}");
        match rustix::fs::renameat(dir, name, top, &target) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
