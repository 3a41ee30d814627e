//! Pulling brings an image from a registry: manifest, configuration, then the layers, two at a time, each downloaded,
//! verified, stored and unpacked in one pass.
//!
//! Dropping the future ends the pull: what is complete stays, what was under way can be resumed by the next one.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use gantry_model::digest::{Digest, ImageId};
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use http_body_util::BodyExt;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::catalog::{Change, ImageRecord, LayerRef, PinRecord};
use crate::client::{Access, Client, ClientError, Fetched, InsecureRegistries, RETRIES, RegistryAuth, pause};
use crate::error::{Error, Result};
use crate::layer::{Expected, LayerError, take_layer};
use crate::oci::{
    Descriptor, ImageConfig, Index, MAX_CONFIG, MAX_LAYERS, Manifest, OCI_INDEX, OCI_MANIFEST, chain_ids,
    is_index,
};
use crate::progress::{LayerStatus, Pace, Progress, ProgressSink};
use crate::store::Store;

/// Layers in flight: the second keeps the other core busy, a third one only makes both slower.
const IN_FLIGHT: usize = 2;
/// How long a download may stand still before it is tried again.
const STALL: Duration = Duration::from_secs(30);
/// Pieces of a download between the network and the disk.
const PIECES: usize = 32;

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// The platform; this host's if none is given.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: Option<RegistryAuth>,
    /// Registries that are spoken to without TLS.
    pub insecure: InsecureRegistries,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: ImageId,
    /// Digest of the manifest or index that the name led to.
    pub digest: Digest,
    /// Whether the name led to the same image before.
    pub up_to_date: bool,
}

/// What a name leads to at its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The platforms that it has images for.
    pub platforms: Vec<Platform>,
}

