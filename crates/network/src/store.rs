//! The files of the network layer: networks (kept over a restart of the machine) and sandboxes (not kept).

use crate::error::{NetworkError, Result};
use crate::sandbox::{BoundPort, Endpoint, SandboxSpec};
use gantry_model::network::Network;
use gantry_model::overlay::OverlayState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Version of the files; a newer one is refused instead of misread.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Serialize, Deserialize)]
struct NetworksFile {
    networks: Vec<Network>,
}

#[derive(Serialize, Deserialize)]
struct OverlayFile {
    state: OverlayState,
}

/// One sandbox as it is kept while its container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// As asked.
    pub spec: SandboxSpec,
    /// Places in networks.
    pub endpoints: Vec<EndpointRecord>,
    /// Published ports.
    pub ports: Vec<PortRecord>,
}

/// One endpoint with what only we need to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The node's end of the veth pair; empty for macvlan.
    pub link: String,
    /// It is being taken away. Only a file says so: that of a process which was killed while it did it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// One published port with the container's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// The port.
    pub bound: BoundPort,
    /// Address of the container.
    pub target: std::net::Ipv4Addr,
}

/// The folders of the network layer.
#[derive(Debug)]
pub struct Store {
    state_dir: PathBuf,
    run_dir: PathBuf,
}

impl Store {
    /// Makes the folders.
    pub fn open(state_dir: &Path, run_dir: &Path) -> Result<Self> {
        let store = Self { state_dir: state_dir.to_owned(), run_dir: run_dir.to_owned() };
        for dir in [state_dir, run_dir, &store.netns_dir(), &store.sandbox_dir()] {
            fs::create_dir_all(dir).map_err(file("create folder", dir))?;
        }
        Ok(store)
    }

    /// Removes all files.
    pub fn remove(&self) -> Result<()> {
        remove(&self.state_dir.join("networks.json"))?;
        remove(&self.state_dir.join("overlay.json"))?;
        for name in [crate::resolver::SOCKET, "resolver.log"] {
            remove(&self.run_dir.join(name))?;
        }
        for dir in [self.netns_dir(), self.sandbox_dir()] {
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file("remove folder", &dir)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn netns_dir(&self) -> PathBuf {
        self.run_dir.join("netns")
    }

    fn sandbox_dir(&self) -> PathBuf {
        self.run_dir.join("sandboxes")
    }

    /// Where a sandbox's namespace is bound.
    pub fn netns(&self, id: &str) -> PathBuf {
        self.netns_dir().join(id)
    }

    /// Names below the folder of namespaces.
    pub fn netns_ids(&self) -> Result<Vec<String>> {
        names(&self.netns_dir())
    }

    /// The networks; none before the first start.
    pub fn networks(&self) -> Result<Vec<Network>> {
        let read: Option<NetworksFile> = read(&self.state_dir.join("networks.json"))?;
        Ok(read.map_or_else(Vec::new, |file| file.networks))
    }

    /// Keeps the networks, durably.
    pub fn keep_networks(&self, networks: Vec<Network>) -> Result<()> {
        write(&self.state_dir.join("networks.json"), NetworksFile { networks }, Durability::Disk)
    }

    /// What the cluster said last.
    pub fn overlay(&self) -> Result<Option<OverlayState>> {
        let read: Option<OverlayFile> = read(&self.state_dir.join("overlay.json"))?;
        Ok(read.map(|file| file.state))
    }

    /// Keeps what the cluster said.
    pub fn keep_overlay(&self, state: &OverlayState) -> Result<()> {
        write(&self.state_dir.join("overlay.json"), OverlayFile { state: state.clone() }, Durability::Disk)
    }

    /// Forgets what the cluster said.
    pub fn forget_overlay(&self) -> Result<()> {
        remove(&self.state_dir.join("overlay.json"))
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Result<Vec<SandboxRecord>> {
        let mut records = Vec::new();
        for name in names(&self.sandbox_dir())? {
            let path = self.sandbox_dir().join(&name);
            if name.ends_with(".json") {
                records.extend(read(&path)?);
            } else {
                // A temporary file of a writer that was killed.
                remove(&path)?;
            }
        }
        Ok(records)
    }

    /// Keeps a sandbox. Its namespace does not survive the machine either, so the file need not reach the disk.
    pub fn keep_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        let path = self.sandbox_dir().join(format!("{}.json", record.spec.id));
        write(&path, record.clone(), Durability::Process)
    }

    /// Forgets a sandbox.
    pub fn forget_sandbox(&self, id: &str) -> Result<()> {
        remove(&self.sandbox_dir().join(format!("{id}.json")))
    }
}

/// What a written file must survive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// The death of this process.
    Process,
    /// Loss of power.
    Disk,
}

fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::File { act, path: path.to_owned(), source }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(file("read folder", dir))? {
        let entry = entry.map_err(file("read folder", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(file("read", path))?,
    };
    let format = |source| NetworkError::Format { path: path.to_owned(), source };
    let read: Versioned<T> = serde_json::from_slice(&bytes).map_err(format)?;
    if read.version > VERSION {
        let text = format!("version {} is newer than this program, which knows {VERSION}", read.version);
        return Err(format(serde::de::Error::custom(text)));
    }
    Ok(Some(read.content))
}

fn write<T: Serialize>(path: &Path, content: T, durability: Durability) -> Result<()> {
    let format = |source| NetworkError::Format { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(&Versioned { version: VERSION, content }).map_err(format)?;
    let temp = path.with_extension("tmp");
    let put = || -> io::Result<()> {
        let mut file = File::create(&temp)?;
        file.write_all(&bytes)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        fs::rename(&temp, path)?;
        if durability == Durability::Disk
            && let Some(dir) = path.parent()
        {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    put().map_err(file("write", path))
}
