//! The files of a container as the engine reaches them: through its process while it runs, else by a mount of its
//! layers that nobody else sees. Every path inside is resolved beneath a root that it cannot leave.

use crate::container::Container;
use crate::error::{Error, Result, io};
use crate::mounts::Source;
use crate::record::Rootfs;
use gantry_linux::mount::{Detached, MountError};
use gantry_linux::root::Root;
use gantry_linux::user::{self, Identity};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// Longest passwd or group file that is read.
const LONGEST: u64 = 8 << 20;

/// Whether the files will be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A root, and the path beneath it that stands for a path of the container.
#[derive(Debug)]
pub(crate) struct Place {
    pub root: Root,
    pub path: PathBuf,
    pub writable: bool,
}

fn mount_error(error: MountError) -> Error {
    let whole = crate::error::whole(&error);
    Error::Io { act: "mount the layers of", path: "container".into(), source: std::io::Error::other(whole) }
}

/// A mount of layers that is attached nowhere; it goes with the root.
pub(crate) fn mount(rootfs: &Rootfs, access: Access) -> Result<Root> {
    let mount = match access {
        Access::Write => Detached::overlay(&rootfs.lower, Some((&rootfs.upper, &rootfs.work)), false, false),
        // The upper layer as one more read-only layer: nothing is made in the work folder.
        Access::Read => {
            let mut lower = vec![rootfs.upper.clone()];
            lower.extend(rootfs.lower.iter().cloned());
            Detached::overlay(&lower, None, false, false)
        }
    };
    root_of(&mount.map_err(mount_error)?)
}

/// A read-only view of an image's layers alone, for the first content of volumes.
pub(crate) fn mount_layers(lower: &[PathBuf]) -> Result<Root> {
    match lower {
        // An overlay needs two layers when it has no upper one.
        [only] => Ok(Root::open(only)?),
        more => root_of(&Detached::overlay(more, None, false, false).map_err(mount_error)?),
    }
}

fn root_of(mount: &Detached) -> Result<Root> {
    let fd = rustix::fs::openat(
        mount.as_fd(),
        ".",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| Error::Io { act: "open", path: "/".into(), source: error.into() })?;
    Ok(Root::from_fd(fd, "/"))
}

/// The root of a running container as its own process sees it, mounts included.
fn running_root(container: &Container) -> Result<Option<Root>> {
    let Some(run) = container.run() else { return Ok(None) };
    let path = PathBuf::from(format!("/proc/{}/root", run.pid));
    let root = match Root::open(&path) {
        Ok(root) => root,
        // It has ended just now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The number could belong to another process by now: only if the process still lives was the root its own.
    match gantry_linux::process::signal(run.pidfd.as_fd(), 0) {
        Ok(()) => Ok(Some(root)),
        Err(_) => Ok(None),
    }
}

/// Where a path of the container is. For a container that does not run, volumes and binds are looked through too.
pub(crate) fn place(
    container: &Container,
    path: &str,
    access: Access,
    volume: impl Fn(&str) -> PathBuf,
) -> Result<Place> {
    let read_only = container.record().host.readonly_rootfs;
    if let Some(root) = running_root(container)? {
        let on_mount = below_mount(container, path).is_some();
        return Ok(Place { root, path: PathBuf::from(path), writable: on_mount || !read_only });
    }
    if let Some((mount, rest)) = below_mount(container, path) {
        let source = match &mount.source {
            Source::Bind { path, .. } => PathBuf::from(path),
            // A volume's content is a container's: a link there must not lead out of it.
            Source::Volume { name, subpath, .. } if !subpath.is_empty() => {
                return volume_place(&Root::open(volume(name))?, Path::new(subpath), rest, mount.rw);
            }
            Source::Volume { name, .. } => volume(name),
            Source::Tmpfs { .. } => {
                return Err(Error::NoSuchPath {
                    path: path.to_owned(),
                    container: container.id.short().to_owned(),
                });
            }
        };
        return host_place(&source, rest, mount.rw);
    }
    let rootfs = container.record().rootfs.clone();
    Ok(Place { root: mount(&rootfs, access)?, path: PathBuf::from(path), writable: !read_only })
}

/// A place beneath the source of a mount, which may be a single file.
fn host_place(source: &Path, rest: PathBuf, writable: bool) -> Result<Place> {
    if source.is_dir() {
        return Ok(Place { root: Root::open(source)?, path: rest, writable });
    }
    let parent = source.parent().unwrap_or(Path::new("/"));
    let name = source.file_name().unwrap_or_default();
    Ok(Place { root: Root::open(parent)?, path: PathBuf::from(name), writable })
}

/// A place beneath a folder of a volume, which may be a single file.
fn volume_place(volume: &Root, subpath: &Path, rest: PathBuf, writable: bool) -> Result<Place> {
    match volume.subroot(subpath) {
        Ok(root) => Ok(Place { root, path: rest, writable }),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Ok(Place { root: volume.try_clone()?, path: subpath.to_owned(), writable })
        }
        Err(error) => Err(error.into()),
    }
}

