//! Pulling brings an image from a registry: manifest, configuration, then the layers, two at a time, each downloaded,
//! verified, stored and unpacked in one pass.
//!
//! Dropping the future ends the pull: what is complete stays, what was under way can be resumed by the next one.

use std::sync::Arc;

use gantry_model::digest::{Digest, ImageId};
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::catalog::{Change, ImageRecord, LayerRef, PinRecord};
use crate::client::{Access, Client, Fetched, Registries, RegistryAuth};
use crate::error::{Error, Result};
use crate::oci::{
    DOCKER_CONFIG, Descriptor, ImageConfig, Index, MAX_CONFIG, MAX_LAYERS, Manifest, OCI_CONFIG, OCI_INDEX,
    OCI_MANIFEST, chain_ids, is_index,
};
use crate::progress::{LayerStatus, Progress, ProgressSink};
use crate::store::Store;

mod download;

use download::LayerTask;

/// Layers in flight: the second keeps the other core busy, a third one only makes both slower.
const IN_FLIGHT: usize = 2;

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// The platform; this host's if none is given.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: Option<RegistryAuth>,
    /// How registries are reached.
    pub registries: Arc<Registries>,
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
        let text = format!("Pulling from {}", reference.path());
        progress.report(Progress::Message { id: Some(reference.selector()), text });
        let pulled = self.pull_from_any(&reference, options, &progress).await?;
        self.report_end(&pulled, &progress);
        Ok(pulled.0)
    }

    /// Pulls all tags of a repository, one after the other (`docker pull -a`). The first that fails ends it.
    pub async fn pull_all(
        self: &Arc<Self>,
        repository: &Reference,
        options: &PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Vec<Pulled>> {
        let registry =
            Client::open(repository, Access::Pull, options.auth.clone(), &options.registries).await?;
        let tags = registry.tags().await?;
        if tags.is_empty() {
            return Err(Error::NoTags(repository.familiar()));
        }
        let mut pulled = Vec::with_capacity(tags.len());
        for tag in tags {
            let reference = repository.with_tag(&tag)?;
            pulled.push(self.pull(&reference, options, Arc::clone(&progress)).await?);
        }
        Ok(pulled)
    }

    /// Pulls from the first mirror that gives the image whole, else from the registry itself.
    async fn pull_from_any(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PullOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<(Pulled, String)> {
        let registries = &options.registries;
        for mirror in registries.before(reference.domain()) {
            let host = mirror.host.clone();
            let result = match Client::at_mirror(mirror, reference, registries).await {
                Ok(client) => self.pull_from(client, reference, options, progress).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Err(error) if next_may_do_better(&error) => told(&host, reference, &error),
                other => return other,
            }
        }
        let client = Client::open(reference, Access::Pull, options.auth.clone(), registries).await?;
        self.pull_from(client, reference, options, progress).await
    }

    async fn pull_from(
        self: &Arc<Self>,
        client: Client,
        reference: &Reference,
        options: &PullOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<(Pulled, String)> {
        let selector = reference.selector();
        let top = client.manifest(&selector).await?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let (fetched, manifest) = self.choose(&client, reference, &top, &platform).await?;
        check_config_type(reference, &manifest)?;
        let (config, raw) = self.fetch_config(&client, reference, &manifest).await?;
        check_layers(reference, &manifest, &config)?;
        if manifest_is_direct(&top, &fetched)
            && options.platform.as_ref().is_some_and(|wanted| !runs(wanted, &config))
        {
            return Err(Error::OtherPlatform {
                reference: reference.familiar(),
                found: config.platform().to_string(),
                wanted: platform.to_string(),
            });
        }
        let layers = self.pull_layers(Arc::new(client), reference, &manifest, &config, progress).await?;
        let pulled = Finished { reference: reference.clone(), top, fetched, manifest, raw, layers };
        let store = Arc::clone(self);
        blocking("recording the image", move || store.finish(pulled)).await
    }

    /// Asks a registry what a name leads to, without pulling it (`docker manifest`, services that are pinned by digest).
    pub async fn remote(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        registries: &Arc<Registries>,
    ) -> Result<Remote> {
        let reference = reference.clone().with_default_tag();
        for mirror in registries.before(reference.domain()) {
            let host = mirror.host.clone();
            let result = match Client::at_mirror(mirror, &reference, registries).await {
                Ok(client) => self.remote_at(&client, &reference).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Err(error) if next_may_do_better(&error) => told(&host, &reference, &error),
                other => return other,
            }
        }
        let client = Client::open(&reference, Access::Pull, auth, registries).await?;
        self.remote_at(&client, &reference).await
    }

    async fn remote_at(&self, client: &Client, reference: &Reference) -> Result<Remote> {
        let fetched = client.manifest(&reference.selector()).await?;
        let media_type = media_type_of(&fetched, reference)?;
        let platforms = if is_index(&media_type) {
            let index: Index = parse(&fetched.content, "index", reference)?;
            let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            platforms.filter(|platform| platform.os != "unknown").map(|platform| platform.normal()).collect()
        } else {
            let manifest: Manifest = parse(&fetched.content, "manifest", reference)?;
            let (config, _) = self.fetch_config(client, reference, &manifest).await?;
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

/// Whether the registry behind a mirror may give what the mirror did not: not if only the platform is wrong.
fn next_may_do_better(error: &Error) -> bool {
    !matches!(error, Error::NoMatchingPlatform { .. } | Error::OtherPlatform { .. })
}

fn told(mirror: &str, reference: &Reference, error: &Error) {
    tracing::warn!(mirror, image = %reference, reason = error.chain(), "the mirror gave nothing; the next registry is asked");
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

/// Artifacts (charts, signatures, …) are manifests too, but nothing that a container could be made of.
fn check_config_type(reference: &Reference, manifest: &Manifest) -> Result<()> {
    let media_type = manifest.config.media_type.as_str();
    // The last ones are what old registries and builders wrote for images.
    let image = [OCI_CONFIG, DOCKER_CONFIG, "", "application/octet-stream", "application/json", "text/html"];
    if image.contains(&media_type) {
        return Ok(());
    }
    Err(Error::Document {
        document: "manifest",
        image: reference.familiar(),
        what: format!("it is of an artifact and not of an image: its configuration is {media_type:?}"),
    })
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
