//! One layer of a pull: downloaded, verified, stored and unpacked in one pass, resumed where a connection broke.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use gantry_model::digest::Digest;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};

use super::blocking;
use crate::catalog::LayerRef;
use crate::client::{Client, ClientError, RETRIES, pause_after};
use crate::error::{Error, Result};
use crate::layer::{Expected, LayerError, store_layer, take_layer};
use crate::oci::Descriptor;
use crate::progress::{LayerStatus, Pace, Progress, ProgressSink};
use crate::store::Store;

/// How long a download may stand still before it is tried again.
const STALL: Duration = Duration::from_secs(30);
/// Pieces of a download between the network and the disk.
const PIECES: usize = 32;

/// One layer to pull.
pub(super) struct LayerTask {
    pub store: Arc<Store>,
    pub client: Arc<Client>,
    pub descriptor: Descriptor,
    pub diff_id: Digest,
    pub chain: Digest,
    pub progress: Arc<dyn ProgressSink>,
}

impl LayerTask {
    pub fn report(&self, status: LayerStatus, current: u64) {
        let total = if current > 0 { self.descriptor.size } else { 0 };
        self.progress.report(Progress::Layer { id: self.descriptor.digest.short(), status, current, total });
    }

    pub async fn run(self) -> Result<LayerRef> {
        let blob = self.descriptor.digest;
        // Another pull may be at the same layer: who comes second finds it done.
        let blob_lock = self.store.download_lock(&blob).lock_owned().await;
        let unpacked = self.store.catalog.read().layers.contains_key(&self.chain);
        let stored = self.store.content.size(&blob).is_ok_and(|size| size == self.descriptor.size);
        let layer = LayerRef { blob: self.descriptor.clone(), diff_id: self.diff_id };
        if unpacked && stored && self.store.knows_pair(&layer) {
            self.report(LayerStatus::AlreadyExists, 0);
            return Ok(layer);
        }
        if stored {
            self.report(LayerStatus::Extracting, self.descriptor.size);
            let (store, chain, diff_id) = (Arc::clone(&self.store), self.chain, self.diff_id);
            let guard = blob_lock;
            blocking("unpacking a layer", move || {
                let _guard = guard;
                if unpacked {
                    // The manifest says that this blob is the packed form of a layer that is here: it may lie.
                    return store.check_diff_id(&blob, &diff_id);
                }
                store.layer_from_blob(&chain, &blob, &diff_id).map(drop)
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
                Err(error) if error.is_transient() || error.is_unreachable() => {
                    // What moves forward is not broken for good.
                    attempt = if offset > before { 0 } else { attempt + 1 };
                    if attempt > error.retries().max(u32::from(error.is_unreachable()) * RETRIES) {
                        return Err(error.into());
                    }
                    tracing::debug!(%error, layer = %self.descriptor.digest, offset, "download is resumed");
                    self.report(LayerStatus::Retrying, 0);
                    pause_after(&error, attempt).await;
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
            return store_layer(source, ingest, &expected, &self.store.limits).map_err(failed);
        }
        let limits = &self.store.limits;
        let make = |diff: &std::path::Path| {
            take_layer(source, Some(ingest), diff, &expected, limits).map(|(layer, _)| layer).map_err(failed)
        };
        self.store.make_layer(&self.chain, make).map(drop)
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
