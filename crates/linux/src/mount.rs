//! Mounts by descriptors: made detached, changed while nobody sees them, attached to a place that was opened before.
//!
//! A path is never used twice, so nothing that a container changes between two steps can redirect a mount
//! (CVE-2021-30465, CVE-2025-31133).

mod overlay;

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
    move_mount, open_tree,
};

/// A mount operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The file system could not be made.
    #[error("mount {kind}{detail}")]
    Create {
        /// Type of the file system, and its source.
        kind: String,
        /// What the kernel says beyond the error number.
        detail: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// An option was refused.
    #[error("mount {kind} with option {option}{detail}")]
    Option {
        /// Type of the file system.
        kind: String,
        /// The option.
        option: String,
        /// What the kernel says beyond the error number.
        detail: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A tree could not be cloned.
    #[error("bind {path}")]
    Bind {
        /// What should be seen elsewhere.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Attributes could not be changed.
    #[error("change mount attributes")]
    Attributes(#[source] io::Error),
    /// A detached mount could not be put into its place.
    #[error("attach mount")]
    Attach(#[source] io::Error),
    /// The root could not be changed.
    #[error("{act}")]
    Root {
        /// Which step.
        act: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Whether an operation takes the mounts below along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// This mount only.
    This,
    /// With everything mounted below.
    Recursive,
}

/// How mounts and unmounts spread between copies of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// In no direction.
    Private,
    /// From the original to the copy.
    Slave,
    /// Both.
    Shared,
    /// In no direction, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Numbers of mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x01;
    /// No set-user-id.
    pub const NOSUID: u64 = 0x02;
    /// No device nodes.
    pub const NODEV: u64 = 0x04;
    /// No programs.
    pub const NOEXEC: u64 = 0x08;
    /// Mask of the access time modes.
    pub const ATIME: u64 = 0x70;
    /// Never change access times.
    pub const NOATIME: u64 = 0x10;
    /// Always change access times.
    pub const STRICTATIME: u64 = 0x20;
    /// Never change access times of folders.
    pub const NODIRATIME: u64 = 0x80;
    /// Map ids by a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Follow no symbolic links.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// A change of a mount's attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// To set, see [`attr`].
    pub set: u64,
    /// To clear, see [`attr`].
    pub clear: u64,
    /// New propagation.
    pub propagation: Option<Propagation>,
}

impl Attributes {
    /// Makes it read-only.
    pub fn read_only() -> Attributes {
        Attributes { set: attr::RDONLY, ..Attributes::default() }
    }

    /// Changes the propagation only.
    pub fn propagation(propagation: Propagation) -> Attributes {
        Attributes { propagation: Some(propagation), ..Attributes::default() }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}

#[repr(C)]
struct RawAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(
    fd: BorrowedFd<'_>,
    depth: Depth,
    attributes: Attributes,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut raw = RawAttributes {
        set: attributes.set,
        clear: attributes.clear,
        propagation: attributes.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    if let Some(userns) = userns {
        raw.set |= attr::IDMAP;
        raw.userns_fd = userns.as_raw_fd() as u64;
    }
    // A change of the access time mode must clear the whole field (mount_setattr(2)).
    if raw.set & attr::ATIME != 0 {
        raw.clear |= attr::ATIME;
    }
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the descriptor is open, the path is a constant, the structure has the size that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes the attributes of the mount behind a descriptor (mount_setattr(2)).
pub fn set_attributes(fd: BorrowedFd<'_>, depth: Depth, attributes: Attributes) -> io::Result<()> {
    mount_setattr(fd, depth, attributes, None)
}

/// Changes the parameters of the file system instance behind a descriptor, as `mount -o remount` does; `name` is for
/// messages.
pub fn reconfigure(
    place: BorrowedFd<'_>,
    name: &str,
    parameters: &[Parameter<'_>],
) -> Result<(), MountError> {
    let create = |context: Option<&OwnedFd>, error: rustix::io::Errno| MountError::Create {
        kind: name.to_owned(),
        detail: context.map(kernel_messages).unwrap_or_default(),
        source: error.into(),
    };
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(place, "", flags).map_err(|error| create(None, error))?;
    set_parameters(&context, name, parameters.iter().copied())?;
    fsconfig_reconfigure(&context).map_err(|error| create(Some(&context), error))
}

/// A mount that is attached nowhere; it goes when the descriptor is closed.
#[derive(Debug)]
pub struct Detached {
    fd: OwnedFd,
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Detached {
    fn from(fd: OwnedFd) -> Detached {
        Detached { fd }
    }
}

/// One parameter of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// A word.
    Flag(&'a str),
    /// `key=value`.
    Value(&'a str, &'a str),
}

impl Detached {
    /// Makes a new file system instance of this kind.
    pub fn new(
        kind: &str,
        source: Option<&str>,
        parameters: &[Parameter<'_>],
        attributes: u64,
    ) -> Result<Detached, MountError> {
        let create = |context: Option<&OwnedFd>, error: rustix::io::Errno| MountError::Create {
            kind: kind.to_owned(),
            detail: context.map(kernel_messages).unwrap_or_default(),
            source: error.into(),
        };
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| create(None, error))?;
        let all = source.map(|source| Parameter::Value("source", source)).into_iter();
        set_parameters(&context, kind, all.chain(parameters.iter().copied()))?;
        fsconfig_create(&context).map_err(|error| create(Some(&context), error))?;
        // All bits that fsmount takes are in the low byte, which rustix knows; others are set afterwards.
        let low = MountAttrFlags::from_bits_retain(u32::try_from(attributes & 0xff).unwrap_or(0));
        let fd = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, low)
            .map_err(|error| create(Some(&context), error))?;
        let mount = Detached { fd };
        let rest = attributes & !0xff;
        if rest != 0 {
            mount.set(Depth::This, Attributes { set: rest, ..Attributes::default() })?;
        }
        Ok(mount)
    }

    /// A second view of the tree at a trusted path.
    pub fn bind(path: &Path, depth: Depth) -> Result<Detached, MountError> {
        let fd = open_tree(rustix::fs::CWD, path, clone_flags(depth))
            .map_err(|error| MountError::Bind { path: path.to_owned(), source: error.into() })?;
        Ok(Detached { fd })
    }

    /// A second view of the tree behind a descriptor; `name` is for messages.
    pub fn bind_fd(place: BorrowedFd<'_>, depth: Depth, name: &Path) -> Result<Detached, MountError> {
        let fd = open_tree(place, "", clone_flags(depth) | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(|error| MountError::Bind { path: name.to_owned(), source: error.into() })?;
        Ok(Detached { fd })
    }

    /// Changes attributes.
    pub fn set(&self, depth: Depth, attributes: Attributes) -> Result<(), MountError> {
        if attributes.is_empty() {
            return Ok(());
        }
        mount_setattr(self.fd.as_fd(), depth, attributes, None).map_err(MountError::Attributes)
    }

    /// Maps the ids of the mount by a user namespace.
    pub fn map_ids(&self, depth: Depth, userns: BorrowedFd<'_>) -> Result<(), MountError> {
        mount_setattr(self.fd.as_fd(), depth, Attributes::default(), Some(userns))
            .map_err(MountError::Attributes)
    }

    /// Attaches it to the place behind a descriptor (opened with O_PATH) and keeps the descriptor of the mount.
    pub fn attach(self, place: BorrowedFd<'_>) -> Result<OwnedFd, MountError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.fd, "", place, "", flags).map_err(|error| MountError::Attach(error.into()))?;
        Ok(self.fd)
    }
}

fn clone_flags(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if depth == Depth::Recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

fn set_parameters<'a>(
    context: &OwnedFd,
    kind: &str,
    parameters: impl Iterator<Item = Parameter<'a>>,
) -> Result<(), MountError> {
    for parameter in parameters {
        set_parameter(context, parameter).map_err(|error| MountError::Option {
            kind: kind.to_owned(),
            option: match parameter {
                Parameter::Flag(word) => word.to_owned(),
                Parameter::Value(key, value) => format!("{key}={value}"),
            },
            detail: kernel_messages(context),
            source: error.into(),
        })?;
    }
    Ok(())
}

fn set_parameter(context: &OwnedFd, parameter: Parameter<'_>) -> rustix::io::Result<()> {
    match parameter {
        Parameter::Flag(word) => fsconfig_set_flag(context, word),
        Parameter::Value(key, value) => fsconfig_set_string(context, key, value),
    }
}

/// What the kernel wrote about a failed step into the context, such as `: overlay: No such file`.
fn kernel_messages(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0_u8; 512];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        // Each message begins with its level: "e " error, "w " warning, "i " information.
        if let Some(message) = message.strip_prefix("e ") {
            text.push_str(": ");
            text.push_str(message.trim_end());
        }
    }
    text
}

/// Makes the tree behind `root`, which is attached somewhere in the caller's mount namespace, the caller's root, and
/// takes the old one away.
pub fn pivot_into(root: BorrowedFd<'_>) -> Result<(), MountError> {
    let fail =
        |act: &'static str| move |error: rustix::io::Errno| MountError::Root { act, source: error.into() };
    rustix::process::fchdir(root).map_err(fail("enter the new root"))?;
    // The old root is stacked on top of the new one, at the same place, and so needs no folder inside it (pivot_root(2)).
    rustix::process::pivot_root(".", ".").map_err(fail("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(fail("unmount the old root"))?;
    rustix::process::chdir("/").map_err(fail("enter the new root"))
}

/// Makes the tree behind `root` the caller's root without pivot_root, for a host whose own root is a ramfs: it is moved
/// over the old one, which stays below it.
pub fn move_into(root: BorrowedFd<'_>) -> Result<(), MountError> {
    let fail =
        |act: &'static str| move |error: rustix::io::Errno| MountError::Root { act, source: error.into() };
    rustix::process::fchdir(root).map_err(fail("enter the new root"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, "", rustix::fs::CWD, "/", flags).map_err(fail("move the new root over the old one"))?;
    rustix::process::chroot(".").map_err(fail("chroot"))?;
    rustix::process::chdir("/").map_err(fail("enter the new root"))
}

/// Makes a folder the caller's root, in a mount namespace that is not its own.
pub fn chroot_into(root: BorrowedFd<'_>) -> Result<(), MountError> {
    let fail =
        |act: &'static str| move |error: rustix::io::Errno| MountError::Root { act, source: error.into() };
    rustix::process::fchdir(root).map_err(fail("enter the new root"))?;
    rustix::process::chroot(".").map_err(fail("chroot"))?;
    rustix::process::chdir("/").map_err(fail("enter the new root"))
}

/// Unmounts a trusted path lazily.
pub fn unmount(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    Ok(rustix::mount::unmount(path.as_c_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}
