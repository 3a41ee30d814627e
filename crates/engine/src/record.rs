//! What the engine remembers of a container across restarts, and the database that keeps it.
//!
//! Records are JSON documents in one redb file. A writer thread takes everything that waits and commits it in one
//! transaction, so that many containers share one fsync. Durable before the caller is answered: creation, removal,
//! renaming, updates and the user's stop. Written soon after (the truth is meanwhile in the monitors' folders): starts,
//! ends and health.

use crate::error::{Error, Result, io};
use crate::mounts::ContainerMount;
use crate::view::StateView;
use gantry_database::Database;
use gantry_model::container::{ContainerConfig, HostConfig, PortMap};
use gantry_model::id::ContainerId;
use gantry_model::network::EndpointSettings;
use jiff::Timestamp;
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// Version of the documents; a newer engine migrates older ones when it opens.
pub(crate) const FORMAT: u32 = 1;

/// A container as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub format: u32,
    pub id: ContainerId,
    pub name: String,
    pub created: Timestamp,
    pub image_id: String,
    pub platform: String,
    pub config: ContainerConfig,
    pub host: HostConfig,
    /// Endpoint of each network by network name: what was asked, and what it has while it runs.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Ports published while it runs.
    #[serde(default)]
    pub ports: PortMap,
    #[serde(default)]
    pub sandbox_key: PathBuf,
    pub mounts: Vec<ContainerMount>,
    pub rootfs: Rootfs,
    pub log: LogChoice,
    pub state: StateView,
    #[serde(default)]
    pub restart_count: u32,
    /// The user stopped or killed it: `unless-stopped` leaves it so.
    #[serde(default)]
    pub stopped_by_user: bool,
    #[serde(default)]
    pub has_run: bool,
    /// Files in memory: path inside and on the host.
    #[serde(default)]
    pub files: Vec<(String, PathBuf)>,
}

/// The layers of a container's file system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Rootfs {
    /// Read-only layers, top-most first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogChoice {
    /// Nowhere.
    None,
    /// Docker's json-file, rotated.
    JsonFile { max_size: u64, max_file: u32 },
}

/// A volume as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub name: String,
    pub created: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub anonymous: bool,
}

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Containers,
    Volumes,
}

/// Bytes that the database may keep of its file: everything is read once, and then only written.
const CACHE: usize = 4 * 1024 * 1024;

const CONTAINERS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("containers");
const VOLUMES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("volumes");

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        match self {
            Self::Containers => CONTAINERS,
            Self::Volumes => VOLUMES,
        }
    }
}

struct Change {
    table: Table,
    key: String,
    /// None removes.
    value: Option<Vec<u8>>,
    done: oneshot::Sender<std::result::Result<(), String>>,
}

/// The database of one engine.
#[derive(Debug)]
pub(crate) struct Records {
    queue: Mutex<Option<mpsc::Sender<Change>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub containers: Vec<Record>,
    pub volumes: HashMap<String, VolumeRecord>,
}

impl Records {
    /// Opens the database and reads all of it.
    pub fn open(path: &Path) -> Result<(Records, Kept)> {
        let failed =
            |act: &'static str| move |error: redb::Error| Error::Records { act, source: Box::new(error) };
        let database = Database::open(path, CACHE).map_err(failed("open"))?;
        prepare(&database).map_err(failed("prepare"))?;
        let kept = Kept {
            containers: load(&database, Table::Containers)?,
            volumes: load(&database, Table::Volumes)?
                .into_iter()
                .map(|v: VolumeRecord| (v.name.clone(), v))
                .collect(),
        };
        let (queue, changes) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || write_all(&database, &changes))
            .map_err(io("start the writer of", path))?;
        Ok((Records { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) }, kept))
    }

    fn send(&self, change: Change) {
        if let Some(queue) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = queue.send(change);
        }
    }

    /// Writes a document; the future ends when it is on disk. Dropping it does not take the write back.
    pub fn put<T: Serialize>(
        &self,
        table: Table,
        key: &str,
        document: &T,
    ) -> impl Future<Output = Result<()>> + Send + use<T> {
        let value = serde_json::to_vec(document)
            .map_err(|source| Error::Document { act: format!("write the record of {key}"), source });
        let (done, ended) = oneshot::channel();
        let queued = value.map(|value| {
            self.send(Change { table, key: key.to_owned(), value: Some(value), done });
        });
        async move {
            queued?;
            committed(ended).await
        }
    }

    /// Removes a document; the future ends when that is on disk.
    pub fn remove(&self, table: Table, key: &str) -> impl Future<Output = Result<()>> + Send + use<> {
        let (done, ended) = oneshot::channel();
        self.send(Change { table, key: key.to_owned(), value: None, done });
        committed(ended)
    }

    /// Writes what waits and closes the database.
    pub fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.close();
    }
}