/// The mount in which a path lies, by its text, and the rest of the path.
fn below_mount(container: &Container, path: &str) -> Option<(crate::mounts::ContainerMount, PathBuf)> {
    let clean = clean(path);
    let record = container.record();
    let mount = record
        .mounts
        .iter()
        .filter(|m| clean.starts_with(&m.destination))
        .max_by_key(|m| m.destination.len())?
        .clone();
    let rest = clean.strip_prefix(&mount.destination).ok()?.to_owned();
    Some((mount, rest))
}

/// An absolute path without `.` and `..`.
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Who a process of the container will be, by the files of its layers (the container does not run yet).
pub(crate) fn identity(rootfs: &Rootfs, user: &str, groups: &[String]) -> Result<Identity> {
    let passwd = layered_text(rootfs, "etc/passwd");
    let group = layered_text(rootfs, "etc/group");
    user::resolve_in(&passwd, &group, user, groups)
        .map_err(|error| Error::Start { message: error.to_string(), exit_code: 126 })
}

/// Who a process of a running container will be.
pub(crate) fn identity_in(container: &Container, user: &str, groups: &[String]) -> Result<Identity> {
    let root = running_root(container)?.ok_or_else(|| Error::NotRunning(container.id.to_string()))?;
    user::resolve(&root, user, groups)
        .map_err(|error| Error::ExecStart { message: error.to_string(), exit_code: 126 })
}

/// A small text file as the layers show it, without mounting them; empty when there is none.
fn layered_text(rootfs: &Rootfs, path: &str) -> String {
    for layer in std::iter::once(&rootfs.upper).chain(&rootfs.lower) {
        let Ok(root) = Root::open(layer) else { continue };
        let file = match root.open_file(path) {
            Ok(file) => file,
            // A whiteout (character device 0:0), or whatever else is no file, hides what lies below.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return String::new(),
            Err(_) => continue,
        };
        let mut bytes = Vec::new();
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    String::new()
}

/// Copies what an image has at a path into an empty volume, with owners, modes, times and attributes. What the image
/// does not have there leaves the volume empty.
pub(crate) fn copy_up(lower: &[PathBuf], path: &str, volume: &Path) -> Result<()> {
    let layers = mount_layers(lower)?;
    let source = match layers.subroot(path.trim_start_matches('/')) {
        Ok(source) => source,
        // Nothing there, or no folder.
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let target = Root::open(volume)?;
    copy_attributes(&source, &target)?;
    copy_tree(source, target, volume)
}

fn copy_attributes(source: &Root, target: &Root) -> Result<()> {
    use gantry_linux::root::{Links, Owner};
    let stat = source.stat("", Links::Follow)?;
    target.chown("", Links::Follow, Owner { uid: Some(stat.st_uid), gid: Some(stat.st_gid) })?;
    target.chmod("", stat.st_mode & 0o7777)?;
    Ok(())
}

/// Packs one tree and unpacks it into another; the two run at the same time, joined by a socket.
fn copy_tree(source: Root, target: Root, name: &Path) -> Result<()> {
    let (from, to) = std::os::unix::net::UnixStream::pair().map_err(io("make a pipe for", name))?;
    let packer = std::thread::spawn(move || {
        let mut out = std::io::BufWriter::with_capacity(128 * 1024, to);
        gantry_images::pack::pack(&source, &mut out, gantry_images::unpack::Whiteouts::Literal)
            .map_err(|error| crate::error::whole(&error))?;
        std::io::Write::flush(&mut out).map_err(|error| error.to_string())
    });
    let reader = std::io::BufReader::with_capacity(128 * 1024, from);
    let mut archive = gantry_images::tarball::TarReader::new(reader);
    let unpacked = gantry_images::unpack::unpack(
        &mut archive,
        target,
        &gantry_images::unpack::Limits::default(),
        gantry_images::unpack::Whiteouts::Literal,
    );
    drop(archive);
    let packed = packer.join().unwrap_or_else(|_| Err("the packing thread ended".to_owned()));
    let failed = |text: String| io("copy the image's content into", name)(std::io::Error::other(text));
    packed.map_err(failed)?;
    unpacked.map_err(|error| {
        io("copy the image's content into", name)(std::io::Error::other(crate::error::whole(&error)))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_a_volume_does_not_lead_out_of_it() {
        let folder = std::env::temp_dir().join(format!("gty-{}-subpath", std::process::id()));
        std::fs::create_dir_all(folder.join("volume/folder")).unwrap();
        std::fs::create_dir(folder.join("outside")).unwrap();
        std::fs::write(folder.join("volume/file"), "x").unwrap();
        std::os::unix::fs::symlink(folder.join("outside"), folder.join("volume/link")).unwrap();
        let volume = Root::open(folder.join("volume")).unwrap();
        let place = |subpath: &str| volume_place(&volume, Path::new(subpath), PathBuf::new(), true);
        let outcome = (place("link"), place("folder").unwrap(), place("file").unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(outcome.0.is_err(), "the link's target does not exist in the volume");
        assert_eq!(outcome.1.root.host_path(), folder.join("volume/folder"));
        assert_eq!(outcome.2.path, Path::new("file"));
    }
}
