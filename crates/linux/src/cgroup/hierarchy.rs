//! The mounted hierarchies of a host: v1, v2, or both side by side.

use std::path::PathBuf;

use super::CgroupError;
use crate::pseudo_file;

/// The two kinds of hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for some controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which kind.
    pub version: Version,
    /// Controllers on it; `name=systemd` for a named one; for v2 what its root offers.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// How the hierarchies of a host are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// None is mounted.
    None,
    /// v1 only.
    Legacy,
    /// v1 with controllers, v2 beside.
    Hybrid,
    /// v2 only.
    Unified,
}

/// All mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    pub(super) list: Vec<Hierarchy>,
}

impl Hierarchies {
    /// Finds them in the mount table of the calling process.
    pub fn detect() -> Result<Hierarchies, CgroupError> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let text =
            pseudo_file::read_to_string(&path).map_err(|source| CgroupError::Detect { path, source })?;
        let mut found = Hierarchies::parse(&text);
        for hierarchy in &mut found.list {
            if hierarchy.version == Version::V2 {
                let offered = pseudo_file::read_to_string(hierarchy.mount.join("cgroup.controllers"))
                    .unwrap_or_default();
                hierarchy.controllers = offered.split_whitespace().map(str::to_owned).collect();
            }
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Hierarchies {
        let mut list: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            // proc_pid_mountinfo(5): ... (4) root (5) mount point ... - type source super-options
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(mount), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
            let version = match right.next() {
                Some("cgroup") => Version::V1,
                Some("cgroup2") => Version::V2,
                _ => continue,
            };
            let mount = PathBuf::from(mount);
            let options = right.nth(1).unwrap_or_default();
            let words = [
                "rw",
                "ro",
                "xattr",
                "noprefix",
                "clone_children",
                "favordynmods",
                "memory_recursiveprot",
                "nsdelegate",
            ];
            let controllers: Vec<String> = options
                .split(',')
                .filter(|word| {
                    !words.contains(word) && !word.starts_with("release_agent") && version == Version::V1
                })
                .map(str::to_owned)
                .collect();
            // The same hierarchy can be mounted in several places: the first one counts, and v2 once.
            let known = list.iter().any(|other| {
                other.version == version && (version == Version::V2 || other.controllers == controllers)
            });
            if !known && mount.starts_with("/sys/fs/cgroup") {
                list.push(Hierarchy { version, controllers, mount });
            }
        }
        Hierarchies { list }
    }

    /// The hierarchies.
    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.list.iter()
    }

    /// Only the unified one, as if there were no others.
    #[must_use]
    pub fn only_unified(&self) -> Hierarchies {
        Hierarchies {
            list: self.list.iter().filter(|hierarchy| hierarchy.version == Version::V2).cloned().collect(),
        }
    }

    /// How they are laid out.
    pub fn layout(&self) -> Layout {
        let has = |version: Version| self.list.iter().any(|hierarchy| hierarchy.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (false, false) => Layout::None,
            (true, false) => Layout::Legacy,
            (true, true) => Layout::Hybrid,
            (false, true) => Layout::Unified,
        }
    }

    /// Controllers of all of them.
    pub fn controllers(&self) -> Vec<&str> {
        self.list.iter().flat_map(|hierarchy| hierarchy.controllers.iter().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Cgroup, *};
    use std::path::Path;

    const HYBRID: &str = "\
25 24 0:22 / /proc rw,relatime - proc proc rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
34 30 0:29 / /somewhere/else rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_hybrid_layout_is_read_from_the_mount_table() {
        let hierarchies = Hierarchies::parse(HYBRID);
        assert_eq!(hierarchies.layout(), Layout::Hybrid);
        let mounts: Vec<_> = hierarchies.iter().map(|h| (h.version, h.controllers.clone())).collect();
        assert_eq!(
            mounts,
            [
                (Version::V1, vec!["cpu".to_owned(), "cpuacct".to_owned()]),
                (Version::V1, vec!["name=systemd".to_owned()]),
                (Version::V2, vec![]),
            ]
        );
        let group = Cgroup::at(&hierarchies, "/docker/abc").unwrap();
        assert_eq!(group.folders()[0].path, Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/abc"));
        assert!(matches!(Cgroup::at(&hierarchies, "/a/../b"), Err(CgroupError::Path(_))));
    }
}
