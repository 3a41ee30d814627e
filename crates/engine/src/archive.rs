//! `docker cp` and `docker export`: paths out of and into a container as tar streams.
//!
//! A container may change its files while they are read, and names its paths as it likes: everything is resolved
//! beneath its root by the kernel. Archives are packed and unpacked on blocking threads, joined to the caller by a
//! socket, so neither side is held in memory.

use crate::container::Container;
use crate::engine::{ArchiveReader, Engine, blocking};
use crate::error::{Error, Result, io, parameter};
use crate::request::PathStat;
use crate::rootfs::{self, Access, Place};
use gantry_images::layer::Decoder;
use gantry_images::pack;
use gantry_images::tarball::TarReader;
use gantry_images::unpack::{Limits, Options, Replace, Whiteouts, unpack_with};
use gantry_linux::root::{Links, Root};
use jiff::Timestamp;
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

const PIECE: usize = 128 * 1024;

impl Engine {
    fn place(&self, container: &Container, path: &str, access: Access) -> Result<Place> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        rootfs::place(container, &path, access, |name| self.volume_path(name))
    }

    /// What a path of a container is. A link in the last component is shown itself, unless the path ends in `/` or `/.`.
    pub async fn archive_stat(&self, reference: &str, path: &str) -> Result<PathStat> {
        let (engine, container) = (self.clone(), self.find(reference)?);
        let (path, reference) = (path.to_owned(), reference.to_owned());
        blocking("looking at a path", move || {
            let place = engine.place(&container, &path, Access::Read)?;
            stat_of(&place, &path, &reference)
        })
        .await
    }

    /// A path of a container as a tar stream; its entries begin with the path's last component, which is `.` for `FOLDER/.` and
    /// `/` for the root: clients replace it by the name that they want.
    pub async fn archive_get(&self, reference: &str, path: &str) -> Result<(PathStat, ArchiveReader)> {
        let (engine, container) = (self.clone(), self.find(reference)?);
        let (asked, named) = (path.to_owned(), reference.to_owned());
        let (stat, place) = {
            let container = Arc::clone(&container);
            blocking("looking at a path", move || {
                let place = engine.place(&container, &asked, Access::Read)?;
                Ok((stat_of(&place, &asked, &named)?, place))
            })
            .await?
        };
        let name = stat.name.clone();
        let links = if follows(path) { Links::Follow } else { Links::Keep };
        let reader = packed(move |out| pack_path(&place, links, &name, out))?;
        self.container_event(&container, "archive-path", &[]);
        Ok((stat, reader))
    }

    /// Unpacks a tar stream (plain, gzip or zstd) into a folder of a container. `keep_kind`: a folder is never replaced
    /// by something else, nor the other way. `copy_owner`: owners come from the archive; otherwise all is root's.
    pub async fn archive_put(
        &self,
        reference: &str,
        path: &str,
        mut archive: ArchiveReader,
        keep_kind: bool,
        copy_owner: bool,
    ) -> Result<()> {
        let container = self.find(reference)?;
        let (near, far) = UnixStream::pair().map_err(io("make a pipe for", path))?;
        near.set_nonblocking(true).map_err(io("make a pipe for", path))?;
        let mut near = tokio::net::UnixStream::from_std(near).map_err(io("make a pipe for", path))?;
        let feeding = tokio::spawn(async move {
            // When unpacking fails its end is closed, and this ends too: the reason is told over there.
            let copied = tokio::io::copy(&mut archive, &mut near).await;
            drop(near);
            copied
        });
        let (engine, owner) = (self.clone(), Arc::clone(&container));
        let (path, reference) = (path.to_owned(), reference.to_owned());
        // A stopped container must not be started while its layers are mounted for writing.
        let operation = if container.run().is_none() { Some(container.operation.lock().await) } else { None };
        let unpacked = blocking("unpacking an archive", move || {
            let place = engine.place(&owner, &path, Access::Write)?;
            if !place.writable {
                return Err(Error::Forbidden("container rootfs is marked read-only".to_owned()));
            }
            let target = folder_at(&place, &path, &reference)?;
            unpack_into(target, far, &path, keep_kind, copy_owner)
        })
        .await;
        drop(operation);
        let fed = feeding.await;
        unpacked?;
        if let Ok(Err(error)) = fed {
            return Err(parameter(format!("the archive could not be read to its end: {error}")));
        }
        self.container_event(&container, "extract-to-dir", &[]);
        Ok(())
    }

    /// The whole file system of a container as a tar stream, without volumes.
    pub async fn export(&self, reference: &str) -> Result<ArchiveReader> {
        let container = self.find(reference)?;
        let layers = container.record().rootfs.clone();
        let root = blocking("mounting layers", move || rootfs::mount(&layers, Access::Read)).await?;
        self.container_event(&container, "export", &[]);
        packed(move |out| pack::pack(&root, out, Whiteouts::Literal).map_err(std::io::Error::other))
    }
}

