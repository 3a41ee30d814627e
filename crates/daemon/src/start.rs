//! Start and stop of the daemon, in the written order.
//!
//! Start: settings · log · claim of the data folder · registry (other nodes may pull already) · images · networks · engine (finds
//! its containers again) · cluster · sockets (last, so that the first answer is a true one) · pidfile.
//!
//! Stop (SIGTERM, SIGINT): no new connections · running requests end or get five seconds · registry · cluster (the node's
//! tasks run on) · engine (records are durable already; monitors and containers live on) · networks · socket files and pidfile.

mod parts;

use crate::attachments::{self, ClusterNetworks};
use crate::daemon::Daemon;
use crate::executor::{Description, NodeExecutor};
use crate::host::Host;
use crate::listen::{self, ListenError, Listener};
use crate::lock::{DataLock, LockError};
use crate::pull::Puller;
use crate::registry::{RegistryError, RunningRegistry};
use crate::routes;
use crate::server;
use crate::settings::{LogFormat, Settings, SettingsError};
use gantry_cluster::{Cluster, ClusterConfig};
use gantry_engine::{Engine, Event};
use gantry_images::Store;
use gantry_network::Networks;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for running requests when the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong flags.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The data folder belongs to another.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The containers.
    #[error("open the containers beneath {}", path.display())]
    Engine {
        /// Data folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: gantry_engine::Error,
    },
    /// The images.
    #[error("open the images beneath {}", path.display())]
    Images {
        /// Data folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: gantry_images::Error,
    },
    /// The networks.
    #[error("open the networks of this node")]
    Networks(#[source] gantry_network::NetworkError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The cluster.
    #[error("take this node's part in its cluster up again")]
    Cluster(#[source] gantry_cluster::Error),
    /// A background thread died.
    #[error("{act} was interrupted")]
    Interrupted {
        /// What was tried.
        act: &'static str,
        /// The cause.
        #[source]
        source: tokio::task::JoinError,
    },
    /// Our own runtime is not there.
    #[error("gantry-runtime was not found beside {} nor in PATH: install it there or give --runtime-path", .0.display())]
    NoRuntime(PathBuf),
    /// A file of the daemon itself.
    #[error("{act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Signals or threads.
    #[error("{act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

fn file(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { act, path, source }
}

/// Turns logging on at `error`, `warn`, `info`, `debug` or `trace`.
pub fn init_log(level: &str, format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    // The libraries below us talk much at debug; GANTRY_LOG can ask for them by name.
    // openraft warns at every heartbeat that an absent manager misses; the cluster itself says once that it is gone.
    let own = format!("warn,openraft=off,gantry={level}");
    let crates = ["daemon", "engine", "images", "network", "registry", "cluster", "planner", "linux"];
    let filter = crates.iter().fold(own, |text, name| format!("{text},gantry_{name}={level}"));
    let filter = EnvFilter::try_from_env("GANTRY_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process (tests) is no reason to fail.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
}

/// Runs until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("gantry")
        .build()
        .map_err(|source| StartError::System { act: "start the threads of the daemon", source })?;
    let result = runtime.block_on(serve(settings));
    // Blocking work that nobody waits for any more (a cancelled unpack) must not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn serve(settings: Settings) -> Result<(), StartError> {
    let lock = DataLock::claim(&settings.data_root)?;
    std::fs::create_dir_all(&settings.run_root).map_err(file("make the run folder", &settings.run_root))?;
    let registry = match settings.own_registry.listen {
        Some(address) => {
            let folder = settings.data_root.join("registry");
            Some(RunningRegistry::start(folder, address, &settings.own_registry).await?)
        }
        None => None,
    };
    let daemon = open(settings).await?;
    let mut listeners = Vec::new();
    for host in &daemon.settings.hosts {
        listeners.push(listen::open(host, daemon.settings.tls.as_ref()).await?);
    }
    let pidfile = daemon.settings.pidfile.as_deref().map(Pidfile::write).transpose()?;
    let hosts: Vec<String> = daemon.settings.hosts.iter().map(ToString::to_string).collect();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), api = %hosts.join(" "), "daemon is ready");
    serve_until_told(&daemon, listeners).await?;
    tracing::info!("daemon ends; containers live on");
    if let Some(registry) = registry {
        registry.end(GRACE).await;
    }
    close(&daemon).await;
    drop(pidfile);
    drop(lock);
    Ok(())
}

