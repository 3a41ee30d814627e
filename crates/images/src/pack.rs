//! Packing writes a file tree as a tarball: sorted, in POSIX format with PAX records where ustar is too small.
//!
//! The tree may belong to a container, and may change while it is read: every access is beneath its root, and a file
//! that shrinks or grows meanwhile is padded or cut to the size its header announced.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gantry_linux::root::{self, Links, Root, RootError, list_dir};
use rustix::fs::{AtFlags, FileType, Stat};

use crate::unpack::{OPAQUE, OVERLAY_OPAQUE, WHITEOUT, Whiteouts, is_overlay_whiteout};

/// A tree that can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The tree can't be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A file can't be read.
    #[error("read {}", path.display())]
    Read {
        /// The file, beneath the root.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive can't be written.
    #[error("write archive")]
    Write(#[source] io::Error),
}

type Result<T> = std::result::Result<T, PackError>;

/// An object in a tree.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path beneath the root.
    pub path: PathBuf,
    /// Its attributes.
    pub stat: Stat,
}

impl Found {
    /// What kind of object it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Everything beneath a root, sorted by path, without the root itself. Links are not followed.
pub fn walk(root: &Root) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let fd = match root.open_dir(&folder) {
            // It went, or was replaced, since its parent was listed.
            Err(error) if vanished(error.kind()) => continue,
            other => other?,
        };
        let names =
            list_dir(fd.as_fd()).map_err(|source| PackError::Read { path: folder.clone(), source })?;
        for name in names {
            let path = folder.join(&name);
            let Ok(stat) = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(path.clone());
            }
            found.push(Found { path, stat });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn vanished(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Writes everything beneath `root` as a tarball. With [`Whiteouts::Overlay`], overlayfs's marks become the names that
/// image layers have; otherwise they are left out. Sockets are left out always.
pub fn pack(root: &Root, out: &mut dyn Write, whiteouts: Whiteouts) -> Result<()> {
    let mut packer = Packer { root, out, whiteouts, links: HashMap::new() };
    for found in walk(root)? {
        packer.add(&found)?;
    }
    packer.out.write_all(&[0; 1024]).map_err(PackError::Write)
}

/// Writes one file of an archive, with the epoch as its time: the same files give the same archive.
pub(crate) fn write_file(out: &mut dyn Write, path: &str, size: u64, content: &mut dyn Read) -> Result<()> {
    let header = Header { path: path.into(), flag: b'0', mode: 0o644, size, ..Header::default() };
    out.write_all(&header.block()).map_err(PackError::Write)?;
    let copied = io::copy(&mut content.take(size), out).map_err(PackError::Write)?;
    if copied != size {
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(PackError::Read { path: PathBuf::from(path), source });
    }
    let padding = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
    out.write_all(&[0; 512][..padding]).map_err(PackError::Write)
}

/// Writes one folder of an archive.
pub(crate) fn write_folder(out: &mut dyn Write, path: &str) -> Result<()> {
    let header = Header { path: format!("{path}/").into(), flag: b'5', mode: 0o755, ..Header::default() };
    out.write_all(&header.block()).map_err(PackError::Write)
}

struct Packer<'a> {
    root: &'a Root,
    out: &'a mut dyn Write,
    whiteouts: Whiteouts,
    /// The first name of each object with several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Packer<'_> {
    fn add(&mut self, found: &Found) -> Result<()> {
        if is_overlay_whiteout(&found.stat) {
            return match self.whiteouts {
                Whiteouts::Overlay => self.mark(&found.path, WHITEOUT, found.path.file_name(), &found.stat),
                Whiteouts::Literal => Ok(()),
            };
        }
        let mut header = Header::of(&found.path, &found.stat);
        match found.kind() {
            FileType::Directory => return self.folder(found, header),
            FileType::Socket => return Ok(()),
            _ => {}
        }
        if found.stat.st_nlink > 1 {
            let key = (found.stat.st_dev, found.stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                header.flag = b'1';
                header.link = first.as_os_str().as_bytes().to_vec();
                return self.emit(&header);
            }
            self.links.insert(key, found.path.clone());
        }
        header.xattrs = self.xattrs(&found.path);
        match found.kind() {
            FileType::RegularFile => self.file(found, header),
            FileType::Symlink => {
                header.flag = b'2';
                header.link = match self.root.readlink(&found.path) {
                    Ok(target) => target.into_os_string().as_bytes().to_vec(),
                    Err(error) if vanished(error.kind()) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                self.emit(&header)
            }
            kind => {
                header.flag = match kind {
                    FileType::CharacterDevice => b'3',
                    FileType::BlockDevice => b'4',
                    _ => b'6',
                };
                header.device =
                    (rustix::fs::major(found.stat.st_rdev), rustix::fs::minor(found.stat.st_rdev));
                self.emit(&header)
            }
        }
    }

    fn folder(&mut self, found: &Found, mut header: Header) -> Result<()> {
        header.flag = b'5';
        header.path.push(b'/');
        header.xattrs = self.xattrs(&found.path);
        self.emit(&header)?;
        let opaque = || self.root.get_xattr(&found.path, Links::Keep, OsStr::new(OVERLAY_OPAQUE));
        if self.whiteouts == Whiteouts::Overlay && opaque()?.as_deref() == Some(b"y") {
            self.mark(&found.path.join("x"), OPAQUE, None, &found.stat)?;
        }
        Ok(())
    }

    fn file(&mut self, found: &Found, mut header: Header) -> Result<()> {
        // Regular, whatever has the name by now: a running container may change its files meanwhile.
        let mut file = match self.root.open_regular(&found.path, Links::Keep) {
            Ok(file) => file,
            Err(error) if vanished(error.kind()) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        header.size = u64::try_from(found.stat.st_size).unwrap_or(0);
        self.emit(&header)?;
        let mut buffer = vec![0u8; 128 * 1024];
        let mut left = header.size;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..want]);
            let count = read.map_err(|source| PackError::Read { path: found.path.clone(), source })?;
            // It shrank: what the header promised is filled up with zeros.
            let count = if count == 0 {
                buffer[..want].fill(0);
                want
            } else {
                count
            };
            self.out.write_all(&buffer[..count]).map_err(PackError::Write)?;
            left -= count as u64;
        }
        self.pad(header.size)
    }

