//! The engine itself: what it is made of, how containers are found, and how it is opened and closed.

use crate::config::{EngineConfig, OWN_RUNTIME, RuntimeEntry, RuntimeKind};
use crate::container::{Container, Life};
use crate::error::{Error, Result, io};
use crate::events::{Event, EventLog};
use crate::exec::Exec;
use crate::network::NetworkSource;
use crate::record::{Records, Table};
use crate::request::{Counts, Exit, Filters, Flow, WaitCondition};
use crate::view::{ContainerView, NetworkView};
use crate::volumes::Volumes;
use futures_util::StreamExt;
use gantry_images::Store;
use gantry_images::trash::Trash;
use gantry_model::container::ContainerStatus;
use gantry_model::id::ContainerId;
use gantry_network::Networks;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A tar stream out of or into a container.
pub type ArchiveReader = Box<dyn tokio::io::AsyncRead + Send + Unpin>;

/// The containers, execs, volumes and events of one node; cheap to clone.
///
/// All asynchronous methods run on tokio. Work that blocks for longer than a memory access goes to blocking threads.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_dir", &self.inner.config.data_dir).finish_non_exhaustive()
    }
}

struct Inner {
    config: EngineConfig,
    images: Arc<Store>,
    networks: Arc<Networks>,
    records: Records,
    events: EventLog,
    directory: RwLock<Directory>,
    execs: Mutex<HashMap<String, Arc<Exec>>>,
    volumes: Volumes,
    network_source: RwLock<Option<Arc<dyn NetworkSource>>>,
    trash: Trash,
    /// The monitor's executable on a read-only mount of its own: it need not protect itself at every start.
    monitor: Option<OwnedFd>,
    monitor_program: PathBuf,
    /// Ends what the engine does in the background.
    closing: CancellationToken,
}

/// Which containers there are.
#[derive(Default)]
struct Directory {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names that are taken, also by containers that are being made.
    names: HashMap<String, String>,
}

/// A wait that is registered: nothing that happens after it is missed.
#[derive(Debug)]
pub struct Wait {
    life: watch::Receiver<Life>,
    seen: Life,
    condition: WaitCondition,
}

impl Wait {
    /// Waits for what the condition names.
    pub async fn done(self) -> Result<Exit> {
        Ok(Container::wait(self.life, &self.seen, self.condition).await)
    }
}

/// Runs something that blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Cancelled(what))?
}

/// 64 random hex digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        io("draw a random id from", "/dev/urandom")(std::io::Error::other(error.to_string()))
    })?;
    Ok(ContainerId::from_random(bytes).into())
}

impl Engine {
    /// Opens the engine: reads the records, removes what was half made, finds running monitors again, records what
    /// ended meanwhile, and applies restart policies.
    pub async fn open(
        mut config: EngineConfig,
        images: Arc<Store>,
        networks: Arc<Networks>,
    ) -> Result<Engine> {
        let own = RuntimeEntry { path: config.monitor.clone(), kind: RuntimeKind::Own };
        config.runtimes.entry(OWN_RUNTIME.to_owned()).or_insert(own);
        for folder in [
            // Environments of containers are in the records, secrets in the run folder, and set-user-id programs in images:
            // a user of the host must not get at any of them (CVE-2021-41091).
            config.data_dir.clone(),
            config.data_dir.join("containers"),
            config.data_dir.join("volumes"),
            config.run_dir.join("c"),
            config.run_dir.join("x"),
            config.run_dir.join("f"),
        ] {
            make_private(&folder)?;
        }
        let trash = Trash::open(config.data_dir.join("trash")).map_err(|error| {
            io("open trash in", &config.data_dir)(std::io::Error::other(crate::error::whole(&error)))
        })?;
        let (records, kept) = Records::open(&config.data_dir.join("engine.redb"))?;
        let monitor = match gantry_linux::process::read_only_executable(&config.monitor) {
            Ok(fd) => Some(fd),
            Err(error) => {
                tracing::debug!(%error, "no read-only mount of the monitor; it protects itself");
                None
            }
        };
        let monitor_program = match &monitor {
            // Resolved by the child, which has the descriptor until it executes.
            Some(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            None => config.monitor.clone(),
        };
        let inner = Inner {
            monitor,
            monitor_program,
            config,
            images,
            networks,
            records,
            events: EventLog::default(),
            directory: RwLock::default(),
            execs: Mutex::default(),
            volumes: Volumes::new(kept.volumes),
            network_source: RwLock::default(),
            trash,
            closing: CancellationToken::new(),
        };
        let engine = Engine { inner: Arc::new(inner) };
        engine.reopen(kept.containers).await?;
        Ok(engine)
    }

    /// Ends the engine's background work and writes what waits. All containers run on.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        let inner = Arc::clone(&self.inner);
        let _ = tokio::task::spawn_blocking(move || inner.records.close()).await;
    }