/// Whether a link in the last component is followed.
fn follows(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.")
}

fn missing(path: &str, container: &str) -> Error {
    Error::NoSuchPath { path: path.to_owned(), container: container.to_owned() }
}

fn stat_of(place: &Place, asked: &str, container: &str) -> Result<PathStat> {
    let links = if follows(asked) { Links::Follow } else { Links::Keep };
    let stat = place.root.stat(&place.path, links).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => missing(asked, container),
        _ => error.into(),
    })?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if asked.ends_with('/') && kind != FileType::Directory {
        return Err(missing(asked, container));
    }
    let clean = rootfs::clean(asked);
    let name = match clean.file_name() {
        _ if asked.ends_with("/.") => ".".to_owned(),
        Some(name) => name.to_string_lossy().into_owned(),
        None => "/".to_owned(),
    };
    let link_target = match kind {
        FileType::Symlink => {
            let target = place.root.readlink(&place.path)?;
            let whole = clean.parent().unwrap_or(Path::new("/")).join(target);
            rootfs::clean(&whole.to_string_lossy()).to_string_lossy().into_owned()
        }
        _ => String::new(),
    };
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let modified = Timestamp::new(stat.st_mtime, nanos).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(PathStat { name, size: stat.st_size, mode: go_mode(stat.st_mode), modified, link_target })
}

/// Unix mode bits as Go's `os.FileMode` has them.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => (1 << 26) | (1 << 21),
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let bit = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { 1 << go };
    kind | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20) | (mode & 0o777)
}

/// Runs a packer on a thread; its output is the reader's. A failure in the middle cuts the stream short, which every
/// reader of tar notices, and is logged.
fn packed(
    pack: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> Result<ArchiveReader> {
    let (near, far) = UnixStream::pair().map_err(io("make a pipe for", "archive"))?;
    near.set_nonblocking(true).map_err(io("make a pipe for", "archive"))?;
    let near = tokio::net::UnixStream::from_std(near).map_err(io("make a pipe for", "archive"))?;
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE, far);
        let done = pack(&mut out).and_then(|()| out.flush());
        match done {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => tracing::warn!(%error, "pack files of a container"),
            Ok(()) => {}
        }
    });
    Ok(Box::new(near))
}

/// Writes one path, and everything below it, under a name.
fn pack_path(place: &Place, links: Links, name: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let stat = place.root.stat(&place.path, links)?;
    let base = name.as_bytes();
    let mut packer = Packer { tar: tar::Builder::new(out), seen: HashMap::new() };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        packer.add(&place.root, &place.path, base, &stat)?;
        return packer.tar.finish();
    }
    let root = place.root.subroot(&place.path)?;
    packer.add(&root, Path::new(""), base, &stat)?;
    for found in pack::walk(&root).map_err(std::io::Error::other)? {
        packer.add(&root, &found.path, &beneath(base, &found.path), &found.stat)?;
    }
    packer.tar.finish()
}

