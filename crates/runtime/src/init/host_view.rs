//! What a container without pivot_root could still reach of the host: its proc and sysfs, which lie under the new root.

use std::{os::fd::AsFd, path::Path};

use gantry_linux::{
    mount::{self, Attributes, Depth, Detached, Propagation},
    root::{Links, Root},
};
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{Act, Error, Result},
    plan::Plan,
};

/// Takes every full proc and sysfs of the host away, or covers it: else the kernel would let a container mount them anew,
/// without what is masked, because a full one is in sight.
pub fn cover(plan: &Plan) -> Result<()> {
    let words = || "read the mount table".to_owned();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&plan.proc, "self/mountinfo", flags, Mode::empty()).act(words)?;
    let table = std::io::read_to_string(std::fs::File::from(file)).act(words)?;
    let root = plan.spec.root.as_ref().map(|root| plan.bundle.join(&root.path)).unwrap_or_default();
    // The deepest first: what covers a folder would hide those below it.
    for path in full_views(&table).rev().filter(|path| !Path::new(path).starts_with(&root)) {
        cover_one(&path)?;
    }
    Ok(())
}

/// Mount points of whole proc and sysfs file systems, in the order in which they were mounted.
fn full_views(table: &str) -> impl DoubleEndedIterator<Item = String> {
    table.lines().filter_map(|line| {
        // proc_pid_mountinfo(5): ... (4) root (5) mount point ... - type source options
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let full = root == "/" && matches!(right.split(' ').next()?, "proc" | "sysfs");
        full.then(|| unescape(point))
    })
}

/// Spaces, tabs, line ends and backslashes are written as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn cover_one(path: &str) -> Result<()> {
    let words = || format!("take the host's {path} away");
    let root = Root::open("/").act(words)?;
    let place = match root.open_path(path, Links::Keep) {
        // It lay below one that has gone.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.act(words)?,
    };
    let slave = Attributes::propagation(Propagation::Slave);
    match mount::set_attributes(place.as_fd(), Depth::Recursive, slave) {
        // It is no mount point any more.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return Ok(()),
        other => other.act(words)?,
    }
    match mount::unmount(Path::new(path)) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => {
            // Locked in a user namespace: an empty one over it hides it as well.
            let place = root.open_path(path, Links::Keep).act(words)?;
            let empty = Detached::new("tmpfs", Some("tmpfs"), &[], 0).act(words)?;
            empty.attach(place.as_fd()).act(words).map(drop)
        }
        Err(source) => Err(Error::Io { act: words(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_file_systems_are_found() {
        let table = "\
21 1 0:20 / /proc rw shared:1 - proc proc rw
22 1 0:21 / /sys rw - sysfs sysfs rw
23 21 0:20 /sys /proc/sys ro - proc proc rw
24 1 0:20 / /srv/a\\040b rw - proc none rw
25 1 0:22 / /tmp rw - tmpfs proc rw
";
        assert_eq!(full_views(table).collect::<Vec<_>>(), ["/proc", "/sys", "/srv/a b"]);
    }
}
