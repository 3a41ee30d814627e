//! The trash takes folders that nobody needs any more: a rename now, the slow deletion later on a thread of its own.
//!
//! What a dead process left in the trash is deleted by the next one.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::content::{ContentError, io_error, random_name};

/// A folder of things to delete, and the thread that does it.
#[derive(Debug)]
pub struct Trash {
    folder: PathBuf,
    wake: Mutex<Sender<PathBuf>>,
}

impl Trash {
    /// Opens the trash in `folder` and begins to delete what is in it.
    pub fn open(folder: PathBuf) -> Result<Trash, ContentError> {
        fs::create_dir_all(&folder).map_err(io_error("create folder", &folder))?;
        let (wake, orders) = channel();
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let path = entry.map_err(io_error("list", &folder))?.path();
            // The receiver is still here, so sending cannot fail.
            let _ = wake.send(path);
        }
        let spawned =
            std::thread::Builder::new().name("image-trash".to_owned()).spawn(move || empty(&orders));
        spawned.map_err(io_error("start the thread that empties", &folder))?;
        Ok(Trash { folder, wake: Mutex::new(wake) })
    }

    /// Moves a file or folder into the trash; nothing there is fine.
    pub fn discard(&self, path: &Path) -> Result<(), ContentError> {
        let target = self.folder.join(random_name());
        match fs::rename(path, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(io_error("move to the trash", path))?,
        }
        let wake = self.wake.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Without the thread it stays for the next start.
        let _ = wake.send(target);
        Ok(())
    }
}

fn empty(orders: &Receiver<PathBuf>) {
    for path in orders {
        if let Err(error) = delete(&path) {
            tracing::warn!(%error, path = %path.display(), "stays in the trash until the next start");
        }
    }
}

fn delete(path: &Path) -> io::Result<()> {
    let parent = fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
    gantry_linux::root::remove_tree_at(parent.as_fd(), path.file_name().unwrap_or(OsStr::new("")))
}