/// A path's name in the archive.
fn beneath(base: &[u8], path: &Path) -> Vec<u8> {
    let slash: &[u8] = if base.ends_with(b"/") { b"" } else { b"/" };
    [base, slash, path.as_os_str().as_bytes()].concat()
}

/// Writes entries by names as they are: bytes, `./x` and `/x` among them, which a tar library would make nice.
struct Packer<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
    /// Files with several names, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    /// Writes one entry. What is gone by now is left out.
    fn add(&mut self, root: &Root, path: &Path, name: &[u8], stat: &Stat) -> std::io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut header = tar::Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid));
        header.set_gid(u64::from(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        if kind == FileType::RegularFile && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)).cloned() {
                header.set_entry_type(tar::EntryType::Link);
                return self.append(header, name, &first, std::io::empty());
            }
            self.seen.insert((stat.st_dev, stat.st_ino), name.to_owned());
        }
        match kind {
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                self.append(header, &beneath(name, Path::new("")), b"", std::io::empty())
            }
            FileType::Symlink => {
                let Ok(target) = root.readlink(path) else { return Ok(()) };
                header.set_entry_type(tar::EntryType::Symlink);
                self.append(header, name, target.as_os_str().as_bytes(), std::io::empty())
            }
            FileType::RegularFile => {
                let Ok(file) = root.open_regular(path, Links::Keep) else { return Ok(()) };
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(size);
                // A file that shrinks meanwhile is filled up with zeros, one that grows is cut.
                let content = file.chain(std::io::repeat(0)).take(size);
                self.append(header, name, b"", content)
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let block = kind == FileType::BlockDevice;
                header.set_entry_type(if block { tar::EntryType::Block } else { tar::EntryType::Char });
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                self.append(header, name, b"", std::io::empty())
            }
            FileType::Fifo => {
                header.set_entry_type(tar::EntryType::Fifo);
                self.append(header, name, b"", std::io::empty())
            }
            // Sockets mean nothing in an archive.
            _ => Ok(()),
        }
    }

    fn append(
        &mut self,
        mut header: tar::Header,
        name: &[u8],
        link: &[u8],
        content: impl Read,
    ) -> std::io::Result<()> {
        self.long(tar::EntryType::GNULongLink, link)?;
        self.long(tar::EntryType::GNULongName, name)?;
        let old = header.as_old_mut();
        fill(&mut old.name, name);
        fill(&mut old.linkname, link);
        header.set_cksum();
        self.tar.append(&header, content)
    }

    /// GNU's way for names that do not fit into a header: an entry before it whose content is the name.
    fn long(&mut self, kind: tar::EntryType, name: &[u8]) -> std::io::Result<()> {
        if name.len() <= NAME_FIELD {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(name.len() as u64 + 1);
        header.set_cksum();
        self.tar.append(&header, name.chain(&b"\0"[..]))
    }
}

/// Bytes of a name in a header.
const NAME_FIELD: usize = 100;

fn fill(field: &mut [u8; NAME_FIELD], name: &[u8]) {
    field.fill(0);
    let length = name.len().min(NAME_FIELD);
    field[..length].copy_from_slice(&name[..length]);
}

/// The folder of a container into which an archive is unpacked.
fn folder_at(place: &Place, asked: &str, container: &str) -> Result<Root> {
    let is_folder = |root: Root| match root.open_dir("") {
        Ok(_) => Ok(root),
        Err(error) => Err(error),
    };
    place.root.subroot(&place.path).and_then(is_folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(asked, container),
        std::io::ErrorKind::NotADirectory => parameter("extraction point is not a directory"),
        _ => error.into(),
    })
}

