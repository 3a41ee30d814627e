//! Attributes of the object behind a descriptor: owner, mode, times, extended attributes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Owner to set; `None` leaves the respective half as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// A time of a file: seconds since the epoch (may be negative) and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999 999 999.
    pub nanoseconds: u32,
}

/// The path by which calls that know no descriptors reach an `O_PATH` descriptor. The kernel jumps to the very object,
/// also when it is a symbolic link, and follows no further.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The names of the extended attributes of the object behind `fd`, which may be an `O_PATH` descriptor.
pub fn list_xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let path = proc_path(fd);
    loop {
        let size = match rustix::fs::listxattr_query(&path) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut list = vec![0u8; size];
        match rustix::fs::listxattr(&path, &mut list[..]) {
            // It grew between the two calls.
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno.into()),
            Ok(length) => {
                let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.map(|name| OsStr::from_bytes(name).to_os_string()).collect());
            }
        }
    }
}

/// The value of an extended attribute of the object behind `fd`, which may be an `O_PATH` descriptor.
pub fn get_xattr(fd: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(fd);
    loop {
        let size = match rustix::fs::getxattr_query(&path, name) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            other => other?,
        };
        let mut value = vec![0u8; size];
        match rustix::fs::getxattr(&path, name, &mut value[..]) {
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA) => return Ok(None),
            Err(errno) => return Err(errno.into()),
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
        }
    }
}

/// Sets an extended attribute of the object behind `fd`, which may be an `O_PATH` descriptor.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(proc_path(fd), name, value, XattrFlags::empty())?)
}

/// Sets owner and group of the object behind `fd`, which may be an `O_PATH` descriptor of a link.
pub fn set_owner(fd: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
    Ok(rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// Sets the permission bits of the object behind `fd`, which may be an `O_PATH` descriptor.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmod(proc_path(fd), Mode::from_raw_mode(mode))?)
}

/// Sets the times of access and of modification of the object behind `fd`, which may be an `O_PATH` descriptor.
pub fn set_times(fd: BorrowedFd<'_>, accessed: FileTime, modified: FileTime) -> io::Result<()> {
    let spec = |time: FileTime| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    let times = Timestamps { last_access: spec(accessed), last_modification: spec(modified) };
    Ok(rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)?)
}
