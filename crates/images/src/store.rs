//! The store keeps images, layers and the root file systems of containers in one folder of this node.
//!
//! ```text
//! lock                      held by the process that has the store open
//! catalog.redb              which images, names, layers and containers there are
//! blobs/sha256/<digest>     manifests, configurations and packed layers
//! layers/<chain id>/diff    unpacked layers, never changed
//! containers/<id>/{upper,work}
//! partial/<digest>          downloads to be resumed
//! tmp/  trash/              on the way in, on the way out; emptied by the next open
//! ```
//!
//! Nothing is visible before it is complete and durable: files first, then the record. What a dying process leaves is
//! either resumed (partial), or not named by any record and so removed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use gantry_model::digest::{Digest, ImageId};

use crate::catalog::{Catalog, Change, ImageRecord, LayerRecord, LayerRef, State};
use crate::content::{ContentStore, random_name, sync_folder};
use crate::error::{Error, Result};
use crate::layer::{Expected, UnpackedLayer, sync_tree, take_layer};
use crate::trash::Trash;
use crate::unpack::Limits;

/// How long an interrupted download waits to be resumed.
const PARTIAL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The images of a node; see the module text.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    pub(crate) content: ContentStore,
    pub(crate) catalog: Catalog,
    pub(crate) trash: Trash,
    pub(crate) limits: Limits,
    leases: Mutex<Leases>,
    /// Held by a task over a whole download.
    downloads: Locks<tokio::sync::Mutex<()>>,
    /// Held by a thread while it unpacks. Not tokio's: that one panics when it is taken by a thread of the runtime.
    chains: Locks<Mutex<()>>,
    /// Held as long as the store lives.
    _lock: File,
}

/// Locks by digest, which exist as long as somebody has them.
#[derive(Debug, Default)]
struct Locks<L>(Mutex<HashMap<Digest, Weak<L>>>);

impl<L: Default> Locks<L> {
    fn of(&self, digest: &Digest) -> Arc<L> {
        let mut locks = lock(&self.0);
        if let Some(found) = locks.get(digest).and_then(Weak::upgrade) {
            return found;
        }
        locks.retain(|_, weak| weak.strong_count() > 0);
        let fresh = Arc::new(L::default());
        locks.insert(*digest, Arc::downgrade(&fresh));
        fresh
    }
}

#[derive(Debug, Default)]
struct Leases {
    held: usize,
    wanted: bool,
}

/// While one is held, nothing is collected: work in progress is not yet named by any record.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Store>);

impl Lease {
    /// Asks for a collection when the last lease is gone: the work leaves something that nobody needs.
    pub fn collect_after(&self) {
        lock(&self.0.leases).wanted = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let collect = {
            let mut leases = lock(&self.0.leases);
            leases.held -= 1;
            leases.held == 0 && std::mem::take(&mut leases.wanted)
        };
        if collect {
            let store = Arc::clone(&self.0);
            // The holder may be an async task: the disk is not for its thread.
            std::thread::spawn(move || {
                if let Err(error) = store.collect() {
                    tracing::warn!(error = error.chain(), "collection of unused layers and blobs");
                }
            });
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are counters and maps that are whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens or creates the store in `dir`, with the default limits on archives.
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<Store>> {
        Store::open_with(dir, Limits::default())
    }

    /// Opens or creates the store in `dir`: removes what a former process left half done, and checks that what the
    /// catalog names is there. Blocks on the disk.
    pub fn open_with(dir: impl AsRef<Path>, limits: Limits) -> Result<Arc<Store>> {
        let dir = dir.as_ref().to_path_buf();
        for name in ["layers", "containers", "tmp", "empty"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
        }
        // A user of the host must not run the set-user-id programs of images, nor read their files (CVE-2021-41091).
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("change mode of", &dir))?;
        let guard = take_lock(&dir)?;
        let trash = Trash::open(dir.join("trash"))?;
        discard_all(&trash, &dir.join("tmp"))?;
        let content = ContentStore::open(&dir)?;
        content.expire_partials(SystemTime::now() - PARTIAL_LIFE)?;
        let catalog = Catalog::open(&dir.join("catalog.redb"))?;
        let (leases, downloads, chains) = Default::default();
        let store = Store { dir, content, catalog, trash, limits, leases, downloads, chains, _lock: guard };
        store.check()?;
        Ok(Arc::new(store))
    }

    /// The store's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The blobs.
    pub fn content(&self) -> &ContentStore {
        &self.content
    }

    /// The folder of an unpacked layer's files.
    pub(crate) fn layer_diff(&self, chain: &Digest) -> PathBuf {
        self.layer_folder(chain).join("diff")
    }

    pub(crate) fn layer_folder(&self, chain: &Digest) -> PathBuf {
        self.dir.join("layers").join(chain.hex())
    }

    pub(crate) fn container_folder(&self, id: &str) -> PathBuf {
        self.dir.join("containers").join(id)
    }

    /// A new temporary folder; the caller renames or discards it.
    pub(crate) fn tmp_folder(&self) -> Result<PathBuf> {
        let path = self.dir.join("tmp").join(random_name());
        fs::create_dir(&path).map_err(Error::io("create folder", &path))?;
        Ok(path)
    }

    /// Keeps the collector away until the lease is dropped.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        lock(&self.leases).held += 1;
        Lease(Arc::clone(self))
    }