fn unpack_into(
    target: Root,
    source: UnixStream,
    path: &str,
    keep_kind: bool,
    copy_owner: bool,
) -> Result<()> {
    let decoder = Decoder::new(source).map_err(io("read archive for", path))?;
    let mut source = BufReader::with_capacity(PIECE, decoder);
    let mut reader = TarReader::new(&mut source);
    let refused = |error: gantry_images::unpack::UnpackError| {
        parameter(format!("unpack into {}: {}", Path::new(path).display(), crate::error::whole(&error)))
    };
    let options = Options {
        limits: Limits::default(),
        whiteouts: Whiteouts::Literal,
        replace: if keep_kind { Replace::SameKind } else { Replace::Any },
        owner: (!copy_owner).then_some((0, 0)),
    };
    unpack_with(&mut reader, target, &options).map_err(refused)?;
    // What follows the archive's end is read too: the sender must not see a broken pipe.
    std::io::copy(&mut source, &mut std::io::sink()).map_err(io("read archive for", path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(go_mode(0o120_777), (1 << 27) | 0o777);
        assert_eq!(go_mode(0o104_755), (1 << 23) | 0o755);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
    }

    #[test]
    fn names_are_written_as_they_are() {
        let folder = std::env::temp_dir().join(format!("gty-{}-names", std::process::id()));
        let odd = folder.join(std::ffi::OsStr::from_bytes(b"odd\xff"));
        std::fs::create_dir_all(&odd).unwrap();
        std::fs::write(odd.join("f"), "").unwrap();
        std::fs::hard_link(odd.join("f"), odd.join("twin")).unwrap();
        let long = "x".repeat(120);
        std::os::unix::fs::symlink(&long, folder.join("link")).unwrap();
        let packed_as = |name: &str| {
            let place = Place { root: Root::open(&folder).unwrap(), path: "".into(), writable: true };
            let mut out = Vec::new();
            pack_path(&place, Links::Follow, name, &mut out).unwrap();
            let mut archive = tar::Archive::new(&out[..]);
            let entries = archive.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
                (entry.path_bytes().into_owned(), link)
            });
            let mut entries: Vec<_> = entries.collect();
            entries.sort();
            entries
        };
        let text = |bytes: &[u8]| bytes.to_vec();
        let dotted = [
            (text(b"./"), vec![]),
            (text(b"./link"), text(long.as_bytes())),
            (text(b"./odd\xff/"), vec![]),
            (text(b"./odd\xff/f"), vec![]),
            (text(b"./odd\xff/twin"), text(b"./odd\xff/f")),
        ];
        let found = packed_as(".");
        let whole: Vec<_> = packed_as("/").into_iter().map(|(name, _)| name).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, dotted);
        let rooted: [&[u8]; 5] = [b"/", b"/link", b"/odd\xff/", b"/odd\xff/f", b"/odd\xff/twin"];
        assert_eq!(whole, rooted);
    }

    #[test]
    fn trees_are_packed_under_their_name() {
        let folder = std::env::temp_dir().join(format!("gty-{}-pack", std::process::id()));
        let deep = folder.join("tree").join("d".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "hello").unwrap();
        std::os::unix::fs::symlink("file", deep.join("link")).unwrap();
        std::fs::hard_link(deep.join("file"), deep.join("twin")).unwrap();
        let place = Place { root: Root::open(&folder).unwrap(), path: "tree".into(), writable: true };
        let mut out = Vec::new();
        pack_path(&place, Links::Keep, "tree", &mut out).unwrap();
        let mut archive = tar::Archive::new(&out[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let path = entry.path().unwrap().into_owned();
            assert!(path.as_os_str().as_bytes().starts_with(b"tree"));
            names.push((path.file_name().unwrap().to_string_lossy().into_owned(), text));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names.len(), 5);
        assert!(names.contains(&("file".to_owned(), "hello".to_owned())));
        assert!(names.contains(&("link".to_owned(), String::new())));
        assert!(names.contains(&("twin".to_owned(), String::new())));
    }
}
