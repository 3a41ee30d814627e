//! An OCI registry: the server side of the distribution specification 1.1 over the content store of the images crate.
//!
//! Map: [`repository`] keeps what belongs to which repository; [`upload`] takes blobs in; [`manifest`] checks and stores
//! manifests; [`collect`] removes what nothing refers to, while the service goes on; the `http` module reads requests
//! and writes answers; [`problem`] has the specification's error codes; [`access`] knows who may do what, [`tls`] has the
//! certificate.
//!
//! Tasks: one per request; one timer in [`Registry::serve`] that collects garbage; with TLS one that accepts, and one for
//! each handshake. All end with the stop signal.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use gantry_images::content::{ContentError, ContentStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod access;
pub mod collect;
mod http;
pub mod manifest;
pub mod problem;
pub mod repository;
mod stamp;
pub mod tls;
pub mod upload;

pub use access::{Access, Tokens, Users, Way};
pub use collect::Collected;
use repository::Repositories;
pub use tls::Tls;
use upload::Uploads;

/// How a registry looks after itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Between two collections of garbage.
    pub collect_every: Duration,
    /// How long a blob that nothing refers to is kept: the time that a push may take.
    pub blob_grace: Duration,
    /// How long a manifest without a tag is kept; for ever if `None`. Services are pinned by digest, so this is to be
    /// longer than any rollout.
    pub untagged_grace: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        let hour = Duration::from_secs(3600);
        Options { collect_every: hour, blob_grace: 6 * hour, untagged_grace: None }
    }
}

/// How long answers under way may take when the registry stops.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// The side of a registry that clients meet: without TLS and open to everybody by default.
#[derive(Debug, Default)]
pub struct Front {
    /// Its certificate.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
}

/// A registry over one folder.
#[derive(Debug)]
pub struct Registry {
    pub(crate) content: ContentStore,
    pub(crate) repositories: Repositories,
    pub(crate) uploads: Uploads,
    /// Held for reading while references to blobs are checked and made, for writing while blobs are removed.
    pub(crate) gate: RwLock<()>,
    pub(crate) options: Options,
}

impl Registry {
    /// Opens or creates a registry in `dir` with default options.
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<Registry>, ContentError> {
        Registry::open_with(dir, Options::default())
    }

    /// Opens or creates a registry in `dir`. Uploads of a former process are gone: clients start them again.
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Arc<Registry>, ContentError> {
        let dir = dir.as_ref();
        let content = ContentStore::open(dir)?;
        content.expire_partials(SystemTime::now() + Duration::from_secs(1))?;
        let repositories = Repositories::open(&dir.join("repositories"), &content)?;
        let (uploads, gate) = Default::default();
        Ok(Arc::new(Registry { content, repositories, uploads, gate, options }))
    }

    /// The routes of the registry (`/v2/…`), to be served by anyone.
    pub fn router(self: &Arc<Self>, access: Arc<Access>) -> axum::Router {
        http::router(Arc::clone(self), access)
    }

    /// Serves on a listener, and collects garbage by the timer, until `stop` is cancelled. Answers under way then have
    /// [`FAREWELL`] to come to their end.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        front: Front,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let timer = tokio::spawn(Arc::clone(self).collect_by_timer(stop.clone()));
        let router = self.router(Arc::new(front.access));
        let served = match front.tls {
            None => serve_until(listener, router, stop.clone()).await,
            Some(tls) => match tls.listen(listener) {
                Ok(listener) => serve_until(listener, router, stop.clone()).await,
                Err(error) => Err(error),
            },
        };
        // The listener may have failed by itself.
        stop.cancel();
        if timer.await.is_err() {
            tracing::error!("the timer of the registry's collection panicked");
        }
        served
    }

    async fn collect_by_timer(self: Arc<Self>, stop: CancellationToken) {
        let mut timer = tokio::time::interval(self.options.collect_every);
        // The first tick is at once; a registry that has just started has other things to do.
        timer.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timer.tick() => {}
            }
            let registry = Arc::clone(&self);
            let grace = self.options.blob_grace;
            match tokio::task::spawn_blocking(move || registry.collect(grace)).await {
                Ok(Ok(done)) => tracing::info!(blobs = done.blobs, bytes = done.bytes, "registry collected"),
                Ok(Err(error)) => tracing::error!(%error, "collection of the registry"),
                Err(_) => tracing::error!("collection of the registry panicked"),
            }
        }
    }
}

async fn serve_until<L>(listener: L, router: axum::Router, stop: CancellationToken) -> std::io::Result<()>
where
    L: axum::serve::Listener<Addr = std::net::SocketAddr>,
{
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}
