//! The catalog says which images, names and layers there are, and which containers stand on them.
//!
//! It lives in memory and is written through to redb: a change is one list of puts and removals, durable in one
//! transaction before it shows. Files are made before their records and removed after them, so a record that is there
//! can be relied on, and a file without a record is garbage.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use gantry_database::Database;
use gantry_model::digest::{Digest, ImageId};
use gantry_model::reference::Reference;
use jiff::Timestamp;
use redb::{ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, chain_ids};

/// The one table: `kind/key` to a JSON document.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Version of the documents; greater ones are of a newer Gantry and are not touched.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "format";

/// A catalog that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database failed.
    #[error("{act} the image catalog (images/catalog.redb)")]
    Database {
        /// What was tried.
        act: &'static str,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record does not parse.
    #[error("image catalog: record {key} is damaged")]
    Record {
        /// Its key.
        key: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a newer version.
    #[error("image catalog has format {found}, this version knows up to {FORMAT}")]
    Newer {
        /// The format found.
        found: u32,
    },
}

type Result<T> = std::result::Result<T, CatalogError>;

impl From<redb::Error> for CatalogError {
    fn from(source: redb::Error) -> Self {
        CatalogError::Database { act: "change", source: Box::new(source) }
    }
}

fn database<E: Into<redb::Error>>(act: &'static str) -> impl FnOnce(E) -> CatalogError {
    move |source| CatalogError::Database { act, source: Box::new(source.into()) }
}

/// One layer of an image: the packed blob, and the digest of the plain tar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// The packed blob.
    pub blob: Descriptor,
    /// Digest of the plain tar.
    pub diff_id: Digest,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The manifest: media type, digest, size.
    pub manifest: Descriptor,
    /// The configuration's size.
    pub config_size: u64,
    /// The layers, lowest first.
    pub layers: Vec<LayerRef>,
    /// When it came here.
    pub stored: Timestamp,
    /// When a name was last put on it.
    #[serde(default)]
    pub tagged: Option<Timestamp>,
    /// The image that it was committed from.
    #[serde(default)]
    pub parent: Option<ImageId>,
}

impl ImageRecord {
    /// The chain ids of its layers, lowest first.
    pub fn chain(&self) -> Vec<Digest> {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|layer| layer.diff_id).collect();
        chain_ids(&diff_ids)
    }
}

/// An unpacked layer on its place in a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the plain tar.
    pub diff_id: Digest,
    /// Bytes of file content.
    pub size: u64,
}

/// A container's root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The image.
    pub image: ImageId,
    /// Chain ids of the layers, lowest first.
    pub chain: Vec<Digest>,
}

/// A name that leads to an image by the digest of a manifest or index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRecord {
    /// The image.
    pub image: ImageId,
}

/// All that the catalog knows.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Images by id.
    pub images: BTreeMap<Digest, ImageRecord>,
    /// Names with a tag.
    pub tags: BTreeMap<Reference, ImageId>,
    /// Names with a digest.
    pub pins: BTreeMap<Reference, PinRecord>,
    /// Unpacked layers by chain id.
    pub layers: BTreeMap<Digest, LayerRecord>,
    /// Root file systems by container.
    pub containers: BTreeMap<String, ContainerRecord>,
    /// Repositories that are known to hold a blob, for mounts across repositories.
    pub sources: BTreeMap<Digest, Vec<String>>,
}

/// One change to the catalog.
#[derive(Clone, Debug)]
pub enum Change {
    /// Stores or replaces an image.
    PutImage(Digest, ImageRecord),
    /// Forgets an image.
    RemoveImage(Digest),
    /// Puts a name with a tag on an image.
    PutTag(Reference, ImageId),
    /// Takes a name away.
    RemoveTag(Reference),
    /// Puts a name with a digest on an image.
    PutPin(Reference, PinRecord),
    /// Takes a name away.
    RemovePin(Reference),
    /// Records an unpacked layer.
    PutLayer(Digest, LayerRecord),
    /// Forgets an unpacked layer.
    RemoveLayer(Digest),
    /// Records a container's root file system.
    PutContainer(String, ContainerRecord),
    /// Forgets it.
    RemoveContainer(String),
    /// Records where a blob is.
    PutSource(Digest, Vec<String>),
    /// Forgets where a blob is.
    RemoveSource(Digest),
}

impl Change {
    fn key(&self) -> String {
        match self {
            Change::PutImage(id, _) | Change::RemoveImage(id) => format!("image/{}", id.hex()),
            Change::PutTag(name, _) | Change::RemoveTag(name) => format!("tag/{name}"),
            Change::PutPin(name, _) | Change::RemovePin(name) => format!("pin/{name}"),
            Change::PutLayer(chain, _) | Change::RemoveLayer(chain) => format!("layer/{}", chain.hex()),
            Change::PutContainer(id, _) | Change::RemoveContainer(id) => format!("container/{id}"),
            Change::PutSource(blob, _) | Change::RemoveSource(blob) => format!("source/{}", blob.hex()),
        }
    }

    /// The document to store; `None` removes the record.
    fn document(&self) -> serde_json::Result<Option<Vec<u8>>> {
        match self {
            Change::PutImage(_, record) => serde_json::to_vec(record).map(Some),
            Change::PutTag(_, image) => serde_json::to_vec(image).map(Some),
            Change::PutPin(_, record) => serde_json::to_vec(record).map(Some),
            Change::PutLayer(_, record) => serde_json::to_vec(record).map(Some),
            Change::PutContainer(_, record) => serde_json::to_vec(record).map(Some),
            Change::PutSource(_, names) => serde_json::to_vec(names).map(Some),
            _ => Ok(None),
        }
    }