impl Store {
    /// Pulls an image; a reference without tag and digest means `latest`.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Pulled> {
        let reference = reference.clone().with_default_tag();
        let _lease = self.lease();
        let client = Client::new(&reference, Access::Pull, options.auth.clone(), &options.insecure)?;
        let selector = reference.selector();
        let text = format!("Pulling from {}", reference.path());
        progress.report(Progress::Message { id: Some(selector.clone()), text });
        let top = client.manifest(&selector).await?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let (fetched, manifest) = self.choose(&client, &reference, &top, &platform).await?;
        let (config, raw) = self.fetch_config(&client, &reference, &manifest).await?;
        check_layers(&reference, &manifest, &config)?;
        if manifest_is_direct(&top, &fetched)
            && options.platform.as_ref().is_some_and(|wanted| !runs(wanted, &config))
        {
            return Err(Error::OtherPlatform {
                reference: reference.familiar(),
                found: config.platform().to_string(),
                wanted: platform.to_string(),
            });
        }
        let layers = self.pull_layers(Arc::new(client), &reference, &manifest, &config, &progress).await?;
        let pulled = Finished { reference, top, fetched, manifest, raw, layers };
        let store = Arc::clone(self);
        let pulled = blocking("recording the image", move || store.finish(pulled)).await?;
        self.report_end(&pulled, &progress);
        Ok(pulled.0)
    }

    /// Asks a registry what a name leads to, without pulling it (`docker manifest`, services that are pinned by digest).
    pub async fn remote(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        insecure: &InsecureRegistries,
    ) -> Result<Remote> {
        let reference = reference.clone().with_default_tag();
        let client = Client::new(&reference, Access::Pull, auth, insecure)?;
        let fetched = client.manifest(&reference.selector()).await?;
        let media_type = media_type_of(&fetched, &reference)?;
        let platforms = if is_index(&media_type) {
            let index: Index = parse(&fetched.content, "index", &reference)?;
            let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            platforms.filter(|platform| platform.os != "unknown").map(|platform| platform.normal()).collect()
        } else {
            let manifest: Manifest = parse(&fetched.content, "manifest", &reference)?;
            let (config, _) = self.fetch_config(&client, &reference, &manifest).await?;
            vec![config.platform()]
        };
        Ok(Remote { media_type, digest: fetched.digest, size: fetched.content.len() as u64, platforms })
    }

    fn report_end(&self, (pulled, name): &(Pulled, String), progress: &Arc<dyn ProgressSink>) {
        let message = |text| progress.report(Progress::Message { id: None, text });
        message(format!("Digest: {}", pulled.digest));
        message(match pulled.up_to_date {
            true => format!("Status: Image is up to date for {name}"),
            false => format!("Status: Downloaded newer image for {name}"),
        });
    }

    /// The manifest for the platform: the document itself, or the best fitting entry of an index.
    async fn choose(
        &self,
        client: &Client,
        reference: &Reference,
        top: &Fetched,
        platform: &Platform,
    ) -> Result<(Fetched, Manifest)> {
        let mut document = top.clone();
        // An index may contain indexes; deeper than this nobody nests them honestly.
        for _ in 0..4 {
            let media_type = media_type_of(&document, reference)?;
            if !is_index(&media_type) {
                document.media_type = media_type;
                let manifest = parse(&document.content, "manifest", reference)?;
                return Ok((document, manifest));
            }
            let index: Index = parse(&document.content, "index", reference)?;
            let chosen = best_fit(&index, platform).ok_or_else(|| Error::NoMatchingPlatform {
                reference: reference.familiar(),
                wanted: platform.to_string(),
                offered: offered(&index),
            })?;
            document = client.manifest(&chosen.digest.to_string()).await?;
        }
        Err(Error::Document {
            document: "index",
            image: reference.familiar(),
            what: "indexes are nested too deep".to_owned(),
        })
    }

    async fn fetch_config(
        &self,
        client: &Client,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<(ImageConfig, Vec<u8>)> {
        let descriptor = &manifest.config;
        let raw = match self.content.read(&descriptor.digest, MAX_CONFIG) {
            Ok(raw) => raw,
            Err(_) => client.small_blob(&descriptor.digest, MAX_CONFIG).await?,
        };
        if raw.len() as u64 != descriptor.size {
            return Err(Error::Document {
                document: "configuration",
                image: reference.familiar(),
                what: format!("it has {} bytes instead of {}", raw.len(), descriptor.size),
            });
        }
        let config = parse(&raw, "configuration", reference)?;
        Ok((config, raw))
    }

    async fn pull_layers(
        self: &Arc<Self>,
        client: Arc<Client>,
        reference: &Reference,
        manifest: &Manifest,
        config: &ImageConfig,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Vec<LayerRef>> {
        let chain = chain_ids(&config.rootfs.diff_ids);
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut tasks = JoinSet::new();
        let pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        for (index, ((descriptor, diff_id), chain)) in pairs.zip(chain).enumerate() {
            let task = LayerTask {
                store: Arc::clone(self),
                client: Arc::clone(&client),
                descriptor: descriptor.clone(),
                diff_id: *diff_id,
                chain,
                progress: Arc::clone(progress),
            };
            task.report(LayerStatus::PullingFsLayer, 0);
            let in_flight = Arc::clone(&in_flight);
            tasks.spawn(async move {
                let _turn = in_flight.acquire_owned().await.map_err(|_| Error::Interrupted("the pull"))?;
                task.run().await.map(|layer| (index, layer))
            });
        }
        tracing::debug!(image = %reference, layers = manifest.layers.len(), "pulling layers");
        let mut layers: Vec<Option<LayerRef>> = vec![None; manifest.layers.len()];
        while let Some(done) = tasks.join_next().await {
            // The first failure ends the others: dropping the set aborts them.
            let (index, layer) = done.map_err(|_| Error::Interrupted("pulling a layer"))??;
            layers[index] = Some(layer);
        }
        Ok(layers.into_iter().flatten().collect())
    }

    /// Stores the documents and records the image and its names. Blocks.
    fn finish(&self, done: Finished) -> Result<(Pulled, String)> {
        let id = self.content.put(&done.raw)?;
        self.content.put(&done.fetched.content)?;
        self.content.put(&done.top.content)?;
        let image = ImageId::new(id);
        let media_type = done.fetched.media_type.as_str();
        let record = ImageRecord {
            manifest: Descriptor::new(media_type, done.fetched.digest, done.fetched.content.len() as u64),
            config_size: done.raw.len() as u64,
            layers: done.layers,
            stored: Timestamp::now(),
            tagged: Some(Timestamp::now()),
            parent: None,
        };
        let reference = &done.reference;
        let blobs: Vec<Digest> = done.manifest.layers.iter().map(|layer| layer.digest).collect();
        let up_to_date = self.catalog.change(|state| {
            let pin = reference.with_digest(done.top.digest);
            let mut changes = vec![Change::PutPin(pin.clone(), PinRecord { image })];
            let before = match reference.digest() {
                Some(_) => state.pins.get(&pin).map(|pin| pin.image),
                None => state.tags.get(reference).copied(),
            };
            if reference.digest().is_none() {
                changes.push(Change::PutTag(reference.clone(), image));
            }
            let known = state.images.get(&id);
            let parent = known.and_then(|known| known.parent);
            let stored = known.map_or(record.stored, |known| known.stored);
            changes.push(Change::PutImage(id, ImageRecord { parent, stored, ..record.clone() }));
            changes.extend(source_changes(state, &blobs, &reference.name()));
            Ok::<_, Error>((changes, before == Some(image) && known.is_some()))
        })?;
        Ok((Pulled { image, digest: done.top.digest, up_to_date }, reference.familiar()))
    }
}

/// Records that a repository holds these blobs.
pub(crate) fn source_changes(
    state: &crate::catalog::State,
    blobs: &[Digest],
    repository: &str,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for blob in blobs {
        let mut known = state.sources.get(blob).cloned().unwrap_or_default();
        if !known.iter().any(|name| name == repository) {
            // Newest first; a few are enough to find one to mount from.
            known.insert(0, repository.to_owned());
            known.truncate(8);
            changes.push(Change::PutSource(*blob, known));
        }
    }
    changes
}

/// All that a pull brought, to be recorded.
struct Finished {
    reference: Reference,
    top: Fetched,
    fetched: Fetched,
    manifest: Manifest,
    raw: Vec<u8>,
    layers: Vec<LayerRef>,
}

/// Runs what blocks on a thread of its own; a panic becomes an error.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted(what))?
}

