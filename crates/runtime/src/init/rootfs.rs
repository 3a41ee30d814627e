//! The file system that a container sees: its root, mounts, devices, hidden and read-only paths.
//!
//! Every place inside the root is opened by openat2 beneath the root's descriptor and then used by descriptor only.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use gantry_linux::{
    mount::{self, Attributes, Depth, Detached, Parameter, Propagation, attr},
    root::{Links, Root, RootError},
};
use rustix::fs::{FileType, Mode, OFlags};

use super::cgroups;
use crate::{
    error::{Act, Error, Result},
    mount_options::Kind,
    null,
    oci::{Device, defaults},
    plan::{Plan, PlannedMount, RootSource},
};

/// The root of a container that is being made.
pub struct Rootfs {
    /// Resolves paths in it.
    pub root: Root,
    mount: OwnedFd,
    /// The host's /dev/null, verified: what hidden files show (CVE-2025-31133).
    null: OwnedFd,
}

impl Rootfs {
    /// Attaches the root file system somewhere in this mount namespace.
    pub fn attach(plan: &mut Plan) -> Result<Rootfs> {
        propagate_host_mounts(plan)?;
        let path = plan.spec.root.as_ref().map(|root| plan.bundle.join(&root.path)).unwrap_or_default();
        let source = std::mem::replace(
            &mut plan.root,
            RootSource::Overlay(crate::monitor::Overlay {
                lower: Vec::new(),
                upper: PathBuf::new(),
                work: PathBuf::new(),
                volatile: false,
            }),
        );
        let tree = match source {
            RootSource::Tree(tree) => {
                let private = Attributes::propagation(Propagation::Private);
                tree.set(Depth::Recursive, private).act(|| "make the root file system private".to_owned())?;
                tree
            }
            RootSource::Overlay(overlay) => Detached::overlay(
                &overlay.lower,
                Some((&overlay.upper, &overlay.work)),
                overlay.volatile,
                false,
            )
            .act(|| format!("mount root file system over {}", overlay.upper.display()))?,
        };
        // createContainer hooks expect it at its place in the bundle; without such a folder the host's root is as
        // good: what is mounted there is seen only through the descriptor until pivot_root.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(&path, flags, Mode::empty())
            .or_else(|_| rustix::fs::open("/", flags, Mode::empty()))
            .act(|| "open a place for the root file system".to_owned())?;
        let mount = tree.attach(place.as_fd()).act(|| "attach the root file system".to_owned())?;
        let handle = mount.try_clone().act(|| "duplicate the root's descriptor".to_owned())?;
        Ok(Rootfs { root: Root::from_fd(handle, "the container's root"), mount, null: null::of_host()? })
    }

    /// Makes all mounts, in order.
    pub fn mount_all(&self, plan: &mut Plan, cgroups: &mut cgroups::Joining<'_>) -> Result<()> {
        for mount in std::mem::take(&mut plan.mounts) {
            let words = format!("mount {} to {}", mount_name(&mount), mount.destination);
            check_proc(&mount)?;
            if mount.kind == "cgroup" || mount.kind == "cgroup2" {
                cgroups.join()?;
                cgroups::mount(self, &mount, cgroups.namespace()).map_err(|error| error_in(&words, error))?;
            } else {
                self.mount_one(mount).map_err(|error| error_in(&words, error))?;
            }
        }
        Ok(())
    }

