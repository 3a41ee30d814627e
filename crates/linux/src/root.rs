//! A root is a directory whose inside belongs to somebody else (a container, an archive): every path below it is
//! resolved by the kernel as if the root were `/`, so that neither `..` nor a symbolic link leads out.
//!
//! All resolution goes through openat2(2) with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: the check and the use are one
//! system call, and whoever swaps a directory for a symlink meanwhile only moves the result within the root.
//! Operations that change a name (create, remove, link …) resolve the parent that way and then act on one plain
//! component relative to its descriptor, never following a link in the last component.

mod attributes;
mod place;
mod removal;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use attributes::proc_path;
pub use attributes::{FileTime, Owner, get_xattr, list_xattrs, set_mode, set_owner, set_times, set_xattr};
pub use place::Missing;
pub use removal::remove_tree_at;

/// An operation beneath a root that failed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The kernel refused the operation.
    #[error("{act} {} beneath {}", path.display(), root.display())]
    Refused {
        /// What was tried ("open", "create directory" …).
        act: &'static str,
        /// The path beneath the root.
        path: PathBuf,
        /// The root, as the host names it.
        root: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The path has no last component that could be created or removed (it is empty, or ends in `..`).
    #[error("{act} {} beneath {}: the path names no entry", path.display(), root.display())]
    NoName {
        /// What was tried.
        act: &'static str,
        /// The path beneath the root.
        path: PathBuf,
        /// The root, as the host names it.
        root: PathBuf,
    },
}

impl RootError {
    /// The kind of the kernel's answer; [`io::ErrorKind::InvalidInput`] for a path without a name.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            RootError::Refused { source, .. } => source.kind(),
            RootError::NoName { .. } => io::ErrorKind::InvalidInput,
        }
    }

    /// The error number of the kernel's answer.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            RootError::Refused { source, .. } => source.raw_os_error(),
            RootError::NoName { .. } => None,
        }
    }
}

