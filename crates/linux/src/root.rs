//! A root is a directory whose inside belongs to somebody else (a container, an archive): every path below it is
//! resolved by the kernel as if the root were `/`, so that neither `..` nor a symbolic link leads out.
//!
//! All resolution goes through openat2(2) with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: the check and the use are one
//! system call, and whoever swaps a directory for a symlink meanwhile only moves the result within the root.
//! Operations that change a name (create, remove, link …) resolve the parent that way and then act on one plain
//! component relative to its descriptor, never following a link in the last component.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

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
        // The very object that was examined, whatever has the name by now.
        match rustix::fs::open(proc_path(place.as_fd()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            // In a container without /proc the name must do: its own device rules hold there.
            Err(Errno::NOENT) => {
                let last = if links == Links::Keep { OFlags::NOFOLLOW } else { OFlags::empty() };
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | last;
                self.resolve("open", path, flags, Mode::empty()).map(File::from)
            }
            other => other.map(File::from).map_err(|errno| self.refused("open", path, errno)),
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

const DIRECTORY_ITSELF: OFlags =
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

/// The path by which calls that know no descriptors reach an `O_PATH` descriptor. The kernel jumps to the very object,
/// also when it is a symbolic link, and follows no further.
fn proc_path(fd: BorrowedFd<'_>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("gty-{}-root-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("inside")).expect("scratch folder");
            Scratch(path)
        }

        fn root(&self) -> Root {
            Root::open(self.0.join("inside")).expect("root")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn absolute_links_and_dot_dot_stay_beneath_the_root() {
        let scratch = Scratch::new("links");
        let root = scratch.root();
        std::fs::write(scratch.0.join("secret"), "outside").expect("write");
        root.symlink("/etc", "etc").expect("symlink");
        root.symlink("../../../secret", "up").expect("symlink");
        root.mkdir_all("etc", 0o755).expect_err("the link dangles inside the root");
        root.mkdir("real", 0o755).expect("mkdir");
        assert_eq!(root.open_file("up").expect_err("no such file inside").kind(), io::ErrorKind::NotFound);
        assert_eq!(root.open_file("../secret").expect_err("clamped").kind(), io::ErrorKind::NotFound);
        root.create_new("../../real/file", 0o600).expect("created inside").write_all(b"x").expect("write");
        assert!(scratch.0.join("inside/real/file").exists());
        assert!(!scratch.0.join("real").exists());
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        let scratch = Scratch::new("names");
        let root = scratch.root();
        for path in ["", "/", ".", "..", "a/.."] {
            assert!(matches!(root.mkdir(path, 0o755), Err(RootError::NoName { .. })), "{path:?}");
        }
    }

    #[test]
    fn create_follows_links_inside_and_refuses_fifos() {
        let scratch = Scratch::new("create");
        let root = scratch.root();
        root.mkdir_all("a/b", 0o755).expect("mkdir_all");
        root.symlink("/a/b/file", "link").expect("symlink");
        root.create("link", 0o644).expect("create").write_all(b"hello").expect("write");
        let mut text = String::new();
        root.open_file("a/b/file").expect("open").read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
        root.mknod("fifo", FileType::Fifo, 0o600, 0).expect("mkfifo");
        assert_eq!(root.create("fifo", 0o600).expect_err("a fifo").kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn deep_and_wide_trees_are_removed_without_following_links() {
        let scratch = Scratch::new("remove");
        let root = scratch.root();
        std::fs::create_dir(scratch.0.join("keep")).expect("mkdir");
        std::fs::write(scratch.0.join("keep/file"), "x").expect("write");
        let mut dir = root.mkdir_all("tree", 0o755).expect("mkdir");
        rustix::fs::symlinkat(scratch.0.join("keep"), &dir, "link").expect("symlink");
        for _ in 0..600 {
            rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).expect("mkdir");
            dir = rustix::fs::openat(&dir, "d", DIRECTORY_ITSELF, Mode::empty()).expect("open");
        }
        root.remove_all("tree").expect("remove_all");
        root.remove_all("tree").expect("nothing there is fine");
        assert!(!root.exists("tree"));
        assert!(scratch.0.join("keep/file").exists());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let scratch = Scratch::new("regular");
        let root = scratch.root();
        root.mknod("fifo", FileType::Fifo, 0o600, 0).expect("mkfifo");
        root.symlink("fifo", "link").expect("symlink");
        root.mkdir("folder", 0o755).expect("mkdir");
        for path in ["fifo", "link", "folder"] {
            assert_eq!(root.open_file(path).expect_err(path).kind(), io::ErrorKind::InvalidInput);
        }
    }

    /// Needs root: mounts in a mount namespace of its own.
    #[test]
    fn what_is_mounted_in_a_removed_tree_stays() {
        let scratch = Scratch::new("mounted");
        let (mine, theirs) = (scratch.0.join("inside/tree/deep/mine"), scratch.0.join("theirs"));
        std::fs::create_dir_all(&mine).expect("mkdir");
        std::fs::create_dir(&theirs).expect("mkdir");
        std::fs::write(theirs.join("file"), "x").expect("write");
        let outcome = std::thread::scope(|scope| {
            let removed = scope.spawn(|| {
                crate::namespace::unshare(crate::namespace::Namespaces::MOUNT).expect("needs root");
                let flags =
                    rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
                rustix::mount::mount_change("/", flags).expect("private mounts");
                rustix::mount::mount_bind(&theirs, &mine).expect("bind mount");
                scratch.root().remove_all("tree").expect_err("something is mounted").kind()
            });
            removed.join().expect("thread")
        });
        assert_eq!(outcome, io::ErrorKind::ResourceBusy);
        assert!(theirs.join("file").exists());
    }

    #[test]
    fn attributes_are_set_on_the_link_itself() {
        let scratch = Scratch::new("attributes");
        let root = scratch.root();
        root.symlink("nowhere", "link").expect("symlink");
        let time = FileTime { seconds: 1_000_000_000, nanoseconds: 5 };
        root.set_times("link", Links::Keep, (time, time)).expect("set times");
        let stat = root.stat("link", Links::Keep).expect("stat");
        assert_eq!(stat.st_mtime, 1_000_000_000);
        assert_eq!(root.readlink("link").expect("readlink"), Path::new("nowhere"));
        root.create_new("file", 0o600).expect("create");
        let name = OsStr::new("user.gantry");
        assert_eq!(root.get_xattr("file", Links::Keep, name).expect("get"), None);
        root.set_xattr("file", Links::Keep, name, b"value").expect("set");
        assert_eq!(root.get_xattr("file", Links::Keep, name).expect("get").as_deref(), Some(&b"value"[..]));
        assert!(root.list_xattrs("file", Links::Keep).expect("list").contains(&name.to_os_string()));
    }
}