    fn mount_one(&self, mount: PlannedMount) -> Result<()> {
        let options = &mount.options;
        let words = || "attach".to_owned();
        let (tree, folder) = match mount.tree {
            Some((tree, folder)) => {
                tree.set(Depth::This, options.own).act(words)?;
                (tree, folder)
            }
            None => {
                let parameters = parameters(&options.parameters);
                let source = Some(mount.source.as_str()).filter(|source| !source.is_empty());
                (Detached::new(&mount.kind, source, &parameters, options.own.set).act(words)?, true)
            }
        };
        tree.set(Depth::Recursive, options.recursive).act(words)?;
        let (propagation, depth) = options.propagation.unwrap_or((Propagation::Private, Depth::Recursive));
        if matches!(options.kind, Kind::Bind(_)) || propagation != Propagation::Private {
            if matches!(options.kind, Kind::Bind(_)) && depth == Depth::This {
                // What lies below follows the default although the option is about the mount itself.
                tree.set(Depth::Recursive, Attributes::propagation(Propagation::Private)).act(words)?;
            }
            tree.set(depth, Attributes::propagation(propagation)).act(words)?;
        }
        let place = self.place(&mount.destination, folder)?;
        self.check_reached(&mount.destination, &place)?;
        tree.attach(place.as_fd()).act(words)?;
        Ok(())
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
    pub fn place(&self, destination: &str, folder: bool) -> Result<OwnedFd> {
        // /proc and /sys decide about the safety of others: they are never reached by a link of the image.
        let links = if matches!(destination, "/proc" | "/sys") { Links::Keep } else { Links::Follow };
        match self.root.open_path(destination, links) {
            Ok(place) => {
                if links == Links::Keep {
                    let mode = rustix::fs::fstat(&place).act(|| format!("examine {destination}"))?.st_mode;
                    if !FileType::from_raw_mode(mode).is_dir() {
                        return Err(Error::Config {
                            field: "mounts".into(),
                            problem: format!("{destination} of the image is not a folder"),
                        });
                    }
                }
                return Ok(place);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).act(|| format!("open {destination}")),
        }
        let words = || format!("create {destination}");
        if folder {
            return self.root.mkdir_all(destination, 0o755).act(words);
        }
        if let Some(parent) = Path::new(destination).parent() {
            self.root.mkdir_all(parent, 0o755).act(words)?;
        }
        self.root.create_new(destination, 0o644).map(OwnedFd::from).act(words)
    }

    /// Makes device nodes and the links of /dev.
    pub fn devices(&self, plan: &Plan) -> Result<()> {
        if is_bound(plan, "/dev") {
            // The host's /dev: everything is there, and nothing may be made in it.
            return Ok(());
        }
        let listed = plan.spec.linux.as_ref().map(|linux| linux.devices.as_slice()).unwrap_or_default();
        let given = |path: &str| listed.iter().any(|device| device.path == path);
        let user_namespace = plan.new.contains(gantry_linux::namespace::Namespaces::USER);
        for device in defaults::devices().iter().filter(|device| !given(&device.path)).chain(listed) {
            let words = || format!("create device {}", device.path);
            if user_namespace { self.bind_device(device) } else { self.make_device(device) }
                .map_err(|error| error_in(&words(), error))?;
        }
        self.links()
    }

    fn make_device(&self, device: &Device) -> Result<()> {
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                return Err(Error::Config {
                    field: "linux.devices".into(),
                    problem: format!("{} has unknown type {other:?}", device.path),
                });
            }
        };
        let number = |number: Option<i64>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
        let id = rustix::fs::makedev(number(device.major), number(device.minor));
        let make = || self.root.mknod(&device.path, kind, device.file_mode.unwrap_or(0o666) & 0o7777, id);
        let made = match make() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if let Some(parent) = Path::new(&device.path).parent() {
                    self.root.mkdir_all(parent, 0o755).act(|| "create its folder".to_owned())?;
                }
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let stat = self.root.stat(&device.path, Links::Keep).act(|| "examine it".to_owned())?;
                if FileType::from_raw_mode(stat.st_mode) != kind
                    || (kind != FileType::Fifo && stat.st_rdev != id)
                {
                    return Err(error).act(|| "replace another file".to_owned());
                }
                return Ok(());
            }
            Err(error) => return Err(error).act(|| "mknod".to_owned()),
        }
        let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        if (uid, gid) != (0, 0) {
            let owner = gantry_linux::root::Owner { uid: Some(uid), gid: Some(gid) };
            self.root.chown(&device.path, Links::Keep, owner).act(|| "set its owner".to_owned())?;
        }
        Ok(())
    }

    /// A user namespace may not make devices: the host's is shown.
    fn bind_device(&self, device: &Device) -> Result<()> {
        let path = Path::new(&device.path);
        let tree = Detached::bind(path, Depth::This).act(|| "open the host's".to_owned())?;
        let place = self.place(&device.path, false)?;
        tree.attach(place.as_fd()).act(|| "attach the host's".to_owned()).map(drop)
    }

    fn links(&self) -> Result<()> {
        let mut links = vec![
            ("/proc/self/fd", "/dev/fd"),
            ("/proc/self/fd/0", "/dev/stdin"),
            ("/proc/self/fd/1", "/dev/stdout"),
            ("/proc/self/fd/2", "/dev/stderr"),
        ];
        if Path::new("/proc/kcore").exists() {
            links.push(("/proc/kcore", "/dev/core"));
        }
        if self.root.exists("/dev/pts/ptmx") {
            links.push(("pts/ptmx", "/dev/ptmx"));
        }
        for (target, link) in links {
            match self.root.symlink(target, link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).act(|| format!("link {link}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Shows a terminal at /dev/console.
    pub fn console(&self, slave: BorrowedFd<'_>) -> Result<()> {
        let words = || "mount the terminal to /dev/console".to_owned();
        let tree = Detached::bind_fd(slave, Depth::This, Path::new("the terminal")).act(words)?;
        let place = match self.root.create_new("/dev/console", 0o600) {
            Ok(file) => OwnedFd::from(file),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.root.open_path("/dev/console", Links::Keep).act(words)?
            }
            Err(error) => return Err(error).act(words),
        };
        tree.attach(place.as_fd()).act(words).map(drop)
    }

    /// Hides paths: files show /dev/null, folders an empty read-only one.
    pub fn mask(&self, paths: &[String]) -> Result<()> {
        let mut empty: Option<OwnedFd> = None;
        for path in paths {
            let words = || format!("mask {path}");
            let Some(place) = self.existing(path).act(words)? else { continue };
            let mode = rustix::fs::fstat(&place).act(words)?.st_mode;
            let tree = if !FileType::from_raw_mode(mode).is_dir() {
                null::cloned(&self.null)?
            } else if let Some(empty) = &empty {
                // All hidden folders share one empty file system.
                Detached::bind_fd(empty.as_fd(), Depth::This, Path::new("an empty folder")).act(words)?
            } else {
                let parameters = [Parameter::Value("size", "0"), Parameter::Value("nr_inodes", "1")];
                Detached::new("tmpfs", Some("tmpfs"), &parameters, attr::RDONLY).act(words)?
            };
            let folder = FileType::from_raw_mode(mode).is_dir();
            let attached = tree.attach(place.as_fd()).act(words)?;
            if folder && empty.is_none() {
                empty = Some(attached);
            }
        }
        Ok(())
    }

    /// Makes paths read-only, with everything below.
    pub fn make_read_only(&self, paths: &[String]) -> Result<()> {
        for path in paths {
            let words = || format!("make {path} read-only");
            let Some(place) = self.existing(path).act(words)? else { continue };
            let tree = Detached::bind_fd(place.as_fd(), Depth::Recursive, Path::new(path)).act(words)?;
            tree.set(Depth::Recursive, Attributes::read_only()).act(words)?;
            tree.attach(place.as_fd()).act(words)?;
        }
        Ok(())
    }

    fn existing(&self, path: &str) -> std::result::Result<Option<OwnedFd>, RootError> {
        match self.root.open_path(path, Links::Follow) {
            Ok(place) => Ok(Some(place)),
            // What a kernel does not have needs no hiding.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound
                        | std::io::ErrorKind::NotADirectory
                        | std::io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the root this process's root.
    pub fn enter(self, plan: &Plan) -> Result<()> {
        let words = || "enter the root file system".to_owned();
        if plan.no_pivot {
            mount::chroot_into(self.mount.as_fd()).act(words)?;
        } else {
            mount::pivot_into(self.mount.as_fd()).act(words)?;
        }
        let propagation = plan.spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref());
        if let Some((propagation, depth)) = parse_propagation(propagation)?
            && propagation != Propagation::Private
        {
            mount::set_attributes(self.mount.as_fd(), depth, Attributes::propagation(propagation))
                .act(|| "set the root's propagation".to_owned())?;
        }
        if plan.spec.root.as_ref().is_some_and(|root| root.readonly) {
            mount::set_attributes(self.mount.as_fd(), Depth::This, Attributes::read_only())
                .act(|| "make the root read-only".to_owned())?;
        }
        Ok(())
    }
}

/// Adds words in front of an error without losing its exit code.
fn error_in(words: &str, error: Error) -> Error {
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

fn parameters(words: &[String]) -> Vec<Parameter<'_>> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Parameter::Value(key, value),
            None => Parameter::Flag(word),
        })
        .collect()
}

fn is_bound(plan: &Plan, destination: &str) -> bool {
    plan.spec.mounts.iter().any(|mount| {
        mount.destination.trim_end_matches('/') == destination
            && (mount.kind.as_deref() == Some("bind")
                || mount.options.iter().any(|option| option == "bind" || option == "rbind"))
    })
}

/// Places below /proc that may be mounted over (what lxcfs offers); others could hide what security depends on.
const PROC_ALLOWED: [&str; 9] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
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

fn parse_propagation(word: Option<&str>) -> Result<Option<(Propagation, Depth)>> {
    let Some(word) = word.filter(|word| !word.is_empty()) else { return Ok(None) };
    let options = crate::mount_options::parse(&[word.to_owned()], false);
    options.propagation.map(Some).ok_or_else(|| Error::Config {
        field: "linux.rootfsPropagation".into(),
        problem: format!("unknown word {word:?}"),
    })
}

/// Keeps the container's mounts from spreading to the host.
fn propagate_host_mounts(plan: &Plan) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = rustix::fs::open("/", flags, Mode::empty()).act(|| "open /".to_owned())?;
    let word = plan.spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref());
    let propagation = match parse_propagation(word)? {
        Some((Propagation::Private, _)) => Propagation::Private,
        // Also for a shared root: only what is mounted below the container's own root is shared.
        _ => Propagation::Slave,
    };
    mount::set_attributes(host.as_fd(), Depth::Recursive, Attributes::propagation(propagation))
        .act(|| "cut the host's mounts off".to_owned())
}
