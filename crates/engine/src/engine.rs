//! The public face (being filled in; signatures are final except open's two arguments).
#![allow(unused_variables, clippy::unused_async)]
use crate::*;
use gantry_model::network::EndpointSettings;
use jiff::Timestamp;

/// A tar stream out of a container.
pub type ArchiveReader = Box<dyn tokio::io::AsyncRead + Send + Unpin>;

/// The engine of one node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine(());

/// A registered wait.
#[derive(Debug)]
pub struct Wait(());

impl Wait {
    /// Waits.
    pub async fn done(self) -> Result<Exit> {
        no()
    }
}

fn no<T>() -> Result<T> {
    Err(Error::Cancelled("not there yet"))
}

impl Engine {
    /// Opens the engine: finds running monitors again, restores records, applies restart policies.
    /// Final signature: `open(config, images: Arc<gantry_images::Store>, networks: Arc<gantry_network::Networks>)`.
    pub async fn open(config: EngineConfig) -> Result<Engine> {
        no()
    }
    /// Leaves all containers running and releases the data folder.
    pub async fn close(&self) {}
    /// Configuration.
    pub fn config(&self) -> &EngineConfig {
        unreachable!()
    }
    /// Makes a container.
    pub async fn create(&self, request: CreateRequest) -> Result<Created> {
        no()
    }
    /// Starts. NotModified when it runs.
    pub async fn start(&self, reference: &str) -> Result<()> {
        no()
    }
    /// Stops by signal, then SIGKILL. NotModified when it does not run.
    pub async fn stop(&self, reference: &str, signal: Option<&str>, timeout: StopTimeout) -> Result<()> {
        no()
    }
    /// Stops and starts.
    pub async fn restart(&self, reference: &str, signal: Option<&str>, timeout: StopTimeout) -> Result<()> {
        no()
    }
    /// Sends a signal; none: SIGKILL.
    pub async fn kill(&self, reference: &str, signal: Option<&str>) -> Result<()> {
        no()
    }
    /// Freezes.
    pub async fn pause(&self, reference: &str) -> Result<()> {
        no()
    }
    /// Thaws.
    pub async fn unpause(&self, reference: &str) -> Result<()> {
        no()
    }
    /// Registers a wait at once; await `Wait::done` for the end.
    pub fn wait(&self, reference: &str, condition: WaitCondition) -> Result<Wait> {
        no()
    }
    /// Removes.
    pub async fn remove(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        no()
    }
    /// Renames.
    pub async fn rename(&self, reference: &str, name: &str) -> Result<()> {
        no()
    }
    /// Changes limits and restart policy; returns warnings.
    pub async fn update(&self, reference: &str, update: UpdateRequest) -> Result<Vec<String>> {
        no()
    }
    /// Sets the size of its terminal.
    pub async fn resize(&self, reference: &str, rows: u16, columns: u16) -> Result<()> {
        no()
    }
    /// A container by id, unique prefix or name.
    pub fn get(&self, reference: &str) -> Result<ContainerView> {
        no()
    }
    /// All containers, newest first.
    pub fn list(&self) -> Vec<ContainerView> {
        Vec::new()
    }
    /// Containers that filters let through (`filter` module), newest first; Parameter error for unknown keys.
    pub fn list_filtered(
        &self,
        filters: &Filters,
        all: bool,
        limit: Option<usize>,
    ) -> Result<Vec<ContainerView>> {
        no()
    }
    /// Sizes of its layers.
    pub async fn size(&self, reference: &str) -> Result<Size> {
        no()
    }
    /// Its log.
    pub async fn logs(&self, reference: &str, options: LogOptions) -> Result<Flow<LogLine>> {
        no()
    }
    /// Connects to its stdio.
    pub async fn attach(&self, reference: &str, options: AttachOptions) -> Result<Attachment> {
        no()
    }
    /// Prepares an exec; its id.
    pub async fn exec_create(&self, reference: &str, spec: ExecSpec) -> Result<String> {
        no()
    }
    /// Starts an exec; an attachment if asked.
    pub async fn exec_start(&self, exec: &str, how: ExecStart) -> Result<Option<Attachment>> {
        no()
    }
    /// An exec.
    pub fn exec_get(&self, exec: &str) -> Result<ExecView> {
        no()
    }
    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        no()
    }
    /// Its processes, in the format of `ps` arguments (default `-ef`).
    pub async fn top(&self, reference: &str, arguments: &str) -> Result<Processes> {
        no()
    }
    /// Statistics now.
    pub async fn stats(&self, reference: &str) -> Result<Stats> {
        no()
    }
    /// Statistics each second until it is removed.
    pub fn stats_stream(&self, reference: &str) -> Result<Flow<Stats>> {
        no()
    }
    /// What differs from its image.
    pub async fn changes(&self, reference: &str) -> Result<Vec<Change>> {
        no()
    }
    /// Makes an image of it; the image id.
    pub async fn commit(&self, reference: &str, request: CommitRequest) -> Result<String> {
        no()
    }
    /// Its whole file system as tar.
    pub async fn export(&self, reference: &str) -> Result<ArchiveReader> {
        no()
    }
    /// What a path in it is.
    pub async fn archive_stat(&self, reference: &str, path: &str) -> Result<PathStat> {
        no()
    }
    /// A path out of it as tar.
    pub async fn archive_get(&self, reference: &str, path: &str) -> Result<(PathStat, ArchiveReader)> {
        no()
    }
    /// Unpacks a tar (also gzip) into a directory of it. `keep_kind`: a directory is never replaced by a file nor the other way.
    pub async fn archive_put(
        &self,
        reference: &str,
        path: &str,
        archive: ArchiveReader,
        keep_kind: bool,
        copy_owner: bool,
    ) -> Result<()> {
        no()
    }
    /// Joins a network (running or not).
    pub async fn network_connect(
        &self,
        network: &str,
        reference: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        no()
    }
    /// Leaves a network.
    pub async fn network_disconnect(&self, network: &str, reference: &str, force: bool) -> Result<()> {
        no()
    }
    /// Makes a volume; the existing one when name and driver agree.
    pub async fn volume_create(&self, request: VolumeRequest) -> Result<VolumeView> {
        no()
    }
    /// Volumes (filters: name, label, driver, dangling).
    pub fn volume_list(&self, filters: &Filters) -> Result<Vec<VolumeView>> {
        no()
    }
    /// A volume.
    pub fn volume_get(&self, name: &str) -> Result<VolumeView> {
        no()
    }
    /// Removes a volume; `force` makes a missing one fine.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        no()
    }
    /// Removes unused volumes (filters: label, label!, all).
    pub async fn volume_prune(&self, filters: &Filters) -> Result<Pruned> {
        no()
    }
    /// Removes stopped containers (filters: until, label, label!).
    pub async fn prune(&self, filters: &Filters) -> Result<Pruned> {
        no()
    }
    /// Past and new events.
    pub fn events(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        filters: Filters,
    ) -> Result<Flow<Event>> {
        no()
    }
    /// Publishes an event of another part of the node (images, networks, daemon).
    pub fn publish(&self, event: Event) {}
    /// Counts.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
    /// Sizes of containers and volumes.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        no()
    }
    /// Containers that use an image (by id), for `images.remove`.
    pub fn users_of_image(&self, image_id: &str) -> Vec<gantry_model::id::ContainerId> {
        Vec::new()
    }
}