    /// What it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// What is executed as a monitor.
    pub(crate) fn monitor_program(&self) -> &Path {
        debug_assert!(
            self.inner.monitor.is_some() || self.inner.monitor_program == self.inner.config.monitor
        );
        &self.inner.monitor_program
    }

    pub(crate) fn images(&self) -> &Arc<Store> {
        &self.inner.images
    }

    pub(crate) fn networks(&self) -> &Arc<Networks> {
        &self.inner.networks
    }

    pub(crate) fn records(&self) -> &Records {
        &self.inner.records
    }

    pub(crate) fn volumes(&self) -> &Volumes {
        &self.inner.volumes
    }

    pub(crate) fn network_source_slot(&self) -> &RwLock<Option<Arc<dyn NetworkSource>>> {
        &self.inner.network_source
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    pub(crate) fn execs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of a container's durable files.
    pub(crate) fn container_folder(&self, id: &ContainerId) -> PathBuf {
        self.inner.config.data_dir.join("containers").join(id.as_str())
    }

    /// The folder of a container's monitor. Half of the id, so that the socket's path stays within 108 bytes.
    pub(crate) fn run_folder(&self, id: &str) -> PathBuf {
        self.inner.config.run_dir.join("c").join(&id[..32.min(id.len())])
    }

    /// The folder of an exec's monitor.
    pub(crate) fn exec_folder(&self, id: &str) -> PathBuf {
        self.inner.config.run_dir.join("x").join(&id[..32.min(id.len())])
    }

    /// The folder of a container's files in memory.
    pub(crate) fn files_folder(&self, id: &str) -> PathBuf {
        self.inner.config.run_dir.join("f").join(&id[..32.min(id.len())])
    }

    /// The json-file log of a container.
    pub(crate) fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.container_folder(id).join(format!("{id}-json.log"))
    }

    /// Where a runtime keeps its state.
    pub(crate) fn runtime_root(&self, name: &str) -> PathBuf {
        self.inner.config.run_dir.join("runtime").join(name)
    }

    /// Moves a folder into the trash, from which it is deleted in the background.
    pub(crate) fn discard(&self, folder: &Path) -> Result<()> {
        self.inner
            .trash
            .discard(folder)
            .map_err(|error| io("discard", folder)(std::io::Error::other(crate::error::whole(&error))))
    }