impl From<RootError> for io::Error {
    fn from(error: RootError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// Result of an operation beneath a root.
pub type Result<T> = std::result::Result<T, RootError>;

/// Whether a link in the last component of a path is followed (within the root) or is itself the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Follow it, as open(2) does.
    Follow,
    /// The link itself is meant, as with lstat(2).
    Keep,
}

/// A directory that is the root of all paths given to it; see the module text.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// How often a resolution is repeated when the tree moves under it (openat2(2), EAGAIN) before it is given up.
const RACE_RETRIES: usize = 128;

impl Root {
    /// Opens `path` (a host path, trusted, links followed) as a root. Fails if it is not a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| RootError::Refused {
            act: "open root",
            path: PathBuf::from("/"),
            root: path.to_path_buf(),
            source: errno.into(),
        })?;
        Ok(Root { fd, path: path.to_path_buf() })
    }

    /// Makes a root of an open directory; `path` is only its name in error messages.
    pub fn from_fd(fd: OwnedFd, path: impl Into<PathBuf>) -> Root {
        Root { fd, path: path.into() }
    }

    /// A second handle on the same root.
    pub fn try_clone(&self) -> Result<Root> {
        let fd = self.fd.try_clone().map_err(|source| self.refused("duplicate", Path::new("/"), source))?;
        Ok(Root { fd, path: self.path.clone() })
    }

    /// The root beneath this root at `path` (followed within this root).
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        let fd = self.resolve("open root", path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Root { fd, path: self.path.join(strip_root(path)) })
    }

    /// The name the host gives to the root, as passed when it was opened. For messages; do not join paths to it.
    pub fn host_path(&self) -> &Path {
        &self.path
    }

    fn refused(&self, act: &'static str, path: &Path, source: impl Into<io::Error>) -> RootError {
        RootError::Refused { act, path: path.to_path_buf(), root: self.path.clone(), source: source.into() }
    }

    fn resolve(&self, act: &'static str, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let mut tries = 0;
        loop {
            match open_in_root(self.fd.as_fd(), path, flags, mode) {
                // A rename somewhere in the system raced the walk over `..`; the manual says to try again.
                Err(Errno::AGAIN) if tries < RACE_RETRIES => tries += 1,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.refused(act, path, errno)),
                Ok(fd) => return Ok(fd),
            }
        }
    }

    /// Opens with the given flags; links are followed within the root unless `OFlags::NOFOLLOW` is among the flags.
    /// `mode` is used when the flags create.
    pub fn open_with(&self, path: impl AsRef<Path>, flags: OFlags, mode: u32) -> Result<OwnedFd> {
        self.resolve("open", path.as_ref(), flags, Mode::from_raw_mode(mode))
    }

    /// Opens a regular file for reading. Anything else is refused (EINVAL) without being opened: to open a device may
    /// already do something, such as start a watchdog.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_regular(path.as_ref(), Links::Follow)
    }

    /// As [`Root::open_file`], with a choice about a link in the last component.
    pub fn open_regular(&self, path: &Path, links: Links) -> Result<File> {
        let place = self.open_path(path, links)?;
        let stat = rustix::fs::fstat(&place).map_err(|errno| self.refused("stat", path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refused("open", path, Errno::INVAL));
        }
        // The very object that was examined, whatever has the name by now. In a container whose /proc is a folder of its
        // image the path leads anywhere: to a fifo that nobody writes to, or to another file.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(proc_path(place.as_fd()), flags, Mode::empty()) {
            Ok(file) => {
                let opened = rustix::fs::fstat(&file).map_err(|errno| self.refused("stat", path, errno))?;
                if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(self.refused("open", path, Errno::XDEV));
                }
                Ok(File::from(file))
            }
            // In a container without /proc the name must do: its own device rules hold there.
            Err(Errno::NOENT) => {
                let last = if links == Links::Keep { OFlags::NOFOLLOW } else { OFlags::empty() };
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | last;
                self.resolve("open", path, flags, Mode::empty()).map(File::from)
            }
            Err(errno) => Err(self.refused("open", path, errno)),
        }
    }

    /// Opens a directory for listing and for operations relative to it.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.resolve("open directory", path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// A descriptor that stands for the object and gives no access to its content (`O_PATH`).
    pub fn open_path(&self, path: impl AsRef<Path>, links: Links) -> Result<OwnedFd> {
        let flags = if links == Links::Keep { OFlags::PATH | OFlags::NOFOLLOW } else { OFlags::PATH };
        self.resolve("open", path.as_ref(), flags, Mode::empty())
    }

    /// Creates a file that must not exist yet, open for reading and writing.
    pub fn create_new(&self, path: impl AsRef<Path>, mode: u32) -> Result<File> {
        let path = path.as_ref();
        let (dir, name) = self.parent("create", path)?;
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, &name, flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(|errno| self.refused("create", path, errno))
    }

    /// Creates a file, or empties the existing regular one (links are followed within the root), open for reading and
    /// writing. An existing fifo or device is refused, not opened.
    pub fn create(&self, path: impl AsRef<Path>, mode: u32) -> Result<File> {
        let path = path.as_ref();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.resolve("create", path, flags, Mode::from_raw_mode(mode))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.refused("stat", path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refused("create", path, Errno::EXIST));
        }
        rustix::fs::ftruncate(&fd, 0).map_err(|errno| self.refused("truncate", path, errno))?;
        Ok(File::from(fd))
    }

    /// The descriptor of the directory that holds `path`, and the last component's name. The parents are resolved
    /// within the root; the name is one plain component, so `*at` calls with the two are safe.
    pub fn parent_of(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        self.parent("open parent of", path.as_ref())
    }

    fn parent(&self, act: &'static str, path: &Path) -> Result<(OwnedFd, OsString)> {
        let no_name = || RootError::NoName { act, path: path.to_path_buf(), root: self.path.clone() };
        let Some(Component::Normal(name)) = path.components().next_back() else { return Err(no_name()) };
        let parent = path.parent().ok_or_else(no_name)?;
        let dir = self.resolve(act, parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok((dir, name.to_os_string()))
    }

    /// Creates one directory.
    pub fn mkdir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent("create directory", path)?;
        rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(mode))
            .map_err(|errno| self.refused("create directory", path, errno))
    }

    /// Creates a directory and the missing ones above it, each with `mode` (less the umask), and opens it. Directories
    /// that are there stay as they are; links to directories within the root are followed.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        if let Some(parent) = path.parent()
            && !parent.as_os_str().is_empty()
        {
            self.mkdir_all(parent, mode)?;
        }
        match self.mkdir(path, mode) {
            // Somebody else may have been faster; the open below says if it is a directory.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.open_dir(path)
    }

    /// Creates a symbolic link with the given content.
    pub fn symlink(&self, target: impl AsRef<OsStr>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent("create symbolic link", path)?;
        rustix::fs::symlinkat(target.as_ref(), &dir, &name)
            .map_err(|errno| self.refused("create symbolic link", path, errno))
    }

    /// Creates a second name for an existing object; both beneath this root. A symbolic link is linked itself.
    pub fn hardlink(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (from_dir, from_name) = self.parent("link", existing.as_ref())?;
        let (to_dir, to_name) = self.parent("link", path)?;
        rustix::fs::linkat(&from_dir, &from_name, &to_dir, &to_name, AtFlags::empty())
            .map_err(|errno| self.refused("link", path, errno))
    }

    /// Moves an object; both names beneath this root.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let to = to.as_ref();
        let (from_dir, from_name) = self.parent("rename", from.as_ref())?;
        let (to_dir, to_name) = self.parent("rename", to)?;
        rustix::fs::renameat(&from_dir, &from_name, &to_dir, &to_name)
            .map_err(|errno| self.refused("rename", to, errno))
    }

    /// Creates a device node, fifo, socket or empty file. `device` counts for devices only. Needs CAP_MKNOD for
    /// devices other than the overlay whiteout (character 0:0).
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileType, mode: u32, device: u64) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent("create node", path)?;
        rustix::fs::mknodat(&dir, &name, kind, Mode::from_raw_mode(mode), device)
            .map_err(|errno| self.refused("create node", path, errno))
    }

    /// Removes one name that is not a directory.
    pub fn unlink(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent("remove", path)?;
        rustix::fs::unlinkat(&dir, &name, AtFlags::empty())
            .map_err(|errno| self.refused("remove", path, errno))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent("remove directory", path)?;
        rustix::fs::unlinkat(&dir, &name, AtFlags::REMOVEDIR)
            .map_err(|errno| self.refused("remove directory", path, errno))
    }

    /// Removes whatever is at `path`, a whole tree if it is a directory; nothing there is fine. Links are removed, not
    /// followed, and other file systems that are mounted inside are refused (EBUSY).
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = match self.parent("remove", path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        remove_tree_at(dir.as_fd(), &name).map_err(|source| self.refused("remove", path, source))
    }

    /// The content of a symbolic link.
    pub fn readlink(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let (dir, name) = self.parent("read link", path)?;
        let target = rustix::fs::readlinkat(&dir, &name, Vec::new())
            .map_err(|errno| self.refused("read link", path, errno))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The attributes of an object.
    pub fn stat(&self, path: impl AsRef<Path>, links: Links) -> Result<Stat> {
        let path = path.as_ref();
        let fd = self.open_path(path, links)?;
        rustix::fs::fstat(&fd).map_err(|errno| self.refused("stat", path, errno))
    }

    /// Whether anything has this name (a dangling link counts).
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.open_path(path, Links::Keep).is_ok()
    }

    /// The names in a directory, without `.` and `..`, sorted by bytes.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>> {
        let path = path.as_ref();
        let fd = self.open_dir(path)?;
        list_dir(fd.as_fd()).map_err(|source| self.refused("list", path, source))
    }

    /// The names of the extended attributes of an object.
    pub fn list_xattrs(&self, path: impl AsRef<Path>, links: Links) -> Result<Vec<OsString>> {
        let path = path.as_ref();
        let fd = self.open_path(path, links)?;
        list_xattrs(fd.as_fd()).map_err(|source| self.refused("list extended attributes of", path, source))
    }

    /// The value of one extended attribute; `None` if the object has no such attribute.
    pub fn get_xattr(&self, path: impl AsRef<Path>, links: Links, name: &OsStr) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let fd = self.open_path(path, links)?;
        get_xattr(fd.as_fd(), name).map_err(|source| self.refused("read extended attribute of", path, source))
    }

    /// Sets one extended attribute.
    pub fn set_xattr(&self, path: impl AsRef<Path>, links: Links, name: &OsStr, value: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let fd = self.open_path(path, links)?;
        set_xattr(fd.as_fd(), name, value)
            .map_err(|source| self.refused("set extended attribute of", path, source))
    }

    /// Sets owner and group. The kernel clears set-user-id bits with it: set the mode afterwards.
    pub fn chown(&self, path: impl AsRef<Path>, links: Links, owner: Owner) -> Result<()> {
        let path = path.as_ref();
        let fd = self.open_path(path, links)?;
        set_owner(fd.as_fd(), owner).map_err(|source| self.refused("change owner of", path, source))
    }

    /// Sets the permission bits of what `path` leads to (links are followed; a link has no mode of its own).
    pub fn chmod(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let fd = self.open_path(path, Links::Follow)?;
        set_mode(fd.as_fd(), mode).map_err(|source| self.refused("change mode of", path, source))
    }

    /// Sets the times of access and of modification.
    pub fn set_times(&self, path: impl AsRef<Path>, links: Links, times: (FileTime, FileTime)) -> Result<()> {
        let path = path.as_ref();
        let fd = self.open_path(path, links)?;
        set_times(fd.as_fd(), times.0, times.1).map_err(|source| self.refused("set times of", path, source))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn strip_root(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

/// One openat2(2) within `root`. The empty path is the root itself.
fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // openat2 refuses a mode when nothing is created, unlike openat.
    let mode = if flags.intersects(OFlags::CREATE | OFlags::TMPFILE) { mode } else { Mode::empty() };
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve)
}

/// The names in an open directory, without `.` and `..`, sorted by bytes.
pub fn list_dir(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_os_string());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