async fn open(settings: Settings) -> Result<Arc<Daemon>, StartError> {
    let host = Host::observe();
    let name = settings.node_name.clone().unwrap_or_else(|| host.hostname.clone());
    let engine_config = parts::engine_config(&settings, &name)?;
    let network_config = parts::network_config(&settings)?;
    let registries = settings.reach.registries()?;
    let root = settings.data_root.clone();
    let folder = root.join("images");
    let images = blocking("opening the images", move || Store::open(folder)).await?;
    let images = images.map_err(|source| StartError::Images { path: root.clone(), source })?;
    let networks = blocking("opening the networks", move || Networks::open(network_config)).await?;
    let networks = networks.map_err(StartError::Networks)?;
    let engine = Engine::open(engine_config, Arc::clone(&images), Arc::clone(&networks)).await;
    let engine = engine.map_err(|source| StartError::Engine { path: root, source })?;
    let puller = Arc::new(Puller::new(Arc::clone(&images), registries));
    let id = identity(&settings.data_root)?;
    let parts = Parts { engine: &engine, networks: &networks, puller: &puller, host: &host, name: &name };
    let cluster = open_cluster(&settings, parts).await?;
    let listeners = Arc::default();
    Ok(Arc::new(Daemon { settings, host, id, name, images, puller, networks, engine, cluster, listeners }))
}

/// What the cluster's executor works with.
struct Parts<'a> {
    engine: &'a Engine,
    networks: &'a Arc<Networks>,
    puller: &'a Arc<Puller>,
    host: &'a Host,
    name: &'a str,
}

/// Takes this node's part in its cluster up again, if it has one, and joins the engine to the cluster's networks.
async fn open_cluster(settings: &Settings, parts: Parts<'_>) -> Result<Cluster, StartError> {
    let Parts { engine, networks, puller, host, name } = parts;
    let description =
        Description { hostname: name.to_owned(), host: host.clone(), labels: settings.labels.clone() };
    let executor = NodeExecutor::new(engine.clone(), Arc::clone(networks), Arc::clone(puller), description);
    let config = ClusterConfig {
        state_dir: settings.data_root.join("cluster"),
        executor: Arc::new(executor),
        timing: parts::timing(settings.cluster_heartbeat_ms),
    };
    let cluster = Cluster::open(config).await.map_err(StartError::Cluster)?;
    engine.set_network_source(Arc::new(ClusterNetworks::new(cluster.clone())));
    Ok(cluster)
}

/// Work that waits for disks and the kernel, on a thread for such.
async fn blocking<T: Send + 'static>(
    act: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|source| StartError::Interrupted { act, source })
}

async fn close(daemon: &Daemon) {
    daemon.cluster.shutdown().await;
    daemon.engine.close().await;
    let networks = Arc::clone(&daemon.networks);
    if let Err(error) = blocking("closing the networks", move || networks.shutdown()).await {
        tracing::warn!(error = crate::http::error::chain(&error), "close the networks");
    }
}

async fn serve_until_told(daemon: &Arc<Daemon>, listeners: Vec<Listener>) -> Result<(), StartError> {
    let act = "listen for signals";
    let mut term = signal(SignalKind::terminate()).map_err(|source| StartError::System { act, source })?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|source| StartError::System { act, source })?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|source| StartError::System { act, source })?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(forward_events(Arc::clone(daemon), stop.clone()));
    tasks.spawn(attachments::give_back_unused(Arc::clone(daemon), stop.clone()));
    let router = routes::router(Arc::clone(daemon));
    for listener in listeners {
        tasks.spawn(server::serve(listener, router.clone(), stop.clone(), tasks.clone()));
    }
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => tracing::info!("SIGHUP: settings are read at start only; restart the daemon, containers live on"),
        }
    }
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::debug!("requests still run; they are cut off");
    }
    Ok(())
}

/// Puts what happens in the cluster among the node's events.
async fn forward_events(daemon: Arc<Daemon>, stop: CancellationToken) {
    use tokio::sync::broadcast::error::RecvError;
    let mut events = daemon.cluster.subscribe();
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = events.recv() => received,
        };
        match received {
            Ok(event) => {
                let mut local = Event::local(event.kind, event.action, event.id).with("name", event.name);
                "swarm".clone_into(&mut local.scope);
                daemon.engine.publish(local);
            }
            Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "events of the cluster came too fast"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// The daemon's identity: made once, kept in the data folder.
fn identity(data_root: &Path) -> Result<String, StartError> {
    let path = data_root.join("daemon-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file("read", &path)(error)),
    }
    let id =
        std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(file("draw an id from", &path))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, id.trim()).map_err(file("write", &fresh))?;
    std::fs::File::open(&fresh).and_then(|file| file.sync_all()).map_err(file("flush", &fresh))?;
    std::fs::rename(&fresh, &path).map_err(file("rename into place", &path))?;
    Ok(id.trim().to_owned())
}

/// The file with the process id, taken away at the end.
struct Pidfile(PathBuf);

impl Pidfile {
    fn write(path: &Path) -> Result<Self, StartError> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(file("write the process id to", path))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Nothing is lost when it cannot be removed: the next start overwrites it.
        let _ = std::fs::remove_file(&self.0);
    }
}