fn manifest_is_direct(top: &Fetched, fetched: &Fetched) -> bool {
    top.digest == fetched.digest
}

fn runs(wanted: &Platform, config: &ImageConfig) -> bool {
    wanted.rank(&config.platform()).is_some()
}

fn parse<T: serde::de::DeserializeOwned>(
    content: &[u8],
    document: &'static str,
    reference: &Reference,
) -> Result<T> {
    serde_json::from_slice(content).map_err(|error| Error::Document {
        document,
        image: reference.familiar(),
        what: error.to_string(),
    })
}

/// The type of a document: its own word, else the registry's, else what it looks like.
fn media_type_of(document: &Fetched, reference: &Reference) -> Result<String> {
    let value: serde_json::Value = parse(&document.content, "manifest", reference)?;
    let own = value.get("mediaType").and_then(|text| text.as_str());
    let schema = value.get("schemaVersion").and_then(serde_json::Value::as_u64);
    let wrong = |what: &str| Error::Document {
        document: "manifest",
        image: reference.familiar(),
        what: what.to_owned(),
    };
    if schema != Some(2) {
        return Err(wrong("it has schema version 1, which is no longer supported; push the image again"));
    }
    if let Some(own) = own {
        return Ok(own.to_owned());
    }
    match (value.get("manifests").is_some(), value.get("config").is_some()) {
        // Both would be two documents in one (CVE-2021-41190).
        (true, true) => Err(wrong("it is both an index and a manifest")),
        (true, false) => Ok(OCI_INDEX.to_owned()),
        (false, true) => Ok(OCI_MANIFEST.to_owned()),
        (false, false) => Err(wrong("it is neither an index nor a manifest")),
    }
}

