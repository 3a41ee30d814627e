//! The file system that a container sees: its root, mounts, devices, hidden and read-only paths.
//!
//! Every place inside the root is opened by openat2 beneath the root's descriptor and then used by descriptor only.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use gantry_linux::{
    mount::{self, Attributes, Depth, Detached, MountError, Parameter, Propagation, attr},
    namespace::Namespaces,
    root::{Links, Missing, Root},
};
use rustix::fs::{FileType, Mode, OFlags};

use super::{cgroups, copy_up, devices::is_in_user_namespace, host_view};
use crate::{
    error::{Act, Error, Result},
    mount_options::Kind,
    null,
    plan::{Plan, PlannedMount, RootSource},
};

/// The root of a container that is being made.
pub struct Rootfs {
    /// Resolves paths in it.
    pub root: Root,
    mount: Option<OwnedFd>,
    /// The host's /dev/null, verified: what hidden files show (CVE-2025-31133).
    pub(super) null: OwnedFd,
}

impl Rootfs {
    /// Attaches the root file system somewhere in this mount namespace.
    pub fn attach(plan: &mut Plan) -> Result<Rootfs> {
        let path = plan.spec.root.as_ref().map(|root| plan.bundle.join(&root.path)).unwrap_or_default();
        let tree = match std::mem::replace(&mut plan.root, RootSource::Later(PathBuf::new())) {
            RootSource::Folder(folder) => return Rootfs::without_mount(folder),
            RootSource::Tree(tree) => tree,
            RootSource::Later(path) => Detached::bind(&path, Depth::Recursive)
                .act(|| format!("open root file system {}", path.display()))?,
            RootSource::Overlay(overlay) => Detached::overlay(
                &overlay.lower,
                Some((&overlay.upper, &overlay.work)),
                overlay.volatile,
                false,
            )
            .act(|| format!("mount root file system over {}", overlay.upper.display()))?,
        };
        let propagation = root_propagation(plan)?;
        propagate_host_mounts(propagation)?;
        // Mounts of the host below the root reach the container only when that was asked for.
        let own = match propagation {
            Some((Propagation::Slave, _)) => Propagation::Slave,
            _ => Propagation::Private,
        };
        tree.set(Depth::Recursive, Attributes::propagation(own))
            .act(|| "cut the root file system off".to_owned())?;
        // createContainer hooks expect it at its place in the bundle; without such a folder the host's root is as
        // good: what is mounted there is seen only through the descriptor until pivot_root.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(&path, flags, Mode::empty())
            .or_else(|_| rustix::fs::open("/", flags, Mode::empty()))
            .act(|| "open a place for the root file system".to_owned())?;
        let mount = tree.attach(place.as_fd()).act(|| "attach the root file system".to_owned())?;
        let handle = mount.try_clone().act(|| "duplicate the root's descriptor".to_owned())?;
        Ok(Rootfs {
            root: Root::from_fd(handle, "the container's root"),
            mount: Some(mount),
            null: null::of_host()?,
        })
    }

    /// The folder as it is: nothing may be mounted where the host's mount namespace is shared.
    fn without_mount(folder: OwnedFd) -> Result<Rootfs> {
        Ok(Rootfs {
            root: Root::from_fd(folder, "the container's root"),
            mount: None,
            null: null::of_host()?,
        })
    }

    /// Whether the container has mounts of its own.
    pub fn is_mounted(&self) -> bool {
        self.mount.is_some()
    }

    /// Makes all mounts, in order.
    pub fn mount_all(&self, plan: &mut Plan, cgroups: &mut cgroups::Joining<'_>) -> Result<()> {
        for mut mount in std::mem::take(&mut plan.mounts) {
            let words = format!("mount {} to {}", mount_name(&mount), mount.destination);
            let done = self.mount_any(&mut mount, plan, cgroups);
            done.map_err(|error| error_in(&words, error))?;
        }
        Ok(())
    }

    fn mount_any(
        &self,
        mount: &mut PlannedMount,
        plan: &Plan,
        cgroups: &mut cgroups::Joining<'_>,
    ) -> Result<()> {
        check_proc(mount)?;
        mount.open()?;
        match (mount.options.kind, mount.kind.as_str()) {
            (Kind::Remount, _) => self.remount(mount),
            (Kind::New, "cgroup" | "cgroup2") => {
                cgroups.join()?;
                cgroups::mount(self, mount, cgroups.namespace())
            }
            (Kind::Bind(_), _) => self.bind(mount),
            (Kind::New, _) => self.mount_new(mount, plan),
        }
    }

