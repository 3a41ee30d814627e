//! Unpacking makes the file tree that a tarball describes, beneath a root and nowhere else.
//!
//! Parents are resolved by the kernel within the root ([`gantry_linux::root`]), the last component is always created
//! anew and never followed, so that no order of links and files in an archive writes outside. The caller unpacks into a
//! fresh folder and renames it when all is there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use gantry_linux::root::{self, FileTime, Owner, Root, RootError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::tarball::{Entry, Kind, TarError, TarReader};

/// Prefix of a file that hides the file of that name in the layers below (OCI image specification, layer).
pub const WHITEOUT: &[u8] = b".wh.";
/// The file that hides everything its folder has in the layers below.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// The attribute by which overlayfs knows an opaque folder.
pub const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// Bounds on what one archive may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most entries.
    pub entries: u64,
    /// The most bytes of file content.
    pub bytes: u64,
    /// How many times larger than its compressed form an archive may be, once it is larger than
    /// [`Limits::RATIO_FLOOR`].
    pub ratio: u64,
}

impl Limits {
    /// Below this size nobody is harmed by an archive that compresses well.
    pub const RATIO_FLOOR: u64 = 2 * 1024 * 1024 * 1024;

    /// Whether so many bytes out of so many packed ones are more than an honest archive has.
    pub fn is_bomb(&self, expanded: u64, packed: u64) -> bool {
        expanded > Limits::RATIO_FLOOR && expanded / self.ratio.max(1) > packed
    }
}

impl Default for Limits {
    /// Larger than any image known to be in use: 5 million entries, 512 GiB, 250 times the compressed size.
    fn default() -> Limits {
        Limits { entries: 5_000_000, bytes: 512 << 30, ratio: 250 }
    }
}

/// What names with the whiteout prefix mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They hide what is below, as overlayfs writes it: character device 0:0, opaque attribute.
    Overlay,
    /// They are plain files.
    Literal,
}

/// What happens to an object that has the name of an entry already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It makes way, a whole tree if need be; only two directories are merged.
    Any,
    /// It makes way, but a directory is never replaced by something else nor the other way round.
    SameKind,
}

/// How to unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// What whiteouts mean.
    pub whiteouts: Whiteouts,
    /// What happens to what is there.
    pub replace: Replace,
    /// Owner and group of everything, in place of what the archive says.
    pub owner: Option<(u32, u32)>,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// An archive that can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive can't be read.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// An entry would be outside.
    #[error("archive entry {:?} leads out of the root", String::from_utf8_lossy(.0))]
    Escapes(Vec<u8>),
    /// A whiteout that hides nothing that could be named.
    #[error("archive entry {0:?} is a whiteout of no file")]
    Whiteout(PathBuf),
    /// A directory in the way of something else.
    #[error("cannot overwrite directory \"{}\" with non-directory \"{}\"", .0.display(), .0.display())]
    DirectoryInTheWay(PathBuf),
    /// Something else in the way of a directory.
    #[error("cannot overwrite non-directory \"{}\" with directory \"{}\"", .0.display(), .0.display())]
    NoDirectoryInTheWay(PathBuf),
    /// More entries than allowed.
    #[error("archive has more than {0} entries")]
    TooManyEntries(u64),
    /// More bytes than allowed.
    #[error("archive expands to more than {0} bytes")]
    TooManyBytes(u64),
    /// A second name of what the archive has not brought before. What is in layers below does not count: each layer is
    /// unpacked by itself.
    #[error("hard link {} to {}, which this archive has not brought before it", path.display(), target.display())]
    NoLinkTarget {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// The kernel refused.
    #[error("{act} {}", path.display())]
    Refused {
        /// What was tried.
        act: &'static str,
        /// On which entry.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused beneath the root.
    #[error(transparent)]
    Root(#[from] RootError),
}

type Result<T> = std::result::Result<T, UnpackError>;

fn refused<E: Into<io::Error>>(act: &'static str, path: &Path) -> impl FnOnce(E) -> UnpackError {
    move |source| UnpackError::Refused { act, path: path.to_path_buf(), source: source.into() }
}

/// Unpacks a whole archive beneath `root`. Owners, devices, overlay whiteouts and trusted attributes need root.
pub fn unpack<R: BufRead>(
    archive: &mut TarReader<R>,
    root: Root,
    limits: &Limits,
    whiteouts: Whiteouts,
) -> Result<Unpacked> {
    unpack_with(archive, root, &Options { limits: *limits, whiteouts, replace: Replace::Any, owner: None })
}

/// Unpacks a whole archive beneath `root`, as the options say; the root may have content already (`docker cp`).
pub fn unpack_with<R: BufRead>(
    archive: &mut TarReader<R>,
    root: Root,
    options: &Options,
) -> Result<Unpacked> {
    let limits = &options.limits;
    let mut unpacker = Unpacker {
        root,
        limits,
        whiteouts: options.whiteouts,
        replace: options.replace,
        folders: HashMap::new(),
        times: BTreeMap::new(),
        done: Unpacked::default(),
    };
    while let Some(mut entry) = archive.next_entry()? {
        unpacker.done.entries += 1;
        if let Some((uid, gid)) = options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if unpacker.done.entries > limits.entries {
            return Err(UnpackError::TooManyEntries(limits.entries));
        }
        unpacker.place(&entry, archive)?;
    }
    unpacker.set_folder_times()?;
    Ok(unpacker.done)
}

/// Descriptors of folders that are kept open; archives list a folder's files one after the other.
const OPEN_FOLDERS: usize = 128;

struct Unpacker<'a> {
    root: Root,
    limits: &'a Limits,
    whiteouts: Whiteouts,
    replace: Replace,
    folders: HashMap<PathBuf, Rc<OwnedFd>>,
    /// Times of folders, set at the end: making files in them changes them.
    times: BTreeMap<PathBuf, FileTime>,
    done: Unpacked,
}

/// What stood in the way of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Former {
    Removed,
    Whiteout,
    Directory,
}

