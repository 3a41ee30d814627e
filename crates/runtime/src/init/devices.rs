//! Device nodes of a container, the links of /dev, and its console.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use gantry_linux::{
    mount::{Depth, Detached},
    root::{Links, Owner},
};
use rustix::fs::FileType;

use super::rootfs::{Place, Rootfs, error_in};
use crate::{
    error::{Act, Error, Result},
    oci::{Device, defaults},
    plan::Plan,
    privilege::Privilege,
};

/// A device as the kernel knows it.
struct Node {
    kind: FileType,
    number: u64,
}

impl Node {
    fn of(device: &Device) -> Result<Node> {
        let refuse = |problem: &str| Error::Config {
            field: "linux.devices".into(),
            problem: format!("{} {problem}", device.path),
        };
        if !device.path.starts_with('/') {
            return Err(refuse("is not an absolute path"));
        }
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => return Ok(Node { kind: FileType::Fifo, number: 0 }),
            other => return Err(refuse(&format!("has unknown type {other:?}"))),
        };
        let number = |name: &str, number: Option<i64>| {
            number
                .and_then(|number| u32::try_from(number).ok())
                .ok_or_else(|| refuse(&format!("has no {name} number")))
        };
        let number = rustix::fs::makedev(number("major", device.major)?, number("minor", device.minor)?);
        Ok(Node { kind, number })
    }

    fn is(&self, stat: &rustix::fs::Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || stat.st_rdev == self.number)
    }
}

fn another(device: &Device) -> Error {
    Error::Config {
        field: "linux.devices".into(),
        problem: format!("{} of the host, which a user namespace shows, is another device", device.path),
    }
}

/// Refuses a device that is another one on this host.
pub fn check_hosts(device: &Device) -> Result<()> {
    let stat =
        rustix::fs::stat(device.path.as_str()).act(|| format!("examine the host's {}", device.path))?;
    if Node::of(device)?.is(&stat) { Ok(()) } else { Err(another(device)) }
}

impl Rootfs {
    /// Makes device nodes and the links of /dev.
    pub fn devices(&self, plan: &Plan) -> Result<()> {
        if is_bound(plan, "/dev") {
            // The host's /dev: everything is there, and nothing may be made in it.
            return Ok(());
        }
        let listed = plan.spec.linux.as_ref().map(|linux| linux.devices.as_slice()).unwrap_or_default();
        for device in defaults::devices_with(listed) {
            let node = Node::of(&device)?;
            // A user namespace may not make devices; a fifo everybody may.
            let bound = is_in_user_namespace(plan) && node.kind != FileType::Fifo;
            if bound { self.bind_device(&device, &node) } else { self.make_device(&device, &node) }
                .map_err(|error| error_in(&format!("create device {}", device.path), error))?;
        }
        self.links()
    }

    fn make_device(&self, device: &Device, node: &Node) -> Result<()> {
        let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
        let make = || self.root.mknod(&device.path, node.kind, mode, node.number);
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
                return if node.is(&stat) {
                    Ok(())
                } else {
                    Err(error).act(|| "replace another file".to_owned())
                };
            }
            Err(error) => return Err(error).act(|| "mknod".to_owned()),
        }
        let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        if (uid, gid) != (0, 0) {
            let owner = Owner { uid: Some(uid), gid: Some(gid) };
            self.root.chown(&device.path, Links::Keep, owner).act(|| "set its owner".to_owned())?;
        }
        Ok(())
    }

    /// Shows the host's device, if it is the one that is meant.
    fn bind_device(&self, device: &Device, node: &Node) -> Result<()> {
        let path = Path::new(&device.path);
        let tree = Detached::bind(path, Depth::This).act(|| "open the host's".to_owned())?;
        let stat = rustix::fs::fstat(&tree).act(|| "examine the host's".to_owned())?;
        if !node.is(&stat) {
            return Err(another(device));
        }
        self.attach_at(&device.path, tree, Place::File).map(drop)
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
                // The image's own node would open the host's terminals (config-linux.md, "Default Devices").
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && link == "/dev/ptmx" => {
                    self.root.unlink(link).act(|| format!("replace {link}"))?;
                    self.root.symlink(target, link).act(|| format!("link {link}"))?;
                }
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
        if !self.is_mounted() {
            // Nothing may be mounted; the program has the terminal on its descriptors.
            return Ok(());
        }
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
}

/// Whether the container is in another user namespace than the host, its own or that of its runtime.
pub fn is_in_user_namespace(plan: &Plan) -> bool {
    plan.namespaces.has_user() || Privilege::own() != Privilege::Root
}

fn is_bound(plan: &Plan, destination: &str) -> bool {
    plan.spec.mounts.iter().any(|mount| {
        mount.destination.trim_end_matches('/') == destination
            && (mount.kind.as_deref() == Some("bind")
                || mount.options.iter().any(|option| option == "bind" || option == "rbind"))
    })
}