    /// A new instance of a file system.
    fn mount_new(&self, mount: &PlannedMount, plan: &Plan) -> Result<()> {
        let options = &mount.options;
        let words = || "make it".to_owned();
        let source = Some(mount.source.as_str()).filter(|source| !source.is_empty());
        let parameters = parameters(mount, plan.mount_label.as_deref());
        // What is copied into it must be writable until then.
        let early = if options.copy_up { options.own.set & !attr::RDONLY } else { options.own.set };
        let tree = match Detached::new(&mount.kind, source, &parameters, early) {
            Err(error) if is_in_user_namespace(plan) && is_denied(&error) => {
                self.host_view(mount, plan).ok_or(error).act(words)?
            }
            other => other.act(words)?,
        };
        if options.copy_up {
            copy_up::fill(&self.root, Path::new(&mount.destination), &tree)?;
            tree.set(Depth::This, options.own).act(words)?;
        }
        tree.set(Depth::Recursive, options.recursive).act(words)?;
        if let Some((propagation, depth)) = options.propagation.filter(|(p, _)| *p != Propagation::Private) {
            tree.set(depth, Attributes::propagation(propagation)).act(words)?;
        }
        if mount.kind != "proc" && is_proc_itself(&mount.destination) {
            check_is_proc(&tree)?;
        }
        self.attach_at(&mount.destination, tree, Place::Folder).map(drop)
    }

    /// What a user namespace shows in place of a file system that it may not mount, because the namespace that the file
    /// system is about is the host's: the host's own instance, with the same attributes. Of another namespace it would show
    /// what is not there.
    fn host_view(&self, mount: &PlannedMount, plan: &Plan) -> Option<Detached> {
        let (path, about) = match mount.kind.as_str() {
            "sysfs" => ("/sys", Namespaces::EMPTY),
            "proc" => ("/proc", Namespaces::PID),
            "mqueue" => ("/dev/mqueue", Namespaces::IPC),
            _ => return None,
        };
        // A sysfs without the devices of the network namespace is still of use, as runc's configurations have it.
        if !about.is_empty() && plan.namespaces.separate.contains(about) {
            return None;
        }
        let tree = Detached::bind(Path::new(path), Depth::Recursive).ok()?;
        let attributes = Attributes { propagation: Some(Propagation::Private), ..mount.options.own };
        tree.set(Depth::Recursive, attributes).ok()?;
        Some(tree)
    }

    /// A second view of a tree.
    fn bind(&self, mount: &mut PlannedMount) -> Result<()> {
        let options = &mount.options;
        let words = || "change its attributes".to_owned();
        let Some((tree, folder)) = mount.tree.take() else { return Ok(()) };
        tree.set(Depth::This, options.own).act(words)?;
        tree.set(Depth::Recursive, options.recursive).act(words)?;
        let (propagation, depth) = options.propagation.unwrap_or((Propagation::Private, Depth::Recursive));
        if depth == Depth::This {
            // What lies below follows the default although the option is about the mount itself.
            tree.set(Depth::Recursive, Attributes::propagation(Propagation::Private)).act(words)?;
        }
        tree.set(depth, Attributes::propagation(propagation)).act(words)?;
        if is_proc_itself(&mount.destination) {
            check_is_proc(&tree)?;
        }
        let kind = if folder { Place::Folder } else { Place::File };
        self.attach_at(&mount.destination, tree, kind).map(drop)
    }

    /// Changes what is mounted already.
    fn remount(&self, mount: &PlannedMount) -> Result<()> {
        let words = || "change its attributes".to_owned();
        let place = self.root.open_path(&mount.destination, Links::Follow).act(words)?;
        self.check_reached(&mount.destination, &place)?;
        let parameters = parameters(mount, None);
        if !parameters.is_empty() {
            mount::reconfigure(place.as_fd(), &mount.destination, &parameters).act(words)?;
        }
        let changes = [(Depth::This, mount.options.own), (Depth::Recursive, mount.options.recursive)];
        for (depth, attributes) in changes {
            if !attributes.is_empty() {
                mount::set_attributes(place.as_fd(), depth, attributes).act(words)?;
            }
        }
        if let Some((propagation, depth)) = mount.options.propagation {
            mount::set_attributes(place.as_fd(), depth, Attributes::propagation(propagation)).act(words)?;
        }
        Ok(())
    }