impl Unpacker<'_> {
    fn place<R: BufRead>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> Result<()> {
        let path = clean(&entry.path)?;
        let Some(name) = path.file_name() else {
            // "./": the root's own attributes.
            return if entry.kind == Kind::Directory { self.describe_root(entry) } else { Ok(()) };
        };
        let parent = self.folder(path.parent().unwrap_or(Path::new("")))?;
        if self.whiteouts == Whiteouts::Overlay && name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(parent.as_fd(), name, &path);
        }
        let at = Place { parent: parent.as_fd(), name, path: &path };
        match entry.kind {
            Kind::Directory => self.directory(at, entry),
            Kind::File => self.file(at, entry, archive),
            Kind::HardLink => self.hard_link(at, entry),
            Kind::Symlink => self.symlink(at, entry),
            Kind::CharDevice => self.node(at, entry, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(at, entry, FileType::BlockDevice),
            Kind::Fifo => self.node(at, entry, FileType::Fifo),
        }
    }

    /// The open folder at `path`, made with mode 755 if the archive did not mention it.
    fn folder(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.folders.get(path) {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.root.open_dir(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                let Some(name) = path.file_name() else { return Err(error.into()) };
                let parent = self.folder(path.parent().unwrap_or(Path::new("")))?;
                self.missing_folder(Place { parent: parent.as_fd(), name, path })?;
                self.root.open_dir(path)?
            }
            other => other?,
        };
        Ok(self.keep_open(path, fd))
    }

    fn keep_open(&mut self, path: &Path, fd: OwnedFd) -> Rc<OwnedFd> {
        if self.folders.len() >= OPEN_FOLDERS {
            self.folders.clear();
        }
        let fd = Rc::new(fd);
        self.folders.insert(path.to_path_buf(), Rc::clone(&fd));
        fd
    }

    fn missing_folder(&mut self, at: Place<'_>) -> Result<()> {
        let hidden = match at.mkdir() {
            Err(Errno::EXIST) if self.is_whiteout(at) => {
                self.make_way(at, Kind::Directory)?;
                at.mkdir().map_err(refused("create directory", at.path))?;
                true
            }
            // A link that leads nowhere, or a file: the caller's open says it.
            Err(Errno::EXIST) => return Ok(()),
            other => {
                other.map_err(refused("create directory", at.path))?;
                false
            }
        };
        let fd = at.open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(refused("open directory", at.path))?;
        // The umask may have taken bits away.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(refused("change mode of", at.path))?;
        if hidden { set_opaque(fd.as_fd(), at.path) } else { Ok(()) }
    }

    fn is_whiteout(&self, at: Place<'_>) -> bool {
        self.whiteouts == Whiteouts::Overlay && at.stat().is_ok_and(|stat| is_overlay_whiteout(&stat))
    }

    /// Removes what has the name already: the later entry wins. A directory stays if the new entry is one too.
    fn make_way(&mut self, at: Place<'_>, new: Kind) -> Result<Former> {
        let stat = at.stat().map_err(refused("stat", at.path))?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if directory && new == Kind::Directory {
            return Ok(Former::Directory);
        }
        let whiteout = self.whiteouts == Whiteouts::Overlay && is_overlay_whiteout(&stat);
        match self.replace {
            Replace::SameKind if directory => {
                return Err(UnpackError::DirectoryInTheWay(at.path.to_path_buf()));
            }
            Replace::SameKind if new == Kind::Directory => {
                return Err(UnpackError::NoDirectoryInTheWay(at.path.to_path_buf()));
            }
            _ => {}
        }
        root::remove_tree_at(at.parent, at.name).map_err(refused("replace", at.path))?;
        // A cached folder may have been reached through what is gone now.
        self.folders.clear();
        Ok(if whiteout { Former::Whiteout } else { Former::Removed })
    }

    /// Runs `create` and, if the name is taken, makes way and runs it again.
    fn create<T>(
        &mut self,
        at: Place<'_>,
        kind: Kind,
        act: &'static str,
        create: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T> {
        match create() {
            Err(Errno::EXIST) => {
                self.make_way(at, kind)?;
                create().map_err(refused(act, at.path))
            }
            other => other.map_err(refused(act, at.path)),
        }
    }

    fn directory(&mut self, at: Place<'_>, entry: &Entry) -> Result<()> {
        let mut opaque = false;
        match at.mkdir() {
            Err(Errno::EXIST) => {
                let former = self.make_way(at, Kind::Directory)?;
                if former != Former::Directory {
                    at.mkdir().map_err(refused("create directory", at.path))?;
                }
                opaque = former == Former::Whiteout;
            }
            other => other.map_err(refused("create directory", at.path))?,
        }
        let fd = at.open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(refused("open directory", at.path))?;
        describe(fd.as_fd(), entry, at.path)?;
        if opaque {
            set_opaque(fd.as_fd(), at.path)?;
        }
        self.times.insert(at.path.to_path_buf(), entry.modified);
        self.keep_open(at.path, fd);
        Ok(())
    }

    fn describe_root(&mut self, entry: &Entry) -> Result<()> {
        let fd = self.root.open_dir("")?;
        describe(fd.as_fd(), entry, Path::new("/"))?;
        self.times.insert(PathBuf::new(), entry.modified);
        Ok(())
    }

    fn file<R: BufRead>(&mut self, at: Place<'_>, entry: &Entry, archive: &mut TarReader<R>) -> Result<()> {
        let stored = entry.sparse.as_ref().map_or(entry.size, |map| map.iter().map(|s| s.length).sum());
        self.done.bytes = self.done.bytes.saturating_add(stored);
        if self.done.bytes > self.limits.bytes {
            return Err(UnpackError::TooManyBytes(self.limits.bytes));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = self.create(at, Kind::File, "create", || at.open(flags))?;
        let mut file = File::from(fd);
        match &entry.sparse {
            None => copy(archive, entry.size, |bytes, _| file.write_all(bytes), at.path)?,
            Some(map) => {
                file.set_len(entry.size).map_err(refused("set length of", at.path))?;
                for segment in map {
                    let write = |bytes: &[u8], done: u64| file.write_all_at(bytes, segment.offset + done);
                    copy(archive, segment.length, write, at.path)?;
                }
            }
        }
        describe(file.as_fd(), entry, at.path)?;
        rustix::fs::futimens(&file, &timestamps(entry.modified)).map_err(refused("set times of", at.path))
    }

    fn hard_link(&mut self, at: Place<'_>, entry: &Entry) -> Result<()> {
        let target = clean(&entry.link)?;
        let Some(name) = target.file_name() else { return Err(UnpackError::Escapes(entry.link.clone())) };
        if target == at.path {
            return Ok(());
        }
        let missing = |target: &Path| UnpackError::NoLinkTarget {
            path: at.path.to_path_buf(),
            target: target.to_path_buf(),
        };
        let from = match self.folder_of_link(&target) {
            Err(UnpackError::Root(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(&target));
            }
            other => other?,
        };
        let linked = self.create(at, Kind::HardLink, "link", || {
            rustix::fs::linkat(&*from, name, at.parent, at.name, AtFlags::empty())
        });
        match linked {
            // The kernel does not say which of the two is missing, but the folder of the new name was just opened.
            Err(UnpackError::Refused { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(missing(&target))
            }
            other => other,
        }
    }

    /// The folder of a link's target, which must be there: a link makes no folders.
    fn folder_of_link(&mut self, target: &Path) -> Result<Rc<OwnedFd>> {
        let parent = target.parent().unwrap_or(Path::new(""));
        match self.folders.get(parent) {
            Some(fd) => Ok(Rc::clone(fd)),
            None => Ok(Rc::new(self.root.open_dir(parent)?)),
        }
    }

    fn symlink(&mut self, at: Place<'_>, entry: &Entry) -> Result<()> {
        let target = OsStr::from_bytes(&entry.link);
        self.create(at, Kind::Symlink, "create symbolic link", || {
            rustix::fs::symlinkat(target, at.parent, at.name)
        })?;
        self.describe_by_name(at, entry)
    }

    fn node(&mut self, at: Place<'_>, entry: &Entry, kind: FileType) -> Result<()> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode);
        self.create(at, entry.kind, "create node", || {
            rustix::fs::mknodat(at.parent, at.name, kind, mode, device)
        })?;
        self.describe_by_name(at, entry)
    }

    /// Attributes of what must not be opened. The name was just made by us in a tree that nobody else writes to.
    fn describe_by_name(&self, at: Place<'_>, entry: &Entry) -> Result<()> {
        let fd = at.open(OFlags::PATH).map_err(refused("open", at.path))?;
        let owner = Owner { uid: Some(entry.uid), gid: Some(entry.gid) };
        root::set_owner(fd.as_fd(), owner).map_err(refused("change owner of", at.path))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| wanted(name)) {
            let result = root::set_xattr(fd.as_fd(), OsStr::from_bytes(name), value);
            tolerate(result, name, at.path)?;
        }
        if entry.kind != Kind::Symlink {
            root::set_mode(fd.as_fd(), entry.mode).map_err(refused("change mode of", at.path))?;
        }
        let times = timestamps(entry.modified);
        rustix::fs::utimensat(at.parent, at.name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(refused("set times of", at.path))
    }

    fn whiteout(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<()> {
        if name.as_bytes() == OPAQUE {
            return set_opaque(parent, path);
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
        // Other names of this form are AUFS's own records.
        if hidden.as_bytes().starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout(path.to_path_buf()));
        }
        let at = Place { parent, name: hidden, path };
        match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // A whiteout hides what is *below*: what this layer has itself stays, a folder without the lower content.
            Err(Errno::EXIST) => match at.open(OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => set_opaque(fd.as_fd(), path),
                Err(_) => Ok(()),
            },
            other => other.map_err(refused("create whiteout for", path)),
        }
    }

    fn set_folder_times(&self) -> Result<()> {
        for (path, time) in &self.times {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
            // A later entry may have replaced the folder.
            let Ok(fd) = self.root.open_with(path, flags, 0) else { continue };
            root::set_times(fd.as_fd(), *time, *time).map_err(refused("set times of", path))?;
        }
        Ok(())
    }
}

/// Where an entry goes: a plain name in an open folder.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: BorrowedFd<'a>,
    name: &'a OsStr,
    path: &'a Path,
}