async fn committed(ended: oneshot::Receiver<std::result::Result<(), String>>) -> Result<()> {
    match ended.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(Error::Records {
            act: "write",
            source: Box::new(redb::Error::Io(std::io::Error::other(reason))),
        }),
        Err(_) => Err(Error::Cancelled("the engine's records")),
    }
}

fn prepare(database: &Database) -> std::result::Result<(), redb::Error> {
    database.write(|transaction| {
        transaction.open_table(CONTAINERS)?;
        transaction.open_table(VOLUMES)?;
        Ok(())
    })
}

fn load<T: DeserializeOwned>(database: &Database, table: Table) -> Result<Vec<T>> {
    let rows = database.read(|transaction| {
        let table = transaction.open_table(table.definition())?;
        let mut all = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            all.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(all)
    });
    let rows =
        rows.map_err(|source: redb::Error| Error::Records { act: "read", source: Box::new(source) })?;
    let mut documents = Vec::with_capacity(rows.len());
    for (key, bytes) in rows {
        match serde_json::from_slice(&bytes) {
            Ok(document) => documents.push(document),
            // One unreadable record must not take the whole node down; it stays in the file.
            Err(error) => tracing::error!(key, %error, "skip a record that cannot be read"),
        }
    }
    Ok(documents)
}

/// Commits everything that waits in one transaction, again and again until the queue is closed.
fn write_all(database: &Database, changes: &mpsc::Receiver<Change>) {
    while let Ok(first) = changes.recv() {
        let mut batch = vec![first];
        batch.extend(changes.try_iter());
        let outcome = commit(database, &batch).map_err(|error| error.to_string());
        if let Err(error) = &outcome {
            tracing::error!(%error, "write the engine's records");
        }
        for change in batch {
            let _ = change.done.send(outcome.clone());
        }
    }
}

fn commit(database: &Database, batch: &[Change]) -> std::result::Result<(), redb::Error> {
    database.write(|transaction| {
        let mut containers = transaction.open_table(CONTAINERS)?;
        let mut volumes = transaction.open_table(VOLUMES)?;
        for change in batch {
            let table = match change.table {
                Table::Containers => &mut containers,
                Table::Volumes => &mut volumes,
            };
            match &change.value {
                Some(value) => drop(table.insert(change.key.as_str(), value.as_slice())?),
                None => drop(table.remove(change.key.as_str())?),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_there_after_opening_again() {
        let folder = std::env::temp_dir().join(format!("gty-{}-records", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("engine.redb");
        let volume = |name: &str| VolumeRecord {
            name: name.to_owned(),
            created: Timestamp::UNIX_EPOCH,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            anonymous: false,
        };
        {
            let (records, kept) = Records::open(&path).unwrap();
            assert!(kept.volumes.is_empty());
            let all =
                (0..50).map(|n| records.put(Table::Volumes, &format!("v{n}"), &volume(&format!("v{n}"))));
            for written in all.collect::<Vec<_>>() {
                written.await.unwrap();
            }
            records.remove(Table::Volumes, "v7").await.unwrap();
        }
        let (_records, kept) = Records::open(&path).unwrap();
        assert_eq!(kept.volumes.len(), 49);
        assert!(!kept.volumes.contains_key("v7"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
