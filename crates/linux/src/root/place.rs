//! Making what a path names although links on the way lead to what is not there yet.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use rustix::{fs::FileType, io::Errno};

use super::{Links, Result, Root};

/// What is made when there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A directory.
    Folder,
    /// An empty file.
    File,
}

/// So many links lead on before it is a loop (MAXSYMLINKS of path_resolution(7)).
const LINKS: usize = 40;

impl Root {
    /// Opens (`O_PATH`) what a path names, and makes it, with the directories above it, when it is not there. Links are followed within
    /// the root, also those that lead to what is not there yet, as `/etc/resolv.conf` does in many images: open(2) and mkdir(2) would
    /// refuse those.
    pub fn open_or_make(&self, path: impl AsRef<Path>, missing: Missing) -> Result<OwnedFd> {
        let mut path = path.as_ref().to_owned();
        for _ in 0..=LINKS {
            match self.open_path(&path, Links::Follow) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
            if let Some(led) = self.make_or_follow(&path, missing)? {
                path = led;
            }
        }
        Err(self.refused("open", &path, Errno::LOOP))
    }

    /// Makes what is missing on the way; or, at the first link that leads to nothing, the path without that link.
    fn make_or_follow(&self, path: &Path, missing: Missing) -> Result<Option<PathBuf>> {
        let parts: Vec<Component<'_>> =
            path.components().filter(|part| *part != Component::RootDir).collect();
        let mut walked = PathBuf::from("/");
        for (at, part) in parts.iter().enumerate() {
            let above = walked.clone();
            walked.push(part);
            let rest: PathBuf = parts[at + 1..].iter().collect();
            match self.stat(&walked, Links::Keep) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    match self.open_path(&walked, Links::Follow) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            // An absolute target replaces what is above it.
                            let led = above.join(self.readlink(&walked)?);
                            let last = at + 1 == parts.len();
                            // An empty rest would only add a slash, which asks for a directory.
                            return Ok(Some(if last { led } else { led.join(rest) }));
                        }
                        other => drop(other?),
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make(&walked, if at + 1 < parts.len() { Missing::Folder } else { missing })?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn make(&self, path: &Path, missing: Missing) -> Result<()> {
        let made = match missing {
            Missing::Folder => self.mkdir(path, 0o755),
            Missing::File => self.create_new(path, 0o644).map(drop),
        };
        match made {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_nothing_are_made_true_inside_the_root_only() {
        let scratch = tempfile::tempdir().unwrap();
        let inside = scratch.path().join("inside");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, inside.join(name)).unwrap();
        link("../run/systemd/resolve/stub", "etc/resolv.conf");
        link("/../../../outside/deep", "dev");
        link("one", "etc/two");
        link("two", "etc/three");
        link("loop", "etc/loop");
        let root = Root::open(&inside).unwrap();
        for (path, missing, made) in [
            ("/etc/resolv.conf", Missing::File, "run/systemd/resolve/stub"),
            ("/dev", Missing::Folder, "outside/deep"),
            ("/dev/pts/ptmx", Missing::File, "outside/deep/pts/ptmx"),
            ("etc/three/x", Missing::Folder, "etc/one/x"),
            ("/new/../new/a", Missing::File, "new/a"),
        ] {
            root.open_or_make(path, missing).unwrap();
            let made = inside.join(made);
            assert_eq!(made.metadata().unwrap().is_file(), missing == Missing::File, "{path}");
        }
        assert!(!scratch.path().join("outside").exists());
        let looped = root.open_or_make("/etc/loop", Missing::File).unwrap_err();
        assert_eq!(looped.raw_os_error(), Some(libc::ELOOP));
    }
}