impl Place<'_> {
    fn mkdir(&self) -> rustix::io::Result<()> {
        rustix::fs::mkdirat(self.parent, self.name, Mode::from_raw_mode(0o755))
    }

    fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent, self.name, flags, Mode::from_raw_mode(0o600))
    }

    fn stat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// The path as plain components; `..` may go up as far as the root, as in Docker. NULs can't be in names.
fn clean(path: &[u8]) -> Result<PathBuf> {
    let escapes = || UnpackError::Escapes(path.to_vec());
    if path.contains(&0) {
        return Err(escapes());
    }
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if !clean.pop() => return Err(escapes()),
            _ => {}
        }
    }
    Ok(clean)
}

/// Whether overlayfs takes this for a whiteout.
pub fn is_overlay_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn copy<R: BufRead>(
    archive: &mut TarReader<R>,
    length: u64,
    mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
    path: &Path,
) -> Result<()> {
    let mut done = 0;
    while done < length {
        let data = archive.data()?;
        let count = data.len().min(usize::try_from(length - done).unwrap_or(usize::MAX));
        if count == 0 {
            return Err(TarError::Truncated.into());
        }
        write(&data[..count], done).map_err(refused("write", path))?;
        archive.consume(count);
        done += count as u64;
    }
    Ok(())
}

