//! Network namespaces: make one and keep it by a bind mount, open one by path or process, run code inside one.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::io;
use std::path::{Path, PathBuf};

/// `NSFS_MAGIC` of statfs(2).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What went wrong with a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step on a path failed.
    #[error("{act} network namespace {path}")]
    Path {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A step without a path failed.
    #[error("{act} network namespace")]
    Step {
        /// What was tried.
        act: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The path is a plain file: the namespace is gone (the machine was restarted).
    #[error("{path} is no network namespace")]
    NotNamespace {
        /// Where.
        path: PathBuf,
    },
}

/// An open network namespace. It lives at least as long as this descriptor.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, Error> {
        Self::open_file(Path::new("/proc/thread-self/ns/net"))
    }

    /// A process's namespace.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        Self::open_file(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// Opens the namespace that is bound to a path.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_file(path)
    }

    fn open_file(path: &Path) -> Result<Self, Error> {
        let fail = |source: rustix::io::Errno| Error::Path {
            act: "open",
            path: path.to_owned(),
            source: source.into(),
        };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        let kind = rustix::fs::fstatfs(&fd).map_err(fail)?.f_type;
        if kind != NSFS_MAGIC {
            return Err(Error::NotNamespace { path: path.to_owned() });
        }
        Ok(Self { fd })
    }

    /// Makes a namespace without a name.
    pub fn anonymous() -> Result<Self, Error> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare_network()?;
                    Self::current()
                })
                .join()
                .unwrap_or_else(|_| Err(step("unshare")(io::Error::other("the helper thread panicked"))))
        })
    }

    /// Makes a namespace and binds it to `path`, which is made as an empty file and must not be a namespace already. `inside`
    /// runs in it on the thread that made it, which saves entering it once more.
    pub fn create<T: Send>(path: &Path, inside: impl FnOnce() -> T + Send) -> Result<(Self, T), Error> {
        let fail = |act| {
            move |source: rustix::io::Errno| Error::Path { act, path: path.to_owned(), source: source.into() }
        };
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        drop(rustix::fs::open(path, flags, Mode::RUSR).map_err(fail("make the mount point of"))?);
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare_network()?;
                    let netns = Self::current()?;
                    rustix::mount::mount("/proc/thread-self/ns/net", path, "none", MountFlags::BIND, None)
                        .map_err(fail("bind"))?;
                    Ok((netns, inside()))
                })
                .join()
                .unwrap_or_else(|_| Err(step("create")(io::Error::other("the helper thread panicked"))))
        })
    }

    /// Runs `f` in this namespace, on a thread of its own that ends afterwards: the caller's threads never change theirs.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(f())
                })
                .join()
                .unwrap_or_else(|_| Err(step("run in")(io::Error::other("the thread inside panicked"))))
        })
    }

    /// Moves the calling thread into this namespace for good. For threads that the caller owns.
    pub fn enter(&self) -> Result<(), Error> {
        use rustix::fd::AsRawFd;
        // SAFETY: setns(2) takes a descriptor, which `self` keeps open, and changes only the calling thread's network
        // namespace; no memory is involved.
        let result = unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) };
        if result == 0 { Ok(()) } else { Err(step("enter")(io::Error::last_os_error())) }
    }

    /// Device and inode: equal for equal namespaces.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|errno| step("stat")(errno.into()))?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// Takes away the bind mount and the file; the namespace ends when nothing else holds it. What is gone already is no error.
pub fn delete(path: &Path) -> Result<(), Error> {
    let fail = |act| {
        move |source: rustix::io::Errno| Error::Path { act, path: path.to_owned(), source: source.into() }
    };
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Mounts may lie over each other when a creation was interrupted and repeated.
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
            Err(errno) => return Err(fail("unmount")(errno)),
        }
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(fail("remove the mount point of")(errno)),
    }
}

/// Gives the calling thread a new network namespace. For threads that the caller owns.
pub fn unshare_network() -> Result<(), Error> {
    // SAFETY: unshare(2) with CLONE_NEWNET changes only the calling thread's network namespace; no memory is involved.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(step("unshare")(io::Error::last_os_error())) }
}

fn step(act: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Step { act, source }
}