    fn apply(self, state: &mut State) {
        match self {
            Change::PutImage(id, record) => drop(state.images.insert(id, record)),
            Change::RemoveImage(id) => drop(state.images.remove(&id)),
            Change::PutTag(name, image) => drop(state.tags.insert(name, image)),
            Change::RemoveTag(name) => drop(state.tags.remove(&name)),
            Change::PutPin(name, record) => drop(state.pins.insert(name, record)),
            Change::RemovePin(name) => drop(state.pins.remove(&name)),
            Change::PutLayer(chain, record) => drop(state.layers.insert(chain, record)),
            Change::RemoveLayer(chain) => drop(state.layers.remove(&chain)),
            Change::PutContainer(id, record) => drop(state.containers.insert(id, record)),
            Change::RemoveContainer(id) => drop(state.containers.remove(&id)),
            Change::PutSource(blob, names) => drop(state.sources.insert(blob, names)),
            Change::RemoveSource(blob) => drop(state.sources.remove(&blob)),
        }
    }
}

/// The catalog of one store.
#[derive(Debug)]
pub struct Catalog {
    database: Database,
    state: RwLock<State>,
    /// Held from the decision to the moment its result shows: the next one decides on what the last one left.
    writer: Mutex<()>,
}

impl Catalog {
    /// Opens or creates the catalog in this file.
    pub fn open(path: &Path) -> Result<Catalog> {
        // The state is in memory; the database's own cache would hold it twice.
        let db = Database::open(path, 1024 * 1024).map_err(database("open"))?;
        db.write(|transaction| {
            let mut table = transaction.open_table(RECORDS).map_err(database("open"))?;
            let found = table.get(FORMAT_KEY).map_err(database("read"))?.map(|v| v.value().to_vec());
            match found {
                Some(text) => match parse(FORMAT_KEY, &text)? {
                    found if found > FORMAT => Err(CatalogError::Newer { found }),
                    _ => Ok(()),
                },
                None => {
                    let text = FORMAT.to_string();
                    table.insert(FORMAT_KEY, text.as_bytes()).map_err(database("write"))?;
                    Ok(())
                }
            }
        })?;
        let state = load(&db)?;
        Ok(Catalog { database: db, state: RwLock::new(state), writer: Mutex::new(()) })
    }

    /// What the catalog says now.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while the lock was held can't have left the state half changed: changes are applied after all that
        // can fail.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the changes that `decide` derives from the state, durably and all at once.
    pub fn change<T, E: From<CatalogError>>(
        &self,
        decide: impl FnOnce(&State) -> std::result::Result<(Vec<Change>, T), E>,
    ) -> std::result::Result<T, E> {
        // The state itself is locked for writing only at the very end, so readers never wait for the disk.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, result) = decide(&self.read())?;
        if changes.is_empty() {
            return Ok(result);
        }
        self.write(&changes)?;
        Ok(self.publish(changes, result))
    }

    fn publish<T>(&self, changes: Vec<Change>, result: T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| change.apply(&mut state));
        result
    }

    fn write(&self, changes: &[Change]) -> Result<()> {
        self.database.write(|transaction| {
            let mut table = transaction.open_table(RECORDS).map_err(database("change"))?;
            for change in changes {
                let key = change.key();
                let document =
                    change.document().map_err(|source| CatalogError::Record { key: key.clone(), source })?;
                match document {
                    Some(text) => {
                        drop(table.insert(key.as_str(), text.as_slice()).map_err(database("change"))?)
                    }
                    None => drop(table.remove(key.as_str()).map_err(database("change"))?),
                }
            }
            Ok(())
        })
    }
}

fn parse<T: DeserializeOwned>(key: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|source| CatalogError::Record { key: key.to_owned(), source })
}

fn load(db: &Database) -> Result<State> {
    db.read(|transaction| {
        let table = transaction.open_table(RECORDS).map_err(database("read"))?;
        let mut state = State::default();
        for record in table.iter().map_err(database("read"))? {
            let (key, value) = record.map_err(database("read"))?;
            // One damaged record must not take the rest of the images away.
            if let Err(error) = load_record(&mut state, key.value(), value.value()) {
                tracing::error!(%error, "a record of the image catalog is left out");
            }
        }
        Ok(state)
    })
}

fn load_record(state: &mut State, key: &str, value: &[u8]) -> Result<()> {
    let Some((kind, name)) = key.split_once('/') else { return Ok(()) };
    let digest = Digest::parse_hex(name);
    let reference = || Reference::parse(name).ok();
    match (kind, digest) {
        ("image", Some(id)) => drop(state.images.insert(id, parse(key, value)?)),
        ("layer", Some(chain)) => drop(state.layers.insert(chain, parse(key, value)?)),
        ("source", Some(blob)) => drop(state.sources.insert(blob, parse(key, value)?)),
        ("container", _) => drop(state.containers.insert(name.to_owned(), parse(key, value)?)),
        ("tag", _) => {
            if let Some(name) = reference() {
                state.tags.insert(name, parse(key, value)?);
            }
        }
        ("pin", _) => {
            if let Some(name) = reference() {
                state.pins.insert(name, parse(key, value)?);
            }
        }
        _ => tracing::warn!(key, "the image catalog has a record of unknown kind"),
    }
    Ok(())
}