    /// An empty file beside `path`, named by the mark and the name that it hides.
    fn mark(&mut self, path: &Path, mark: &[u8], name: Option<&OsStr>, stat: &Stat) -> Result<()> {
        let name = [mark, name.unwrap_or_default().as_bytes()].concat();
        let path = path.with_file_name(OsStr::from_bytes(&name));
        let mut header = Header::of(&path, stat);
        header.mode = 0o600;
        self.emit(&header)
    }

    fn xattrs(&self, path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Ok(fd) = self.root.open_path(path, Links::Keep) else { return Vec::new() };
        let names = root::list_xattrs(fd.as_fd()).unwrap_or_default();
        let kept = names.into_iter().filter(|name| {
            let name = name.as_bytes();
            // SELinux labels belong to the host; overlayfs's marks are written as names.
            !name.starts_with(b"trusted.overlay.")
                && !name.starts_with(b"user.overlay.")
                && name != b"security.selinux"
        });
        let value = |name: std::ffi::OsString| {
            let value = root::get_xattr(fd.as_fd(), &name).ok().flatten()?;
            Some((name.as_bytes().to_vec(), value))
        };
        kept.filter_map(value).collect()
    }

    fn emit(&mut self, header: &Header) -> Result<()> {
        let records = header.pax();
        if !records.is_empty() {
            let side = Header {
                path: b"PaxHeaders/entry".to_vec(),
                flag: b'x',
                mode: 0o644,
                size: records.len() as u64,
                ..Header::default()
            };
            self.out.write_all(&side.block()).map_err(PackError::Write)?;
            self.out.write_all(&records).map_err(PackError::Write)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&header.block()).map_err(PackError::Write)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let count = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
        self.out.write_all(&[0; 512][..count]).map_err(PackError::Write)
    }
}

#[derive(Clone, Debug, Default)]
struct Header {
    path: Vec<u8>,
    link: Vec<u8>,
    flag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    modified: i64,
    device: (u32, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The largest value of an octal field of `digits` digits.
const fn octal_max(digits: u32) -> u64 {
    (1 << (3 * digits)) - 1
}

impl Header {
    fn of(path: &Path, stat: &Stat) -> Header {
        Header {
            path: path.as_os_str().as_bytes().to_vec(),
            flag: b'0',
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: stat.st_mtime,
            ..Header::default()
        }
    }

    /// The records for what does not fit into the block.
    fn pax(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.path.len() > 100 {
            record(&mut out, b"path", &self.path);
        }
        if self.link.len() > 100 {
            record(&mut out, b"linkpath", &self.link);
        }
        let large = |value: u64, digits| value > octal_max(digits);
        for (key, value, digits) in
            [("size", self.size, 11), ("uid", self.uid.into(), 7), ("gid", self.gid.into(), 7)]
        {
            if large(value, digits) {
                record(&mut out, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        if u64::try_from(self.modified).map_or(true, |time| large(time, 11)) {
            record(&mut out, b"mtime", self.modified.to_string().as_bytes());
        }
        for (name, value) in &self.xattrs {
            record(&mut out, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        out
    }

    fn block(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |at: usize, length: usize, text: &[u8]| {
            let count = text.len().min(length);
            block[at..at + count].copy_from_slice(&text[..count]);
        };
        let octal = |value: u64, digits: usize| {
            let value = if value > octal_max(u32::try_from(digits).unwrap_or(0)) { 0 } else { value };
            format!("{value:0digits$o}").into_bytes()
        };
        put(0, 100, &self.path);
        put(100, 8, &octal(self.mode.into(), 7));
        put(108, 8, &octal(self.uid.into(), 7));
        put(116, 8, &octal(self.gid.into(), 7));
        put(124, 12, &octal(self.size, 11));
        put(136, 12, &octal(u64::try_from(self.modified).unwrap_or(0), 11));
        put(148, 8, b"        ");
        put(156, 1, &[self.flag]);
        put(157, 100, &self.link);
        put(257, 8, b"ustar\x0000");
        if matches!(self.flag, b'3' | b'4') {
            put(329, 8, &octal(self.device.0.into(), 7));
            put(337, 8, &octal(self.device.1.into(), 7));
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts itself too.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}
