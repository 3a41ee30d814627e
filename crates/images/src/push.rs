//! Pushing sends an image's packed layers, configuration and manifest to a registry, as they were pulled or made.
//!
//! What the registry has is not sent; what another repository there is known to have is mounted from it.

use std::sync::Arc;

use gantry_model::digest::Digest;
use gantry_model::reference::Reference;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::catalog::{Change, ImageRecord, PinRecord};
use crate::client::{Access, Client, ClientError, Registries, RegistryAuth, Upload, pause_after};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, MAX_MANIFEST};
use crate::progress::{LayerStatus, Progress, ProgressSink};
use crate::pull::source_changes;
use crate::store::Store;

/// Layers in flight.
const IN_FLIGHT: usize = 3;

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest, under which the registry has the image.
    pub digest: Digest,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// The tag that was set, if any.
    pub tag: Option<String>,
}

impl Store {
    /// Pushes the image that has this name; a reference without tag means `latest`.
    pub async fn push(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        registries: &Arc<Registries>,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Pushed> {
        let reference = reference.clone().with_default_tag();
        let _lease = self.lease();
        let image = self.resolve(&reference.to_string())?;
        let record = self.catalog.read().images.get(&image.digest()).cloned();
        let record = record.ok_or_else(|| Error::NoSuchImage(reference.familiar()))?;
        let text = format!("The push refers to repository [{}]", reference.name());
        progress.report(Progress::Message { id: None, text });
        let manifest = self.content.read(&record.manifest.digest, MAX_MANIFEST)?;
        let client = Arc::new(Client::open(&reference, Access::Push, auth, registries).await?);
        self.push_blobs(&client, &reference, &record, image.digest(), &progress).await?;
        let selector = reference.selector();
        client.put_manifest(&selector, &record.manifest.media_type, &manifest).await?;
        let digest = record.manifest.digest;
        let blobs: Vec<Digest> = record.layers.iter().map(|layer| layer.blob.digest).collect();
        self.catalog.change(|state| {
            let mut changes = source_changes(state, &blobs, &reference.name());
            if state.images.contains_key(&image.digest()) {
                changes.push(Change::PutPin(reference.with_digest(digest), PinRecord { image }));
            }
            Ok::<_, Error>((changes, ()))
        })?;
        let size = manifest.len() as u64;
        let text = format!("{selector}: digest: {digest} size: {size}");
        progress.report(Progress::Message { id: None, text });
        Ok(Pushed { digest, size, tag: reference.tag().map(str::to_owned) })
    }

    async fn push_blobs(
        self: &Arc<Self>,
        client: &Arc<Client>,
        reference: &Reference,
        record: &ImageRecord,
        config: Digest,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<()> {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut tasks = JoinSet::new();
        let mut blobs: Vec<Descriptor> = Vec::new();
        for layer in &record.layers {
            // The same blob twice in one image is sent once.
            if !blobs.iter().any(|known| known.digest == layer.blob.digest) {
                blobs.push(layer.blob.clone());
            }
        }
        for blob in blobs {
            let task = self.push_task(client, reference, blob, Arc::clone(progress));
            task.report(LayerStatus::Preparing, 0);
            let in_flight = Arc::clone(&in_flight);
            tasks.spawn(async move {
                let _turn = in_flight.acquire_owned().await.map_err(|_| Error::Interrupted("the push"))?;
                task.run().await
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|_| Error::Interrupted("pushing a layer"))??;
        }
        let config = Descriptor::new("", config, record.config_size);
        self.push_task(client, reference, config, Arc::new(())).run().await
    }

    fn push_task(
        self: &Arc<Self>,
        client: &Arc<Client>,
        reference: &Reference,
        blob: Descriptor,
        progress: Arc<dyn ProgressSink>,
    ) -> PushTask {
        PushTask {
            store: Arc::clone(self),
            client: Arc::clone(client),
            reference: reference.clone(),
            blob,
            progress,
        }
    }
}

struct PushTask {
    store: Arc<Store>,
    client: Arc<Client>,
    reference: Reference,
    blob: Descriptor,
    progress: Arc<dyn ProgressSink>,
}

impl PushTask {
    fn report(&self, status: LayerStatus, current: u64) {
        let total = if current > 0 { self.blob.size } else { 0 };
        self.progress.report(Progress::Layer { id: self.blob.digest.short(), status, current, total });
    }

    async fn run(&self) -> Result<()> {
        let digest = &self.blob.digest;
        if self.client.has_blob(digest).await? {
            self.report(LayerStatus::LayerAlreadyExists, 0);
            return Ok(());
        }
        let source = self.mount_source();
        if let Some(source) = &source {
            self.client.add_source(source);
        }
        let mut attempt = 0;
        loop {
            let Some(location) = self.client.start_upload(digest, source.as_deref()).await? else {
                self.report(LayerStatus::Mounted, 0);
                return Ok(());
            };
            match self.upload(&location).await {
                Ok(()) => break,
                Err(Error::Client(error)) if attempt < error.retries() => {
                    tracing::debug!(%error, blob = %digest, "upload is repeated");
                    self.report(LayerStatus::Retrying, 0);
                    pause_after(&error, attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        self.report(LayerStatus::Pushed, 0);
        Ok(())
    }

    /// Another repository of the same registry that is known to have the blob.
    fn mount_source(&self) -> Option<String> {
        let state = self.store.catalog.read();
        let known = state.sources.get(&self.blob.digest)?;
        let here = self.reference.domain();
        let paths = known.iter().filter_map(|name| name.split_once('/'));
        let found = paths.filter(|(domain, path)| *domain == here && *path != self.reference.path());
        found.map(|(_, path)| path.to_owned()).next()
    }

    async fn upload(&self, location: &str) -> Result<()> {
        let path = self.store.content.path(&self.blob.digest);
        let size = self.store.content.size(&self.blob.digest)?;
        let (sent, mut watched) = watch::channel(0);
        let body = Upload::File { path, size, sent };
        let upload = self.client.upload(location, &self.blob.digest, &body);
        tokio::pin!(upload);
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tokio::select! {
                done = &mut upload => {
                    return done.map_err(|error: ClientError| error.into());
                }
                _ = pace.tick() => {
                    let sent = *watched.borrow_and_update();
                    if sent > 0 {
                        self.report(LayerStatus::Pushing, sent);
                    }
                }
            }
        }
    }
}
