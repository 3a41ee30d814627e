//! What the runtime remembers of a container between two commands: one folder each, with `state.json`.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use gantry_linux::{
    cgroup::{Cgroup, Hierarchies},
    file_lock, process,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Act, Error, Result},
    oci::{self, Spec, Status},
    plan::Keyring,
    resctrl, start_socket,
    systemd::Scope,
};

/// Where state is kept unless `--root` says otherwise.
pub const DEFAULT_ROOT: &str = "/run/gantry-runtime";

/// Name of the socket on which a created container waits for its start.
pub const START_SOCKET: &str = "start.sock";

/// Name of the copy of the configuration in a container's folder.
const CONFIG: &str = "config.json";

/// Who started the first process, and so who may start the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Whoever calls `start`.
    Caller,
    /// The monitor that stays with it.
    Monitor,
}

/// The process that makes a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    pid: i32,
    start_time: u64,
}

impl Maker {
    /// The calling process.
    pub fn own() -> Maker {
        let pid = std::process::id().cast_signed();
        Maker { pid, start_time: process::start_time(pid).unwrap_or(0) }
    }

    fn is_alive(self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }
}

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the container.
    pub id: String,
    /// First process; 0 while it is being made.
    pub pid: i32,
    /// Start time of that process: with the pid it names the process for good.
    pub start_time: u64,
    /// Who makes it, until its first process only waits to be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<Maker>,
    /// The bundle.
    pub bundle: PathBuf,
    /// Its root file system, for people.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Whether the program was started, or is just being started.
    pub started: bool,
    /// Path beneath each cgroup hierarchy.
    pub cgroup: String,
    /// Who starts it.
    pub owner: Owner,
    /// Its unit, when systemd has made its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Its group of resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Group>,
    /// Session keyring of its processes.
    #[serde(default)]
    pub keyring: Keyring,
    /// From the configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// What the container is now.
    pub fn status(&self, group: &Cgroup) -> Status {
        if self.maker.is_some_and(Maker::is_alive) {
            return Status::Creating;
        }
        if self.pid == 0 {
            // What a maker left that was killed has no process, and is only to be deleted.
            return Status::Stopped;
        }
        match (self.is_alive(), self.started) {
            (false, _) => Status::Stopped,
            (true, false) => Status::Created,
            (true, true) if group.is_frozen() => Status::Paused,
            (true, true) => Status::Running,
        }
    }

    /// Whether its first process is there.
    pub fn is_alive(&self) -> bool {
        self.pid != 0 && process::start_time(self.pid) == Some(self.start_time)
    }

    /// Its cgroup.
    pub fn group(&self) -> Result<Cgroup> {
        self.group_in(&self.hierarchies()?)
    }

    /// Where it has a cgroup: nowhere, if it is of an ordinary user who may not make any.
    pub fn hierarchies(&self) -> Result<Hierarchies> {
        if self.cgroup.is_empty() {
            return Ok(Hierarchies::default());
        }
        Hierarchies::detect().map_err(|source| Error::Cgroup { id: self.id.clone(), source })
    }

    /// As [`Record::group`], for who has looked for the hierarchies already.
    pub fn group_in(&self, hierarchies: &Hierarchies) -> Result<Cgroup> {
        Cgroup::at(hierarchies, &self.cgroup).map_err(|source| Error::Cgroup { id: self.id.clone(), source })
    }

    /// What `state` prints and hooks get.
    pub fn state(&self, status: Status) -> oci::State {
        oci::State {
            oci_version: oci::OCI_VERSION.to_owned(),
            id: self.id.clone(),
            status,
            pid: (status != Status::Stopped && self.pid != 0).then_some(self.pid),
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// The folder with all containers of one `--root`.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// At a root, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into() }
    }

    /// Folder of a container.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Makes the folder of a new container; the id is taken from now on.
    pub fn reserve(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let folder = self.folder(id);
        let create = || fs::DirBuilder::new().mode(0o700).create(&folder);
        let made = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let root = fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.root);
                root.and_then(|()| create())
            }
            other => other,
        };
        match made {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(id.to_owned())),
            Err(error) => Err(error).act(|| format!("create {}", folder.display())),
        }
    }

    /// Writes the state of a container. It lives on a file system that a restart of the machine empties, like the
    /// processes it is about: whole or not at all matters, the disk does not.
    pub fn save(&self, record: &Record) -> Result<()> {
        let folder = self.folder(&record.id);
        save_in(&folder, &folder, record)
    }

    /// Reads the state of a container.
    pub fn load(&self, id: &str) -> Result<Record> {
        check_id(id)?;
        let folder = self.folder(id);
        load_from(&folder, &folder, id)
    }

    /// Takes hold of a container that is to be started.
    pub fn hold(&self, id: &str) -> Result<Held> {
        check_id(id)?;
        let path = self.folder(id);
        let words = || format!("open {}", path.display());
        let folder = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoContainer(id.to_owned()));
            }
            other => other.act(words)?,
        };
        if !file_lock::take(&folder).act(|| format!("lock {}", path.display()))? {
            let status = "being started by another process".to_owned();
            return Err(Error::WrongState { act: "start", id: id.to_owned(), status });
        }
        Ok(Held { folder, path, id: id.to_owned() })
    }

    /// Keeps the configuration as it is now: what becomes of the bundle's own does not matter to the container any more.
    pub fn keep_config(&self, id: &str, spec: &Spec) -> Result<()> {
        let path = self.folder(id).join(CONFIG);
        let bytes = serde_json::to_vec(spec).map_err(|source| Error::State { path: path.clone(), source })?;
        fs::write(&path, bytes).act(|| format!("write {}", path.display()))
    }

    /// The configuration that a container was made from.
    pub fn config(&self, record: &Record) -> Result<Spec> {
        // A monitor's bundle belongs to the engine and has no copy.
        match record.owner {
            Owner::Caller => Ok(Spec::load(&self.folder(&record.id))?),
            Owner::Monitor => Ok(Spec::load(&record.bundle)?),
        }
    }

    /// Name of the user who made a container, or `#` and his number.
    pub fn owner(&self, id: &str) -> String {
        let Ok(uid) = fs::metadata(self.folder(id)).map(|metadata| metadata.uid()) else {
            return String::new();
        };
        // passwd(5): name:password:uid:...
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let is_him = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
        let name = users.lines().find(is_him).and_then(|line| line.split(':').next());
        name.map_or_else(|| format!("#{uid}"), str::to_owned)
    }

    /// Removes the folder of a container.
    pub fn remove(&self, id: &str) -> Result<()> {
        let folder = self.folder(id);
        // The usual files go without listing the folder.
        for name in [START_SOCKET, CONFIG, "state.json"] {
            let _ = fs::remove_file(folder.join(name));
        }
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => fs::remove_dir_all(&folder).act(|| format!("remove {}", folder.display())),
            Ok(()) => Ok(()),
        }
    }

    /// All containers, sorted by name; folders without a readable state are left out.
    pub fn list(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut records: Vec<Record> = names.filter_map(|id| self.load(&id).ok()).collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        records
    }
}