/// The entry that runs best on a platform. Attestations and the like have the platform `unknown/unknown`.
fn best_fit<'a>(index: &'a Index, platform: &Platform) -> Option<&'a Descriptor> {
    let ranked = index.manifests.iter().enumerate().filter_map(|(position, entry)| {
        let rank = match &entry.platform {
            Some(found) => platform.rank(&found.normal())?,
            None => u32::MAX,
        };
        Some((rank, position, entry))
    });
    ranked.min_by_key(|(rank, position, _)| (*rank, *position)).map(|(.., entry)| entry)
}

fn offered(index: &Index) -> String {
    let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
    let known =
        platforms.filter(|platform| platform.os != "unknown").map(|platform| platform.normal().to_string());
    let list: Vec<String> = known.take(50).collect();
    if list.is_empty() { "no entry for any platform".to_owned() } else { list.join(", ") }
}

fn check_layers(reference: &Reference, manifest: &Manifest, config: &ImageConfig) -> Result<()> {
    let wrong = |what: String| Error::Document { document: "manifest", image: reference.familiar(), what };
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if let Some(foreign) = manifest.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        return Err(wrong(format!("{:?} is not a layer that a container can have", foreign.media_type)));
    }
    if layers != diff_ids {
        return Err(wrong(format!("it has {layers} layers, but its configuration names {diff_ids}")));
    }
    if layers > MAX_LAYERS {
        return Err(wrong(format!("it has {layers} layers, more than the {MAX_LAYERS} that can be mounted")));
    }
    Ok(())
}

fn is_layer(media_type: &str) -> bool {
    media_type.is_empty() || media_type.contains("layer") || media_type.contains("rootfs.diff")
}

/// One layer to pull.
struct LayerTask {
    store: Arc<Store>,
    client: Arc<Client>,
    descriptor: Descriptor,
    diff_id: Digest,
    chain: Digest,
    progress: Arc<dyn ProgressSink>,
}

impl LayerTask {
    fn report(&self, status: LayerStatus, current: u64) {
        let total = if current > 0 { self.descriptor.size } else { 0 };
        self.progress.report(Progress::Layer { id: self.descriptor.digest.short(), status, current, total });
    }

    async fn run(self) -> Result<LayerRef> {
        let blob = self.descriptor.digest;
        // Another pull may be at the same layer: who comes second finds it done.
        let blob_lock = self.store.download_lock(&blob).lock_owned().await;
        let unpacked = self.store.catalog.read().layers.contains_key(&self.chain);
        let stored = self.store.content.size(&blob).is_ok_and(|size| size == self.descriptor.size);
        let layer = LayerRef { blob: self.descriptor.clone(), diff_id: self.diff_id };
        if unpacked && stored {
            self.report(LayerStatus::AlreadyExists, 0);
            return Ok(layer);
        }
        if stored {
            self.report(LayerStatus::Extracting, self.descriptor.size);
            let (store, chain, diff_id) = (Arc::clone(&self.store), self.chain, self.diff_id);
            let guard = blob_lock;
            blocking("unpacking a layer", move || {
                let _guard = guard;
                store.layer_from_blob(&chain, &blob, &diff_id)
            })
            .await?;
            self.report(LayerStatus::PullComplete, 0);
            return Ok(layer);
        }
        self.download(blob_lock).await?;
        self.report(LayerStatus::PullComplete, 0);
        Ok(layer)
    }