/// Owner, then attributes (chown clears security.capability), then the mode (chown clears set-user-id).
fn describe(fd: BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(entry.uid), rustix::fs::Gid::from_raw(entry.gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(refused("change owner of", path))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| wanted(name)) {
        let result =
            rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, rustix::fs::XattrFlags::empty());
        tolerate(result.map_err(io::Error::from), name, path)?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(refused("change mode of", path))
}

/// overlayfs's own attributes would let an archive redirect or hide what is in other layers.
fn wanted(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// Attributes that this file system or kind of file can't have are left out, as every other tool does.
fn tolerate(result: io::Result<()>, name: &[u8], path: &Path) -> Result<()> {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Err((Some(code), _))
            if code == Errno::OPNOTSUPP.raw_os_error() || code == Errno::PERM.raw_os_error() =>
        {
            let name = String::from_utf8_lossy(name);
            tracing::warn!(%name, path = %path.display(), "extended attribute left out: not supported here");
            Ok(())
        }
        Err((_, error)) => Err(refused("set extended attribute of", path)(error)),
        Ok(()) => Ok(()),
    }
}

fn set_opaque(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    rustix::fs::fsetxattr(fd, OVERLAY_OPAQUE, b"y", rustix::fs::XattrFlags::empty())
        .map_err(refused("make opaque", path))
}

fn timestamps(time: FileTime) -> Timestamps {
    let spec = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: spec, last_modification: spec }
}
