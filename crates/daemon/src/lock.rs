//! The claim on a data folder: one live daemon each, held by a file lock that the kernel drops when the daemon dies.

use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Why the data folder cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon lives here.
    #[error("another gantry (process {holder}) uses the data folder {}: stop it, or give another folder", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// Its process id, as it wrote it.
        holder: String,
    },
    /// The file system refuses.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Held for the daemon's life.
#[derive(Debug)]
pub struct DataLock {
    _file: OwnedFd,
}

impl DataLock {
    /// Makes the folder if needed and claims it.
    pub fn claim(folder: &Path) -> Result<Self, LockError> {
        let io = |act: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: std::io::Error| LockError::Io { act, path, source }
        };
        std::fs::create_dir_all(folder).map_err(io("make the data folder", folder))?;
        let path = folder.join("daemon.lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| io("open the lock file", &path)(errno.into()))?;
        match gantry_linux::file_lock::take(&file) {
            Ok(true) => {}
            Ok(false) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(LockError::Taken { folder: folder.to_owned(), holder });
            }
            Err(error) => return Err(io("lock", &path)(error)),
        }
        let pid = format!("{}\n", std::process::id());
        std::fs::write(&path, pid).map_err(io("write the process id to", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataLock::claim(folder.path()).unwrap();
        let error = DataLock::claim(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        DataLock::claim(folder.path()).unwrap();
    }
}