    /// Downloads and unpacks at once: the network's pieces go to a blocking thread that hashes, stores and unpacks.
    async fn download(&self, guard: tokio::sync::OwnedMutexGuard<()>) -> Result<()> {
        let (pieces, incoming) = mpsc::channel(PIECES);
        let (offset, offset_known) = oneshot::channel();
        let sink = Sink {
            store: Arc::clone(&self.store),
            descriptor: self.descriptor.clone(),
            diff_id: self.diff_id,
            chain: self.chain,
        };
        let worker = tokio::task::spawn_blocking(move || {
            // Released when the thread is done with the files, also if the pull itself was given up long before.
            let _guard = guard;
            sink.take(incoming, offset)
        });
        let fed = match offset_known.await {
            Ok(offset) => self.feed(offset, &pieces).await,
            // The worker failed before it could begin; it has the reason.
            Err(_) => Ok(()),
        };
        if fed.is_ok() {
            let _ = pieces.send(Piece::End).await;
        }
        drop(pieces);
        let taken = worker.await.map_err(|_| Error::Interrupted("unpacking a layer"))?;
        // When the download failed, the worker only saw the stream break.
        fed?;
        taken
    }

    /// Feeds the blob from `offset` on, resuming where a connection broke.
    async fn feed(&self, mut offset: u64, pieces: &mpsc::Sender<Piece>) -> Result<()> {
        let mut pace = Pace::new();
        let mut attempt = 0;
        while offset < self.descriptor.size {
            let before = offset;
            let result = self.feed_once(&mut offset, pieces, &mut pace).await;
            match result {
                Ok(Fed::All | Fed::ReceiverGone) => break,
                // In the middle of a pull, a registry that refuses connections is probably one that restarts.
                Err(error) if error.is_transient() || matches!(error, ClientError::Connect { .. }) => {
                    // What moves forward is not broken for good.
                    attempt = if offset > before { 0 } else { attempt + 1 };
                    if attempt > RETRIES {
                        return Err(error.into());
                    }
                    tracing::debug!(%error, layer = %self.descriptor.digest, offset, "download is resumed");
                    self.report(LayerStatus::Retrying, 0);
                    pause(attempt).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.report(LayerStatus::VerifyingChecksum, 0);
        self.report(LayerStatus::DownloadComplete, 0);
        self.report(LayerStatus::Extracting, self.descriptor.size);
        Ok(())
    }

    async fn feed_once(
        &self,
        offset: &mut u64,
        pieces: &mpsc::Sender<Piece>,
        pace: &mut Pace,
    ) -> std::result::Result<Fed, ClientError> {
        let digest = &self.descriptor.digest;
        let (answer, start) = self.client.blob(digest, *offset).await?;
        let length = answer.headers().get(http::header::CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(length) = length.filter(|length| start.checked_add(*length) != Some(self.descriptor.size))
        {
            let promised = self.descriptor.size;
            let what = format!(
                "blob {digest} has {} bytes, the manifest says {promised}",
                start.saturating_add(length)
            );
            return Err(ClientError::Protocol { url: "registry".to_owned(), what });
        }
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken {
            method: http::Method::GET,
            url: format!("blob {digest}"),
            source,
        };
        let mut body = answer.into_body();
        // A registry without Range sends all of it again.
        let mut skip = *offset - start;
        while *offset < self.descriptor.size {
            let frame = tokio::time::timeout(STALL, body.frame()).await;
            let frame = frame.map_err(|_| broken(Box::new(io::Error::from(io::ErrorKind::TimedOut))))?;
            let Some(frame) = frame else {
                return Err(broken(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof))));
            };
            let Ok(mut data) = frame.map_err(|error| broken(error.into()))?.into_data() else { continue };
            let skipped = skip.min(data.len() as u64);
            data.advance(usize::try_from(skipped).unwrap_or(0));
            skip -= skipped;
            if data.len() as u64 > self.descriptor.size - *offset {
                let what = format!("blob {digest} is longer than the manifest says");
                return Err(ClientError::Protocol { url: "registry".to_owned(), what });
            }
            *offset += data.len() as u64;
            if !data.is_empty() && pieces.send(Piece::Data(data)).await.is_err() {
                return Ok(Fed::ReceiverGone);
            }
            if pace.due() {
                self.report(LayerStatus::Downloading, *offset);
            }
        }
        // A body that goes on would be a lie about the length.
        match tokio::time::timeout(STALL, body.frame()).await {
            Ok(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| !data.is_empty()) => {
                let what = format!("blob {digest} is longer than the manifest says");
                Err(ClientError::Protocol { url: "registry".to_owned(), what })
            }
            _ => Ok(Fed::All),
        }
    }
}

enum Fed {
    All,
    ReceiverGone,
}

enum Piece {
    Data(Bytes),
    End,
}

/// The disk's side of a download.
struct Sink {
    store: Arc<Store>,
    descriptor: Descriptor,
    diff_id: Digest,
    chain: Digest,
}

impl Sink {
    fn take(self, incoming: mpsc::Receiver<Piece>, offset: oneshot::Sender<u64>) -> Result<()> {
        let name = self.descriptor.digest.hex();
        let result = self.take_into(&name, incoming, offset);
        if result.as_ref().is_err_and(is_damage) {
            // Resuming what is wrong would only make it wrong again.
            self.store.content.discard_partial(&name)?;
        }
        result
    }

    fn take_into(
        &self,
        name: &str,
        incoming: mpsc::Receiver<Piece>,
        offset: oneshot::Sender<u64>,
    ) -> Result<()> {
        let content = &self.store.content;
        let path = content.partial_path(name);
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > self.descriptor.size) {
            content.discard_partial(name)?;
        }
        // What a former attempt left is hashed by resuming it, and read once more for unpacking.
        let ingest = content.resume(name, |_| Ok(()))?;
        let earlier = std::fs::File::open(&path).map_err(Error::io("open", &path))?.take(ingest.length());
        let _ = offset.send(ingest.length());
        let source = earlier.chain(Incoming { incoming, piece: Bytes::new(), ended: false });
        let expected = Expected {
            digest: Some(self.descriptor.digest),
            size: Some(self.descriptor.size),
            diff_id: Some(self.diff_id),
        };
        let failed = |source| Error::Layer { layer: self.descriptor.digest.to_string(), source };
        let chain_lock = self.store.chain_lock(&self.chain);
        let _guard = crate::store::lock(&chain_lock);
        if self.store.catalog.read().layers.contains_key(&self.chain) {
            // Only the blob is missing.
            return store_only(source, ingest, &expected).map_err(failed);
        }
        let limits = &self.store.limits;
        let make = |diff: &std::path::Path| {
            take_layer(source, Some(ingest), diff, &expected, limits).map(|(layer, _)| layer).map_err(failed)
        };
        self.store.make_layer(&self.chain, make).map(drop)
    }
}

fn store_only(
    mut source: impl Read,
    mut ingest: crate::content::Ingest,
    expected: &Expected,
) -> std::result::Result<(), LayerError> {
    let mut old = ingest.length();
    let mut buffer = vec![0u8; 128 * 1024];
    loop {
        let count = source.read(&mut buffer).map_err(LayerError::Read)?;
        if count == 0 {
            let stored = ingest.commit(expected.digest.as_ref(), expected.size);
            return stored.map(drop).map_err(LayerError::Content);
        }
        let known = usize::try_from(old.min(count as u64)).unwrap_or(count);
        old -= known as u64;
        ingest.append(&buffer[known..count]).map_err(LayerError::Content)?;
    }
}

/// Whether the bytes themselves are wrong, as opposed to an interruption.
fn is_damage(error: &Error) -> bool {
    let Error::Layer { source, .. } = error else { return false };
    match source {
        LayerError::Read(cause) => cause.kind() != io::ErrorKind::ConnectionAborted,
        LayerError::Folder { .. } => false,
        _ => true,
    }
}

/// Reads the pieces of a download. If they end without the end mark, the download was given up.
struct Incoming {
    incoming: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.incoming.blocking_recv() {
                Some(Piece::Data(data)) => self.piece = data,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
