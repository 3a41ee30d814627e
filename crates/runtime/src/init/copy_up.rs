//! Filling a new tmpfs with what it will hide (option `tmpcopyup`).

use std::{
    ffi::OsStr,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use gantry_linux::{
    mount::Detached,
    root::{FileTime, Links, Owner, Root, RootError},
};
use rustix::fs::{FileType, Stat};

use crate::error::{Act, Result};

/// Copies the content of a folder of the root into a mount that is attached nowhere yet. A folder that is not there has
/// none.
pub fn fill(root: &Root, folder: &Path, tree: &Detached) -> Result<()> {
    let words = || format!("copy {} into its tmpfs", folder.display());
    let source = match root.subroot(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.act(words)?,
    };
    let target = Root::from_fd(tree.as_fd().try_clone_to_owned().act(words)?, "the new tmpfs");
    copy(&source, &target).act(words)
}

/// Copies level by level; nothing outside the root is reached, whatever links the image has.
fn copy(source: &Root, target: &Root) -> std::result::Result<(), RootError> {
    let top = PathBuf::from(".");
    let mut folders = vec![top.clone()];
    let mut all = folders.clone();
    while let Some(folder) = folders.pop() {
        for name in source.read_dir(&folder)? {
            let path = folder.join(name);
            let stat = source.stat(&path, Links::Keep)?;
            copy_entry(source, target, &path, &stat)?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                folders.push(path.clone());
                all.push(path);
            }
        }
    }
    // What was copied into a folder has changed its times; its mode may forbid to write.
    for folder in all.iter().rev() {
        let stat = source.stat(folder, Links::Keep)?;
        if *folder != top {
            attributes(source, target, folder, &stat)?;
        }
    }
    Ok(())
}

fn copy_entry(source: &Root, target: &Root, path: &Path, stat: &Stat) -> std::result::Result<(), RootError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return target.mkdir(path, 0o700),
        FileType::Symlink => target.symlink(source.readlink(path)?, path)?,
        FileType::RegularFile => {
            let mut from = source.open_regular(path, Links::Keep)?;
            let mut to = target.create_new(path, 0o600)?;
            io::copy(&mut from, &mut to).map_err(|error| RootError::Refused {
                act: "copy",
                path: path.to_owned(),
                root: target.host_path().to_owned(),
                source: error,
            })?;
        }
        kind => target.mknod(path, kind, stat.st_mode & 0o7777, stat.st_rdev)?,
    }
    attributes(source, target, path, stat)
}

fn attributes(source: &Root, target: &Root, path: &Path, stat: &Stat) -> std::result::Result<(), RootError> {
    let owner = Owner { uid: Some(stat.st_uid), gid: Some(stat.st_gid) };
    target.chown(path, Links::Keep, owner)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        target.chmod(path, stat.st_mode & 0o7777)?;
    }
    for name in source.list_xattrs(path, Links::Keep)? {
        // A tmpfs keeps what decides about rights; others it may refuse, as cp(1) accepts it.
        if let Some(value) = source.get_xattr(path, Links::Keep, OsStr::new(&name))? {
            let _ = target.set_xattr(path, Links::Keep, &name, &value);
        }
    }
    let time = |seconds: i64, nanoseconds: u64| FileTime {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    let times = (time(stat.st_atime, stat.st_atime_nsec), time(stat.st_mtime, stat.st_mtime_nsec));
    target.set_times(path, Links::Keep, times)
}