/// A container's folder, held so that nobody else starts the container meanwhile. What is read and written belongs to this
/// container, also when it is deleted and another one gets its name.
#[derive(Debug)]
pub struct Held {
    folder: fs::File,
    path: PathBuf,
    id: String,
}

impl Held {
    /// The folder, by the descriptor.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }

    /// As [`Store::load`].
    pub fn load(&self) -> Result<Record> {
        load_from(&self.folder(), &self.path, &self.id)
    }

    /// As [`Store::save`].
    pub fn save(&self, record: &Record) -> Result<()> {
        save_in(&self.folder(), &self.path, record)
    }
}

fn save_in(folder: &Path, shown: &Path, record: &Record) -> Result<()> {
    const NAME: &str = "state.json";
    let path = shown.join(NAME);
    let bytes = serde_json::to_vec(record).map_err(|source| Error::State { path: path.clone(), source })?;
    let temporary = folder.join("state.tmp");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, folder.join(NAME)))
        .act(|| format!("write {}", path.display()))
}

fn load_from(folder: &Path, shown: &Path, id: &str) -> Result<Record> {
    let path = shown.join("state.json");
    let bytes = match fs::read(folder.join("state.json")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoContainer(id.to_owned()));
        }
        Err(error) => return Err(error).act(|| format!("read {}", path.display())),
    };
    let mut record: Record =
        serde_json::from_slice(&bytes).map_err(|source| Error::State { path, source })?;
    // `start` writes that it starts before it does, and takes the socket away afterwards: while the socket is there, whether
    // the first process still listens tells what was reached.
    if record.started && folder.join(START_SOCKET).exists() && start_socket::connect(folder).is_ok() {
        record.started = false;
    }
    Ok(record)
}

/// Refuses ids that are no plain file names.
pub fn check_id(id: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.chars().all(plain) {
        return Err(Error::BadId(id.to_owned()));
    }
    Ok(())
}

/// Turns a path of the command line into one that does not depend on the working directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).act(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_file_names() {
        assert!(check_id("a.b-c_d+1").is_ok());
        for bad in ["", ".", "..", "a/b", "ü", "a b"] {
            assert!(matches!(check_id(bad), Err(Error::BadId(_))), "{bad}");
        }
    }

    #[test]
    fn a_record_survives_and_its_id_is_taken_once() {
        let root = std::env::temp_dir().join(format!("gty-{}-state", std::process::id()));
        let store = Store::new(&root);
        store.reserve("a").unwrap();
        assert!(matches!(store.reserve("a"), Err(Error::Exists(_))));
        let record = Record {
            id: "a".into(),
            pid: 0,
            start_time: 0,
            maker: None,
            bundle: "/b".into(),
            rootfs: "/r".into(),
            created: String::new(),
            started: false,
            cgroup: "/x".into(),
            owner: Owner::Caller,
            scope: None,
            resctrl: None,
            keyring: Keyring::New,
            annotations: BTreeMap::new(),
        };
        store.save(&record).unwrap();
        assert_eq!(store.load("a").unwrap(), record);
        assert_eq!(store.list().len(), 1);
        store.remove("a").unwrap();
        assert!(matches!(store.load("a"), Err(Error::NoContainer(_))));
        fs::remove_dir_all(&root).unwrap();
    }
}