    /// All containers, in no order.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.read_directory().by_id.values().cloned().collect()
    }

    fn read_directory(&self) -> std::sync::RwLockReadGuard<'_, Directory> {
        self.inner.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_directory(&self) -> std::sync::RwLockWriteGuard<'_, Directory> {
        self.inner.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container by its whole id, its name, or an unambiguous beginning of its id.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>> {
        let directory = self.read_directory();
        let reference = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(container) = directory.by_id.get(reference) {
            return Ok(Arc::clone(container));
        }
        if let Some(container) = directory.names.get(reference).and_then(|id| directory.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        let missing = || Error::NoSuchContainer(reference.to_owned());
        if reference.is_empty() {
            return Err(missing());
        }
        let mut fitting = directory
            .by_id
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference))
            .map(|(_, container)| container);
        let first = fitting.next().ok_or_else(missing)?;
        match fitting.next() {
            Some(_) => Err(Error::Ambiguous(reference.to_owned())),
            None => Ok(Arc::clone(first)),
        }
    }

    /// Takes a name for a container that is being made or renamed.
    pub(crate) fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let mut directory = self.write_directory();
        match directory.names.get(name) {
            Some(other) => Err(Error::NameInUse { name: name.to_owned(), id: other.clone() }),
            None => {
                directory.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back.
    pub(crate) fn free_name(&self, name: &str) {
        self.write_directory().names.remove(name);
    }

    /// Makes a container known under the name that was taken for it.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let name = container.name();
        let mut directory = self.write_directory();
        directory.names.insert(name, container.id.to_string());
        directory.by_id.insert(container.id.to_string(), container);
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, container: &Container) {
        let name = container.name();
        let mut directory = self.write_directory();
        directory.names.remove(&name);
        directory.by_id.remove(container.id.as_str());
    }

    /// Writes a container's record and waits until it is durable.
    pub(crate) async fn save(&self, container: &Container) -> Result<()> {
        let written = {
            let record = container.record();
            self.inner.records.put(Table::Containers, container.id.as_str(), &*record)
        };
        written.await
    }

    /// Writes a container's record soon. An error is logged by the writer.
    pub(crate) fn save_soon(&self, container: &Container) {
        let record = container.record();
        drop(self.inner.records.put(Table::Containers, container.id.as_str(), &*record));
    }

    /// A container by id, unique beginning of the id, or name.
    pub fn get(&self, reference: &str) -> Result<ContainerView> {
        Ok(self.view(&*self.find(reference)?))
    }

    /// All containers, the newest first.
    pub fn list(&self) -> Vec<ContainerView> {
        let mut list: Vec<ContainerView> = self.containers().iter().map(|c| self.view(c)).collect();
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        list
    }

    /// The containers that filters let through, the newest first; `all`: also those that do not run; at most `limit`
    /// (which implies `all`).
    pub fn list_filtered(
        &self,
        filters: &Filters,
        all: bool,
        limit: Option<usize>,
    ) -> Result<Vec<ContainerView>> {
        let images = Arc::clone(&self.inner.images);
        let ancestors = move |c: &ContainerView, value: &str| is_ancestor(&images, c, value);
        let mut list = crate::filter::containers(self.list(), filters, all || limit.is_some(), &ancestors)?;
        list.truncate(limit.unwrap_or(usize::MAX));
        Ok(list)
    }

    /// What a container is at this moment.
    pub(crate) fn view(&self, container: &Container) -> ContainerView {
        let mut record = container.record().clone();
        record.config.hostname = self.hostname_of(&record);
        let folder = self.container_folder(&container.id);
        let words = crate::merge::command_line(&record.config);
        let mut state = record.state;
        state.pid = container.run().map_or(0, |run| run.pid);
        let log_path = match record.log {
            crate::record::LogChoice::JsonFile { .. } => self.log_path(&container.id),
            crate::record::LogChoice::None => PathBuf::new(),
        };
        let exec_ids = self.open_execs(container);
        ContainerView {
            id: record.id.clone(),
            name: record.name,
            created: record.created,
            path: words.first().cloned().unwrap_or_default(),
            args: words.into_iter().skip(1).collect(),
            network: NetworkView {
                sandbox_id: if record.sandbox_key.as_os_str().is_empty() {
                    String::new()
                } else {
                    record.id.to_string()
                },
                sandbox_key: record.sandbox_key,
                ports: record.ports,
                networks: record.networks,
            },
            config: record.config,
            host: crate::spec::shown(record.host, crate::devices::unified_cgroups()),
            state,
            image_id: record.image_id,
            platform: record.platform,
            mounts: record
                .mounts
                .iter()
                .filter(|m| !m.hidden)
                .map(|m| m.view(|name| self.volume_path(name)))
                .collect(),
            log_path,
            resolv_conf_path: folder.join("resolv.conf"),
            hostname_path: folder.join("hostname"),
            hosts_path: folder.join("hosts"),
            restart_count: record.restart_count,
            exec_ids,
            lower: record.rootfs.lower,
            upper: record.rootfs.upper,
        }
    }

    /// Registers a wait; [`Wait::done`] then waits. Nothing that happens in between is missed.
    pub fn wait(&self, reference: &str, condition: WaitCondition) -> Result<Wait> {
        let container = self.find(reference)?;
        let life = container.life.subscribe();
        let seen = life.borrow().clone();
        Ok(Wait { life, seen, condition })
    }

    /// Events from `since` (kept ones) to `until`, that the filters let through.
    pub fn events(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        filters: Filters,
    ) -> Result<Flow<Event>> {
        crate::filter::only(&filters, &crate::events::FILTER_KEYS)?;
        let closing = self.inner.closing.clone();
        let stream = self.inner.events.subscribe(since, until, filters).map(Ok);
        Ok(Box::pin(stream.take_until(async move { closing.cancelled().await })))
    }

    /// Publishes an event; also for other parts of the node (images, networks, the daemon).
    pub fn publish(&self, event: Event) {
        self.inner.events.publish(event);
    }

    /// Publishes an event of a container, with its labels, name and image.
    pub(crate) fn container_event(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let mut event = Event::local("container", action, container.id.as_str());
        {
            let record = container.record();
            event.actor.attributes.clone_from(&record.config.labels);
            event = event.with("name", &record.name).with("image", &record.config.image);
        }
        for (key, value) in more {
            event = event.with(key, value);
        }
        self.publish(event);
    }

    /// How many containers there are.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for container in self.containers() {
            counts.containers += 1;
            match container.status() {
                ContainerStatus::Running | ContainerStatus::Restarting => counts.running += 1,
                ContainerStatus::Paused => counts.paused += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }

    /// The containers that were made from an image, by the image's id.
    pub fn users_of_image(&self, image_id: &str) -> Vec<ContainerId> {
        let uses = |c: &Arc<Container>| c.record().image_id == image_id;
        self.containers().iter().filter(|c| uses(c)).map(|c| c.id.clone()).collect()
    }
}

/// Whether a container's image is, or descends from, what the filter names.
fn is_ancestor(images: &Store, container: &ContainerView, value: &str) -> bool {
    if container.config.image == value || container.image_id == value {
        return true;
    }
    let Ok(wanted) = images.get(value) else { return false };
    if wanted.id.to_string() == container.image_id {
        return true;
    }
    let Ok(own) = images.get(&container.image_id) else { return false };
    own.config.rootfs.diff_ids.starts_with(&wanted.config.rootfs.diff_ids)
}

/// Makes a folder that only root can look into.
pub(crate) fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)))
        .map_err(io("create folder", folder))
}