    /// Attaches a mount at a path inside the root; makes the place when it is not there.
    pub fn attach_at(&self, destination: &str, tree: Detached, kind: Place) -> Result<OwnedFd> {
        let place = self.place(destination, kind)?;
        self.check_reached(destination, &place)?;
        tree.attach(place.as_fd()).act(|| "attach".to_owned())
    }

    /// Refuses a place in the container's /proc that was reached by a link of the image or by `..` (CVE-2019-16884):
    /// [`check_proc`] has judged the text only.
    fn check_reached(&self, destination: &str, place: &OwnedFd) -> Result<()> {
        let path = Path::new(destination);
        let judged = path.starts_with("/proc") && !path.components().any(|part| part == Component::ParentDir);
        let Some(proc) = self.root.stat("/proc", Links::Keep).ok().filter(|_| !judged) else { return Ok(()) };
        let words = || format!("examine {destination}");
        let device = rustix::fs::fstat(place).act(words)?.st_dev;
        let kind = rustix::fs::fstatfs(place).act(words)?.f_type;
        if kind == rustix::fs::PROC_SUPER_MAGIC && device == proc.st_dev {
            return Err(inside_proc(destination));
        }
        Ok(())
    }

    /// Opens the place of a mount; makes it when it is not there.
    fn place(&self, destination: &str, kind: Place) -> Result<OwnedFd> {
        // /proc and /sys decide about the safety of others: they are never reached by a link of the image.
        let place = match system_folder(destination) {
            Some(folder) => self.system_place(folder)?,
            None => {
                let missing = if kind == Place::Folder { Missing::Folder } else { Missing::File };
                self.root.open_or_make(destination, missing).act(|| format!("open {destination}"))?
            }
        };
        let mode = rustix::fs::fstat(&place).act(|| format!("examine {destination}"))?.st_mode;
        let problem = match (FileType::from_raw_mode(mode).is_dir(), kind) {
            // The second half is runc's, which others look for.
            (false, Place::Folder) => {
                "is not a folder: this file system must be mounted on ordinary directory, but it is not a directory"
            }
            (true, Place::File) => "is a folder, and what is mounted there is not: is a directory",
            _ => return Ok(place),
        };
        Err(Error::Config {
            field: "mounts".into(),
            problem: format!("{destination} of the image {problem}"),
        })
    }

    fn system_place(&self, folder: &str) -> Result<OwnedFd> {
        match self.root.open_path(folder, Links::Keep) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.root.mkdir_all(folder, 0o755).act(|| format!("create {folder}"))
            }
            other => other.act(|| format!("open {folder}")),
        }
    }

    /// Makes the root this process's root.
    pub fn enter(self, plan: &Plan) -> Result<()> {
        let words = || "enter the root file system".to_owned();
        let Some(root) = &self.mount else { return mount::chroot_into(self.root.as_fd()).act(words) };
        if plan.no_pivot {
            host_view::cover(plan)?;
            mount::move_into(root.as_fd()).act(words)?;
        } else {
            mount::pivot_into(root.as_fd()).act(|| pivot_words(words()))?;
        }
        if let Some((propagation, depth)) = root_propagation(plan)?
            && propagation != Propagation::Private
        {
            mount::set_attributes(root.as_fd(), depth, Attributes::propagation(propagation))
                .act(|| "set the root's propagation".to_owned())?;
        }
        if plan.spec.root.as_ref().is_some_and(|root| root.readonly) {
            mount::set_attributes(root.as_fd(), Depth::This, Attributes::read_only())
                .act(|| "make the root read-only".to_owned())?;
        }
        Ok(())
    }
}

/// The kernel's answer does not say that the host's own root is the reason.
fn pivot_words(words: String) -> String {
    // RAMFS_MAGIC of linux/magic.h; an initial ramfs may be a tmpfs.
    const RAMFS: i64 = 0x8584_58f6;
    const TMPFS: i64 = 0x0102_1994;
    match rustix::fs::statfs("/") {
        Ok(stat) if matches!(stat.f_type, RAMFS | TMPFS) => {
            format!("{words} (the host's root is a ramfs, which may need --no-pivot)")
        }
        _ => words,
    }
}