    /// The lock of one blob on its way here: whoever comes second finds what the first has brought.
    pub(crate) fn download_lock(&self, blob: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.downloads.of(blob)
    }

    /// The lock of one chain id: whoever comes second finds what the first has unpacked.
    pub(crate) fn chain_lock(&self, chain: &Digest) -> Arc<Mutex<()>> {
        self.chains.of(chain)
    }

    /// Compares the catalog with the disk, once at open.
    fn check(&self) -> Result<()> {
        self.catalog.change(|state| {
            let mut changes = Vec::new();
            let gone = |chain: &&Digest| !self.layer_diff(chain).is_dir();
            let lost: Vec<Digest> = state.layers.keys().filter(gone).copied().collect();
            changes.extend(lost.iter().map(|chain| Change::RemoveLayer(*chain)));
            for (id, record) in &state.images {
                if let Some(what) = self.damage(state, &lost, id, record) {
                    tracing::error!(image = %id, what, "an image is damaged on disk and is dropped");
                    changes.extend(forget_image(state, ImageId::new(*id)));
                }
            }
            Ok::<_, Error>((changes, ()))
        })?;
        self.discard_unknown()?;
        self.restore_containers()
    }

    /// A power loss may take the young folders of a container whose record is durable: it gets empty ones, so that it
    /// can be started, and removed, like any other.
    fn restore_containers(&self) -> Result<()> {
        for id in self.catalog.read().containers.keys() {
            for name in ["upper", "work"] {
                let path = self.container_folder(id).join(name);
                if !path.is_dir() {
                    tracing::warn!(container = %id, name, "a container's folder was lost and is made anew");
                    fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
                    set_plain_mode(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Why an image can't be used any more, if so. A layer that lost its folder is unpacked again from its blob.
    fn damage(
        &self,
        state: &State,
        lost: &[Digest],
        id: &Digest,
        record: &ImageRecord,
    ) -> Option<&'static str> {
        let whole = |digest: &Digest, size: u64| self.content.size(digest).is_ok_and(|found| found == size);
        if !whole(id, record.config_size) {
            return Some("its configuration is missing or cut short");
        }
        if !whole(&record.manifest.digest, record.manifest.size) {
            return Some("its manifest is missing or cut short");
        }
        let usable = |(chain, layer): (Digest, &crate::catalog::LayerRef)| {
            (state.layers.contains_key(&chain) && !lost.contains(&chain))
                || whole(&layer.blob.digest, layer.blob.size)
        };
        let all = record.chain().into_iter().zip(&record.layers).all(usable);
        (!all).then_some("a layer is missing both packed and unpacked")
    }

    /// Folders that no record names are leftovers of a process that died between making and recording, or between
    /// forgetting and removing.
    fn discard_unknown(&self) -> Result<()> {
        let state = self.catalog.read();
        let layers = self.dir.join("layers");
        for name in names(&layers)? {
            if !Digest::parse_hex(&name).is_some_and(|chain| state.layers.contains_key(&chain)) {
                self.trash.discard(&layers.join(name))?;
            }
        }
        let containers = self.dir.join("containers");
        for name in names(&containers)? {
            if !state.containers.contains_key(&name) {
                self.trash.discard(&containers.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes layers and blobs that no image and no container needs. While work is in progress, it is put off until
    /// that is done. Returns how many bytes of blobs went.
    pub fn collect(&self) -> Result<u64> {
        let mut leases = lock(&self.leases);
        if leases.held > 0 {
            leases.wanted = true;
            return Ok(0);
        }
        // The lease lock is held to the end: nothing new begins to rely on what is being removed.
        let dead = self.catalog.change(|state| {
            let live = Live::of(state);
            let dead: Vec<Digest> =
                state.layers.keys().filter(|c| !live.chains.contains(c)).copied().collect();
            let mut changes: Vec<Change> = dead.iter().map(|chain| Change::RemoveLayer(*chain)).collect();
            let unused = state.sources.keys().filter(|blob| !live.blobs.contains(blob));
            changes.extend(unused.map(|blob| Change::RemoveSource(*blob)));
            Ok::<_, Error>((changes, dead))
        })?;
        for chain in &dead {
            self.trash.discard(&self.layer_folder(chain))?;
        }
        let live = Live::of(&self.catalog.read());
        let mut freed = 0;
        for digest in self.content.list()? {
            if !live.blobs.contains(&digest) {
                freed += self.content.size(&digest).unwrap_or(0);
                self.content.remove(&digest)?;
            }
        }
        self.content.expire_partials(SystemTime::now() - PARTIAL_LIFE)?;
        drop(leases);
        Ok(freed)
    }

    /// Removes what interrupted downloads left to be resumed, unless work is in progress, which may be resuming it.
    /// Returns how many bytes went.
    pub(crate) fn discard_partials(&self) -> Result<u64> {
        let leases = lock(&self.leases);
        if leases.held > 0 {
            return Ok(0);
        }
        let freed = self.content.partials_size()?;
        self.content.expire_partials(SystemTime::now() + PARTIAL_LIFE)?;
        Ok(freed)
    }

    /// Whether an image here has this layer packed in this blob: then it was shown that they belong together.
    pub(crate) fn knows_pair(&self, layer: &LayerRef) -> bool {
        let same =
            |known: &LayerRef| known.blob.digest == layer.blob.digest && known.diff_id == layer.diff_id;
        self.catalog.read().images.values().any(|image| image.layers.iter().any(same))
    }

    /// Unpacks a layer and records it, unless it is there. `open` gives the packed bytes. The lock of the chain id must
    /// be held by the caller. Blocks.
    pub(crate) fn make_layer(
        &self,
        chain: &Digest,
        make: impl FnOnce(&Path) -> Result<UnpackedLayer>,
    ) -> Result<LayerRecord> {
        if let Some(found) = self.catalog.read().layers.get(chain) {
            return Ok(found.clone());
        }
        let folder = self.tmp_folder()?;
        let result = self.make_layer_in(&folder, chain, make);
        if result.is_err() {
            // Already moved away when the last steps failed, and then it is swept at the next open.
            let _ = self.trash.discard(&folder);
        }
        result
    }

    fn make_layer_in(
        &self,
        folder: &Path,
        chain: &Digest,
        make: impl FnOnce(&Path) -> Result<UnpackedLayer>,
    ) -> Result<LayerRecord> {
        let diff = folder.join("diff");
        fs::create_dir(&diff).map_err(Error::io("create folder", &diff))?;
        set_plain_mode(&diff)?;
        let layer = make(&diff)?;
        self.commit_layer(folder, chain, &layer)
    }

    /// Gives an unpacked folder its place in the chain and records it. The lock of the chain id must be held.
    pub(crate) fn commit_layer(
        &self,
        folder: &Path,
        chain: &Digest,
        layer: &UnpackedLayer,
    ) -> Result<LayerRecord> {
        sync_tree(folder)?;
        let target = self.layer_folder(chain);
        // A folder without a record is a leftover of a failed attempt.
        self.trash.discard(&target)?;
        fs::rename(folder, &target).map_err(Error::io("rename to", &target))?;
        sync_folder(&self.dir.join("layers"))?;
        let record = LayerRecord { diff_id: layer.diff_id, size: layer.content.bytes };
        let change = Change::PutLayer(*chain, record.clone());
        self.catalog.change(|_| Ok::<_, Error>((vec![change], ())))?;
        Ok(record)
    }

    /// Unpacks a layer from its blob in the store, unless it is there. Blocks.
    pub(crate) fn layer_from_blob(
        &self,
        chain: &Digest,
        blob: &Digest,
        diff_id: &Digest,
    ) -> Result<LayerRecord> {
        let chain_lock = self.chain_lock(chain);
        let _guard = lock(&chain_lock);
        self.make_layer(chain, |diff| {
            let expected = Expected { diff_id: Some(*diff_id), ..Expected::default() };
            let file = self.content.open_blob(blob)?;
            let taken = take_layer(file, None, diff, &expected, &self.limits);
            taken.map(|(layer, _)| layer).map_err(|source| Error::Layer { layer: blob.to_string(), source })
        })
    }
}

fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = options.map_err(Error::io("open", &path))?;
    match gantry_linux::file_lock::take(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(Error::Locked(dir.to_path_buf())),
        Err(error) => Err(Error::io("lock", &path)(error)),
    }
}

fn discard_all(trash: &Trash, folder: &Path) -> Result<()> {
    for name in names(folder)? {
        trash.discard(&folder.join(name))?;
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Mode 755 whatever the umask: it is what a container sees as the mode of its `/`.
pub(crate) fn set_plain_mode(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::io("change mode of", path))
}

/// The changes that take an image and all its names away.
pub(crate) fn forget_image(state: &State, image: ImageId) -> Vec<Change> {
    let tags =
        state.tags.iter().filter(|(_, id)| **id == image).map(|(name, _)| Change::RemoveTag(name.clone()));
    let pins = state.pins.iter().filter(|(_, pin)| pin.image == image);
    let pins = pins.map(|(name, _)| Change::RemovePin(name.clone()));
    tags.chain(pins).chain([Change::RemoveImage(image.digest())]).collect()
}

/// What images and containers need.
struct Live {
    chains: std::collections::HashSet<Digest>,
    blobs: std::collections::HashSet<Digest>,
}

impl Live {
    fn of(state: &State) -> Live {
        let mut live = Live { chains: Default::default(), blobs: Default::default() };
        for (id, record) in &state.images {
            live.chains.extend(record.chain());
            live.blobs.extend([*id, record.manifest.digest]);
            live.blobs.extend(record.layers.iter().map(|layer| layer.blob.digest));
        }
        // The index that a name was pulled by.
        live.blobs.extend(state.pins.keys().filter_map(gantry_model::reference::Reference::digest));
        for container in state.containers.values() {
            live.chains.extend(&container.chain);
        }
        live
    }
}
