//! Cache and memory bandwidth of a container: a group of resctrl (Documentation/filesystems/resctrl.rst).

mod readings;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Act, Error, Result},
    oci::IntelRdt,
};

/// The group of one container, as far as it has to be taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its folder.
    folder: PathBuf,
    /// Whether it is this container's alone, and goes with it: a group that has a name by `closID` stays.
    own: bool,
    /// The monitoring group that was made in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitoring: Option<PathBuf>,
}

fn config(problem: String) -> Error {
    Error::Config { field: "linux.intelRdt".into(), problem }
}

/// Where resctrl is mounted, from the mount table.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("resctrl")).then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The group of a container; refuses what this host cannot do before anything is made.
pub fn check(id: &str, wanted: &IntelRdt) -> Result<Group> {
    let table = fs::read_to_string("/proc/self/mountinfo").act(|| "read the mount table".to_owned())?;
    let root = mount_point(&table).ok_or_else(|| {
        config(
            "needs resctrl, which this kernel or processor does not offer, or which is not mounted"
                .to_owned(),
        )
    })?;
    group(&root, id, wanted)
}

fn group(root: &Path, id: &str, wanted: &IntelRdt) -> Result<Group> {
    let given = wanted.clos_id.as_deref().filter(|name| !name.is_empty());
    let name = given.unwrap_or(id);
    if matches!(name, "." | ".." | "mon_groups" | "info") || (name.contains('/') && name != "/") {
        return Err(config(format!("closID {name:?} is no name of a group")));
    }
    // "/" is the default group itself (1.3).
    let folder = if name == "/" { root.to_owned() } else { root.join(name) };
    let there = folder.is_dir();
    let lines = lines(wanted);
    if there && given.is_some() && !lines.is_empty() && !agrees(&folder, &lines)? {
        return Err(config(format!("group {name:?} is there already, with other schemata")));
    }
    if !there && given.is_some() && lines.is_empty() {
        return Err(config(format!("there is no group {name:?}, and no schema is given to make it with")));
    }
    let monitoring = wanted.enable_monitoring.then(|| folder.join("mon_groups").join(id));
    Ok(Group { folder, own: !there && given.is_none(), monitoring })
}

/// Lines of `schemata` in the order in which they are written: the field of that name has the last word.
fn lines(wanted: &IntelRdt) -> Vec<String> {
    let single = [&wanted.l3_cache_schema, &wanted.mem_bw_schema].into_iter().flatten();
    single.chain(&wanted.schemata).flat_map(|text| text.lines()).map(str::to_owned).collect()
}

/// Whether every line is in force already.
fn agrees(folder: &Path, lines: &[String]) -> Result<bool> {
    let file = folder.join("schemata");
    let text = fs::read_to_string(&file).act(|| format!("read {}", file.display()))?;
    let plain = |line: &str| line.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let in_force: Vec<String> = text.lines().map(plain).collect();
    Ok(lines.iter().all(|line| in_force.contains(&plain(line))))
}

impl Group {
    /// Makes it with a process in it.
    pub fn make(&self, wanted: &IntelRdt, pid: i32) -> Result<()> {
        match fs::create_dir(&self.folder) {
            // Of others, or made by another container of the group a moment ago.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.own => {}
            made => made.act(|| format!("create resctrl group {}", self.folder.display()))?,
        }
        self.change(wanted)?;
        self.write("tasks", &pid.to_string())?;
        if let Some(folder) = &self.monitoring {
            let words = || format!("create monitoring group {}", folder.display());
            fs::create_dir(folder).act(words)?;
            fs::write(folder.join("tasks"), pid.to_string()).act(words)?;
        }
        Ok(())
    }

    /// Writes the lines of `schemata`.
    pub fn change(&self, wanted: &IntelRdt) -> Result<()> {
        lines(wanted).iter().try_for_each(|line| self.write("schemata", &format!("{line}\n")))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.folder.join(name);
        fs::write(&file, text).act(|| format!("write {:?} to {}", text.trim_end(), file.display()))
    }

    /// Takes away what was made for the container.
    pub fn remove(&self) -> Result<()> {
        let folders = self.monitoring.iter().chain(self.own.then_some(&self.folder));
        for folder in folders {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).act(|| format!("remove resctrl group {}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_and_a_host_without_one_says_so() {
        let table =
            "30 24 0:26 / /sys rw - sysfs sysfs rw\n40 30 0:30 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(table).unwrap(), Path::new("/sys/fs/resctrl"));
        assert_eq!(mount_point("30 24 0:26 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn a_group_is_made_with_its_lines_and_taken_away() {
        let root = std::env::temp_dir().join(format!("gty-{}-resctrl", std::process::id()));
        fs::create_dir_all(root.join("there")).unwrap();
        fs::write(root.join("there/schemata"), "    L3:0=ff\n    MB:0=50\n").unwrap();
        let wanted = |clos: Option<&str>, l3: Option<&str>| IntelRdt {
            clos_id: clos.map(str::to_owned),
            l3_cache_schema: l3.map(str::to_owned),
            ..IntelRdt::default()
        };
        let own = group(&root, "c1", &wanted(None, Some("L3:0=f"))).unwrap();
        own.make(&wanted(None, Some("L3:0=f")), 7).unwrap();
        assert_eq!(fs::read_to_string(root.join("c1/schemata")).unwrap(), "L3:0=f\n");
        assert_eq!(fs::read_to_string(root.join("c1/tasks")).unwrap(), "7");
        // An ordinary folder goes only without its files; the kernel's own goes with them.
        fs::remove_file(root.join("c1/schemata")).unwrap();
        fs::remove_file(root.join("c1/tasks")).unwrap();
        own.remove().unwrap();
        assert!(!root.join("c1").exists());
        let shared = group(&root, "c1", &wanted(Some("there"), Some("L3:0=ff"))).unwrap();
        assert!(!shared.own);
        shared.remove().unwrap();
        assert!(root.join("there").exists());
        for (clos, l3) in
            [(Some("there"), Some("L3:0=1")), (Some("new"), None), (Some("../x"), Some("L3:0=1"))]
        {
            assert!(group(&root, "c1", &wanted(clos, l3)).is_err(), "{clos:?} {l3:?}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
    #[test]
    fn a_named_group_stays_and_the_field_schemata_is_written_last() {
        let root = std::env::temp_dir().join(format!("gty-{}-resctrl-named", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let wanted = IntelRdt {
            clos_id: Some("named".to_owned()),
            l3_cache_schema: Some("L3:0=f".to_owned()),
            mem_bw_schema: Some("MB:0=50".to_owned()),
            schemata: vec!["L2:0=1".to_owned(), "L3:0=3".to_owned()],
            ..IntelRdt::default()
        };
        // config-linux.md, "IntelRdt": the schemata last; a group with a closID is never removed.
        assert_eq!(lines(&wanted), ["L3:0=f", "MB:0=50", "L2:0=1", "L3:0=3"]);
        let made = group(&root, "c1", &wanted).unwrap();
        made.make(&wanted, 7).unwrap();
        made.make(&wanted, 8).expect("another container of the group");
        made.remove().unwrap();
        assert!(root.join("named").is_dir());
        fs::remove_dir_all(&root).unwrap();
    }
}
