//! Kernel namespaces: which there are, joining and leaving them, and the id maps of user namespaces.
//!
//! The caller of [`join`] and [`unshare`] must be single-threaded, or accept that only its own thread moves.

use std::{
    fs, io,
    ops::{BitOr, BitOrAssign},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

/// A set of kinds of namespaces, with the numbers of clone(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces(u32);

impl Namespaces {
    /// None.
    pub const EMPTY: Namespaces = Namespaces(0);
    /// Mounts.
    pub const MOUNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u32);
    /// Root of the cgroup tree.
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u32);
    /// Host and domain name.
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u32);
    /// System V IPC and POSIX message queues.
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u32);
    /// User and group ids.
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u32);
    /// Process ids.
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u32);
    /// Network.
    pub const NETWORK: Namespaces = Namespaces(libc::CLONE_NEWNET as u32);
    /// Clocks.
    pub const TIME: Namespaces = Namespaces(libc::CLONE_NEWTIME as u32);

    /// Whether every member of `other` is in it.
    pub fn contains(self, other: Namespaces) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has no member.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Without the members of `other`.
    #[must_use]
    pub fn without(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 & !other.0)
    }

    /// The flags of clone(2).
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Name of a single kind under /proc/PID/ns.
    pub fn file_name(self) -> Option<&'static str> {
        Some(match self {
            Namespaces::MOUNT => "mnt",
            Namespaces::CGROUP => "cgroup",
            Namespaces::UTS => "uts",
            Namespaces::IPC => "ipc",
            Namespaces::USER => "user",
            Namespaces::PID => "pid",
            Namespaces::NETWORK => "net",
            Namespaces::TIME => "time",
            _ => return None,
        })
    }
}

impl BitOr for Namespaces {
    type Output = Namespaces;

    fn bitor(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }
}

impl BitOrAssign for Namespaces {
    fn bitor_assign(&mut self, other: Namespaces) {
        self.0 |= other.0;
    }
}

/// Opens a namespace by its path, such as `/proc/PID/ns/net` or a bind mount of one.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    // A path that is something else must not keep the caller waiting, nor become its terminal.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a namespace of a process.
pub fn of_process(pid: i32, kind: Namespaces) -> io::Result<OwnedFd> {
    let name = kind.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    open(Path::new(&format!("/proc/{pid}/ns/{name}")))
}

/// Of which kind the namespace behind a descriptor is (NS_GET_NSTYPE of ioctl_nsfs(2)); an error when it is none.
pub fn kind_of(fd: impl AsFd) -> io::Result<Namespaces> {
    // SAFETY: the request takes no argument and only answers a number.
    let kind = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(Namespaces(kind.cast_unsigned())) }
}

/// Whether two descriptors are of the same namespace.
pub fn are_same(a: impl AsFd, b: impl AsFd) -> io::Result<bool> {
    let identity =
        |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    Ok(identity(a.as_fd())? == identity(b.as_fd())?)
}

/// Joins the namespace behind `fd`, or with a pidfd those kinds of that process (setns(2)).
///
/// The pid namespace takes effect for later children only.
pub fn join(fd: impl AsFd, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, open through the borrow, and a number.
    let result = unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds.0.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the caller into new namespaces (unshare(2)).
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: unshare with only CLONE_NEW* flags changes no descriptor table and no memory of ours.
    let result = unsafe { libc::unshare(kinds.0.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Inode number of a namespace of a process; two processes share it when the numbers are equal.
pub fn inode(pid: i32, kind: Namespaces) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let name = kind.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(fs::metadata(format!("/proc/{pid}/ns/{name}"))?.ino())
}

/// A range of ids: first inside, first outside, count.
pub type IdRange = (u32, u32, u32);

/// Forbids setgroups(2) in the user namespace of a process, without which nobody but a privileged process may write its
/// group map (user_namespaces(7)).
pub fn deny_setgroups(pid: i32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/setgroups"), "deny")
}

/// Writes the id maps of the user namespace of a process, from outside.
pub fn write_id_maps(pid: i32, uids: &[IdRange], gids: &[IdRange]) -> io::Result<()> {
    let text = |ranges: &[IdRange]| -> String {
        ranges.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
    };
    fs::write(format!("/proc/{pid}/uid_map"), text(uids))?;
    fs::write(format!("/proc/{pid}/gid_map"), text(gids))
}