/// Adds words in front of an error without losing its exit code.
pub(super) fn error_in(words: &str, error: Error) -> Error {
    match error {
        Error::Config { .. } => error,
        other => {
            Error::Child { message: format!("{words}: {}", other.chain()), exit_code: other.exit_code() }
        }
    }
}

fn mount_name(mount: &PlannedMount) -> &str {
    if mount.source.is_empty() { &mount.kind } else { &mount.source }
}

fn parameters<'a>(mount: &'a PlannedMount, label: Option<&'a str>) -> Vec<Parameter<'a>> {
    let options = &mount.options;
    let superblock = options.superblock.iter().map(|word| Parameter::Flag(word));
    let own = options.parameters.iter().map(|word| match word.split_once('=') {
        Some((key, value)) => Parameter::Value(key, value),
        None => Parameter::Flag(word.as_str()),
    });
    // Files of these get their labels from the policy (selinux(8)), as in runc.
    let label = label.filter(|_| !matches!(mount.kind.as_str(), "proc" | "sysfs" | "mqueue"));
    superblock.chain(own).chain(label.map(|label| Parameter::Value("context", label))).collect()
}

fn is_denied(error: &MountError) -> bool {
    let (MountError::Create { source, .. } | MountError::Option { source, .. }) = error else { return false };
    source.raw_os_error() == Some(libc::EPERM)
}

/// Whether a place that is missing is made as a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Yes.
    Folder,
    /// No, as an empty file.
    File,
}

/// Places below /proc that may be mounted over (what lxcfs offers); others could hide what security depends on.
const PROC_ALLOWED: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

fn check_proc(mount: &PlannedMount) -> Result<()> {
    let clean: Vec<&str> =
        mount.destination.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if clean.first() != Some(&"proc")
        || clean.len() < 2
        || PROC_ALLOWED.contains(&clean[1..].join("/").as_str())
    {
        return Ok(());
    }
    Err(inside_proc(&mount.destination))
}

fn inside_proc(destination: &str) -> Error {
    Error::Config {
        field: "mounts".into(),
        problem: format!("{destination} cannot be mounted because it is inside /proc"),
    }
}

/// Which of the two folders a destination is, however it is spelt (CVE-2023-27561).
fn system_folder(destination: &str) -> Option<&'static str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in destination.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match parts.as_slice() {
        ["proc"] => Some("/proc"),
        ["sys"] => Some("/sys"),
        _ => None,
    }
}

fn is_proc_itself(destination: &str) -> bool {
    destination.trim_end_matches('/') == "/proc"
}

/// Nothing but a proc file system may be at /proc: limits and labels are written there.
fn check_is_proc(tree: &Detached) -> Result<()> {
    let kind = rustix::fs::fstatfs(tree).act(|| "examine what goes to /proc".to_owned())?.f_type;
    if kind == rustix::fs::PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Error::Config { field: "mounts".into(), problem: "/proc can only be a proc file system".into() })
}

fn root_propagation(plan: &Plan) -> Result<Option<(Propagation, Depth)>> {
    let word = plan.spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref());
    let Some(word) = word.filter(|word| !word.is_empty()) else { return Ok(None) };
    let options = crate::mount_options::parse(&[word.to_owned()], false);
    options.propagation.map(Some).ok_or_else(|| Error::Config {
        field: "linux.rootfsPropagation".into(),
        problem: format!("unknown word {word:?}"),
    })
}

/// Keeps the container's mounts from spreading to the host.
fn propagate_host_mounts(root: Option<(Propagation, Depth)>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = rustix::fs::open("/", flags, Mode::empty()).act(|| "open /".to_owned())?;
    let propagation = match root {
        Some((Propagation::Private, _)) => Propagation::Private,
        // Also for a shared root: only what is mounted below the container's own root is shared.
        _ => Propagation::Slave,
    };
    mount::set_attributes(host.as_fd(), Depth::Recursive, Attributes::propagation(propagation))
        .act(|| "cut the host's mounts off".to_owned())
}
