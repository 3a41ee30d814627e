//! What a container changed against its image: the upper folder, compared with the layers below.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_linux::root::{Links, Root, RootError};
use rustix::fs::{FileType, Stat};

use crate::error::{Error, Result};
use crate::pack::{PackError, pack, walk};
use crate::store::Store;
use crate::unpack::{OVERLAY_OPAQUE, Whiteouts, is_overlay_whiteout};

/// How a path differs from the image; the numbers are those of Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is in both, and differs (`C`).
    Modified = 0,
    /// It is new (`A`).
    Added = 1,
    /// It is gone (`D`).
    Deleted = 2,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// The path in the container, from `/`.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

fn packing(error: PackError) -> Error {
    Error::archive_because("read the container's files", "file system refused", error)
}

fn opening(error: RootError) -> Error {
    packing(error.into())
}

impl Store {
    /// What the container changed (`docker diff`), sorted by path. Blocks.
    pub fn changes(&self, container: &str) -> Result<Vec<PathChange>> {
        let rootfs = self.rootfs(container)?;
        let upper = Root::open(&rootfs.upper).map_err(opening)?;
        let lowers = rootfs.lower.iter().map(Root::open);
        let lowers: Vec<Root> = lowers.collect::<std::result::Result<_, _>>().map_err(opening)?;
        let mut changes: BTreeMap<PathBuf, ChangeKind> = BTreeMap::new();
        let mut untouched: HashSet<PathBuf> = HashSet::new();
        for found in walk(&upper).map_err(packing)? {
            let below = look_up(&lowers, &found.path);
            let kind = match below {
                _ if is_overlay_whiteout(&found.stat) => ChangeKind::Deleted,
                None => ChangeKind::Added,
                Some(below) if same_folder(&below, &found.stat) => {
                    // Copied up only for what is in it; shown if something in it is.
                    untouched.insert(found.path);
                    continue;
                }
                Some(_) => ChangeKind::Modified,
            };
            for parent in found.path.ancestors().skip(1) {
                if untouched.remove(parent) {
                    changes.insert(parent.to_path_buf(), ChangeKind::Modified);
                }
            }
            changes.insert(found.path, kind);
        }
        let absolute = |(path, kind)| PathChange { path: Path::new("/").join(path), kind };
        Ok(changes.into_iter().map(absolute).collect())
    }

    /// Writes what the container changed as a layer: a plain tar with whiteouts. Blocks.
    pub fn diff_tar(&self, container: &str, out: &mut dyn Write) -> Result<()> {
        let upper = Root::open(self.rootfs(container)?.upper).map_err(opening)?;
        pack(&upper, out, Whiteouts::Overlay).map_err(packing)
    }
}

fn same_folder(below: &Stat, above: &Stat) -> bool {
    let folder = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let face = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_mtime, s.st_mtime_nsec);
    folder(below) && folder(above) && face(below) == face(above)
}

/// The object at `path` as the layers show it without the container's own, top-most first.
fn look_up(lowers: &[Root], path: &Path) -> Option<Stat> {
    for lower in lowers {
        match look_up_in(lower, path) {
            Seen::Object(stat) => return Some(*stat),
            Seen::Hidden => return None,
            Seen::Nothing => {}
        }
    }
    None
}

enum Seen {
    Object(Box<Stat>),
    /// This layer says that there is nothing, whatever is below.
    Hidden,
    /// This layer says nothing.
    Nothing,
}

fn look_up_in(lower: &Root, path: &Path) -> Seen {
    let prefixes: Vec<&Path> = path.ancestors().filter(|prefix| !prefix.as_os_str().is_empty()).collect();
    let mut opaque = false;
    for (depth, prefix) in prefixes.iter().rev().enumerate() {
        let Ok(stat) = lower.stat(prefix, Links::Keep) else {
            return if opaque { Seen::Hidden } else { Seen::Nothing };
        };
        if is_overlay_whiteout(&stat) {
            return Seen::Hidden;
        }
        if depth + 1 == prefixes.len() {
            return Seen::Object(Box::new(stat));
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Seen::Hidden;
        }
        let mark = lower.get_xattr(prefix, Links::Keep, OsStr::new(OVERLAY_OPAQUE));
        opaque |= mark.ok().flatten().as_deref() == Some(b"y");
    }
    Seen::Nothing
}

/// Bytes of all files in a tree; a file with several names counts once.
pub(crate) fn tree_size(path: &Path) -> Result<u64> {
    let root = match Root::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.map_err(opening)?,
    };
    let mut counted = HashSet::new();
    let mut size = 0;
    for found in walk(&root).map_err(packing)? {
        let again = found.stat.st_nlink > 1 && !counted.insert((found.stat.st_dev, found.stat.st_ino));
        if found.kind() == FileType::RegularFile && !again {
            size += u64::try_from(found.stat.st_size).unwrap_or(0);
        }
    }
    Ok(size)
}
