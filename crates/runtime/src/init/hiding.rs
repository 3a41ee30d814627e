//! Paths that a container may not see, or may see only read-only.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use gantry_linux::{
    mount::{Attributes, Depth, Detached, Parameter, attr},
    root::{Links, RootError},
};
use rustix::fs::FileType;

use super::rootfs::Rootfs;
use crate::{
    error::{Act, Result},
    null,
};

impl Rootfs {
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
}
