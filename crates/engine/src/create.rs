//! Making a container: merge and check everything, then make its parts in order, or take them back in reverse.

use crate::container::Container;
use crate::engine::{Engine, blocking, random_id};
use crate::error::{Error, Result, io, parameter};
use crate::mounts::{self, ContainerMount};
use crate::record::{FORMAT, LogChoice, Record, Rootfs};
use crate::request::{CreateRequest, Created, InjectedFile};
use crate::view::StateView;
use crate::{limits, merge, network, restart, spec};
use gantry_model::container::{ContainerConfig, HostConfig, LogConfig, PortMap, check_name};
use gantry_model::id::ContainerId;
use gantry_model::names;
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use jiff::Timestamp;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

/// The type of tmpfs in statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
/// How often a random name is tried before numbers are appended.
const NAME_ATTEMPTS: u32 = 200;

impl Engine {
    /// Makes a container. It is durable when this returns.
    pub async fn create(&self, request: CreateRequest) -> Result<Created> {
        let engine = self.clone();
        // A client that goes away must not leave half a container.
        tokio::spawn(async move { engine.create_whole(request).await })
            .await
            .map_err(|_| Error::Cancelled("creating a container"))?
    }

    async fn create_whole(&self, request: CreateRequest) -> Result<Created> {
        // Before the image's configuration comes in: what an image exposes is no wish of the user.
        network::check_shared(&request.config, &request.host)?;
        let image = self.image_for(&request)?;
        let config = merge::merge(request.config, &image.config)?;
        let mut warnings = Vec::new();
        let mut host = request.host;
        if config.network_disabled == Some(true) {
            "none".clone_into(&mut host.network_mode);
        }
        let host = self.complete_host(host, &mut warnings)?;
        check_host(&host)?;
        if host.network_mode == "host" && !host.port_bindings.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        let log = log_choice(&host.log_config, self.config())?;
        let mut networks =
            network::endpoints(&host.network_mode, &request.networking, &config.mac_address, |reference| {
                self.networks().inspect(reference).ok().map(|n| (n.spec.name, n.id))
            })?;
        network::place_links(&host, &mut networks)?;
        for text in networks.values().flat_map(|endpoint| endpoint.links.iter().flatten()) {
            network::link(text)?;
        }
        let mounts = mounts::plan(&config, &host, self.inherited_mounts(&host)?)?;
        let id = ContainerId::parse(&random_id()?)
            .map_err(|error| io("draw an id for", "container")(std::io::Error::other(error)))?;
        let name = self.choose_name(request.name.as_deref(), &id)?;
        let record = Record {
            format: FORMAT,
            id: id.clone(),
            name: name.clone(),
            created: Timestamp::now(),
            image_id: image.id.clone(),
            platform: image.os,
            config,
            host,
            networks,
            ports: PortMap::new(),
            sandbox_key: PathBuf::new(),
            mounts,
            rootfs: Rootfs::default(),
            log,
            state: StateView::default(),
            restart_count: 0,
            stopped_by_user: false,
            has_run: false,
            files: Vec::new(),
        };
        match self.make(record, request.files).await {
            Ok(container) => {
                self.container_event(&container, "create", &[]);
                Ok(Created { id, warnings })
            }
            Err(error) => {
                self.free_name(&name);
                self.unmake(&id).await;
                Err(error)
            }
        }
    }

    /// Makes the parts on disk, then the record: before the record is durable, nothing of it counts.
    async fn make(&self, mut record: Record, files: Vec<InjectedFile>) -> Result<Arc<Container>> {
        network::ports(&record)?;
        network::extra_hosts(&record)?;
        let images = Arc::clone(self.images());
        let (id, image_id) = (record.id.to_string(), record.image_id.clone());
        let name = with_tag(&record.config.image);
        // Removed since the request was read.
        let gone = move |error: gantry_images::Error| match error {
            gantry_images::Error::NoSuchImage(_) => Error::NoSuchImage(name.clone()),
            other => image_error(other),
        };
        let rootfs = blocking("preparing a root file system", move || {
            let image = images.resolve(&image_id).map_err(&gone)?;
            images.prepare_rootfs(&id, &image).map_err(gone)
        })
        .await?;
        record.rootfs = Rootfs { lower: rootfs.lower, upper: rootfs.upper, work: rootfs.work };
        let folder = self.container_folder(&record.id);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io("create folder", &folder))?;
        let (mut mounts, lower) = (std::mem::take(&mut record.mounts), record.rootfs.lower.clone());
        let _claim = self.prepare_volumes(record.id.as_str(), &mut mounts, &lower).await?;
        record.mounts = mounts;
        record.files = self.write_files(&record.id, files)?;
        let container = Arc::new(Container::new(record));
        self.save(&container).await?;
        self.insert(Arc::clone(&container));
        Ok(container)
    }

    /// Takes back what [`Self::make`] made. Volumes stay: they may hold what the image brought, and are pruned like others.
    async fn unmake(&self, id: &ContainerId) {
        let (images, name) = (Arc::clone(self.images()), id.to_string());
        let removed =
            blocking("removing a root file system", move || images.remove_rootfs(&name).map_err(image_error))
                .await;
        let discarded = self.discard(&self.container_folder(id));
        for error in [removed, discarded, self.remove_files(id.as_str())].into_iter().filter_map(Result::err)
        {
            // What stays is swept at the next open.
            tracing::warn!(container = id.short(), error = error.whole(), "take back a half-made container");
        }
    }

    fn image_for(&self, request: &CreateRequest) -> Result<ImageFor> {
        let name = request.config.image.as_str();
        if name.is_empty() {
            return Err(parameter("no image specified"));
        }
        let image = self.images().get(name).map_err(|error| match error.kind() {
            // Nothing that a pull could bring.
            gantry_images::ErrorKind::NotFound if Reference::parse(name).is_err() && !is_id(name) => {
                parameter(format!("invalid reference format: {name:?} names no image"))
            }
            gantry_images::ErrorKind::NotFound => Error::NoSuchImage(with_tag(name)),
            _ => image_error(error),
        })?;
        if let Some(wanted) = request.platform.as_deref().filter(|p| !p.is_empty()) {
            let wanted: Platform =
                wanted.parse().map_err(|error| parameter(format!("invalid platform {wanted:?}: {error}")))?;
            let has = image.config.platform();
            if (&wanted.os, &wanted.architecture) != (&has.os, &has.architecture) {
                return Err(Error::NoSuchImage(format!(
                    "{name}: it was found but does not provide the specified platform ({wanted}); it is for {has}"
                )));
            }
        }
        let run = serde_json::to_value(&image.config.config)
            .and_then(serde_json::from_value::<Option<ContainerConfig>>)
            .map_err(|source| Error::Document {
                act: format!("read the configuration of image {name}"),
                source,
            })?;
        Ok(ImageFor {
            id: image.id.to_string(),
            os: image.config.platform().os,
            config: run.unwrap_or_default(),
        })
    }

    /// Fills in what the engine decides for fields that were left open, as inspect shows them.
    fn complete_host(&self, mut host: HostConfig, warnings: &mut Vec<String>) -> Result<HostConfig> {
        let config = self.config();
        if matches!(host.network_mode.as_str(), "" | "default") {
            "bridge".clone_into(&mut host.network_mode);
        }
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(reference) = mode.strip_prefix("container:").filter(|r| !r.is_empty()) {
                *mode = format!("container:{}", self.named_in_request(reference)?.id);
            }
        }
        if host.ipc_mode.is_empty() {
            "private".clone_into(&mut host.ipc_mode);
        }
        if host.shm_size == 0 {
            host.shm_size = i64::try_from(config.default_shm_size).unwrap_or(i64::MAX);
        }
        if host.runtime.is_empty() {
            host.runtime.clone_from(&config.default_runtime);
        }
        if !config.runtimes.contains_key(&host.runtime) {
            return Err(parameter(format!(
                "unknown or invalid runtime name: {} (known: {})",
                host.runtime,
                config.runtimes.keys().cloned().collect::<Vec<_>>().join(", ")
            )));
        }
        if host.log_config.r#type.is_empty() {
            host.log_config.r#type.clone_from(&config.default_log_driver);
        }
        if host.restart_policy.name.is_empty() {
            "no".clone_into(&mut host.restart_policy.name);
        }
        if host.oom_score_adj != 0 && host.privileged {
            tracing::debug!("oom_score_adj of a privileged container");
        }
        if host.resources.oom_kill_disable == Some(true) && host.resources.memory == 0 {
            warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
        }
        Ok(host)
    }

    /// A container that a create request refers to. One that is not there is a bad parameter: clients take "not found" on
    /// create for a missing image, and pull it.
    fn named_in_request(&self, reference: &str) -> Result<Arc<Container>> {
        self.find(reference).map_err(|error| match error {
            Error::NoSuchContainer(_) => Error::Parameter(error.to_string()),
            other => other,
        })
    }

    /// The mounts of the containers in `volumes_from`.
    fn inherited_mounts(&self, host: &HostConfig) -> Result<Vec<(bool, Vec<ContainerMount>)>> {
        host.volumes_from
            .iter()
            .map(|text| {
                let (reference, writable) = mounts::volumes_from(text)?;
                let mounts = self.named_in_request(reference)?.record().mounts.clone();
                // Memory is not shared.
                let shared = mounts
                    .into_iter()
                    .filter(|m| !matches!(m.source, mounts::Source::Tmpfs { .. }))
                    .collect();
                Ok((writable, shared))
            })
            .collect()
    }

    fn choose_name(&self, asked: Option<&str>, id: &ContainerId) -> Result<String> {
        if let Some(asked) = asked.filter(|name| !name.is_empty()) {
            let name = check_name(asked).map_err(|error| parameter(error.to_string()))?;
            self.take_name(name, id.as_str())?;
            return Ok(name.to_owned());
        }
        for attempt in 0..NAME_ATTEMPTS {
            let mut random = [0; 2];
            // Without randomness the names only repeat sooner.
            let _ = getrandom::fill(&mut random);
            let name = names::pick(random, attempt);
            if self.take_name(&name, id.as_str()).is_ok() {
                return Ok(name);
            }
        }
        let name = id.short().to_owned();
        self.take_name(&name, id.as_str())?;
        Ok(name)
    }

    /// Secrets must not reach a disk: when the run folder is not in memory, their folder gets memory of its own.
    fn keep_files_in_memory(&self) -> Result<()> {
        use rustix::mount::{MountFlags, mount};
        let folder = self.config().run_dir.join("f");
        let kind = rustix::fs::statfs(&folder).map_err(|error| io("look at", &folder)(error.into()))?.f_type;
        if kind == TMPFS {
            return Ok(());
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("gantry-files", &folder, "tmpfs", flags, Some(c"mode=0700,size=256m"))
            .map_err(|error| io("mount memory on", &folder)(error.into()))
    }

    /// Removes a container's files in memory; the memory goes with the last of them.
    pub(crate) fn remove_files(&self, id: &str) -> Result<()> {
        let parent = self.config().run_dir.join("f");
        let folder = self.files_folder(id);
        if !folder.exists() {
            return Ok(());
        }
        crate::remove::remove_small(&folder)?;
        let empty = std::fs::read_dir(&parent).is_ok_and(|mut entries| entries.next().is_none());
        if empty && crate::volumes::is_mount_point(&parent) {
            // In use again by now: it stays until the next removal.
            let _ = rustix::mount::unmount(&parent, rustix::mount::UnmountFlags::empty());
        }
        Ok(())
    }

    /// Writes files into the container's folder in memory; they are bound into it when it starts.
    fn write_files(&self, id: &ContainerId, files: Vec<InjectedFile>) -> Result<Vec<(String, PathBuf)>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let folder = self.files_folder(id.as_str());
        self.keep_files_in_memory()?;
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io("create folder", &folder))?;
        let mut written = Vec::new();
        for (number, file) in files.into_iter().enumerate() {
            if !file.path.starts_with('/') {
                return Err(parameter(format!("invalid file target {:?}: it must be absolute", file.path)));
            }
            let path = folder.join(number.to_string());
            let mut options = std::fs::File::options();
            let mut out =
                options.write(true).create_new(true).mode(0o600).open(&path).map_err(io("create", &path))?;
            std::io::Write::write_all(&mut out, &file.data).map_err(io("write", &path))?;
            std::os::unix::fs::fchown(&out, Some(file.uid), Some(file.gid))
                .map_err(io("set owner of", &path))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(file.mode & 0o7777);
            out.set_permissions(mode).map_err(io("set mode of", &path))?;
            written.push((file.path, path));
        }
        Ok(written)
    }
}

/// What a container takes from its image.
struct ImageFor {
    id: String,
    os: String,
    config: ContainerConfig,
}

/// An error of the image store as one of ours.
pub(crate) fn image_error(error: gantry_images::Error) -> Error {
    Error::Images(error.chain())
}

/// Whether a name can only be an image's id, which is no reference.
fn is_id(name: &str) -> bool {
    name.strip_prefix("sha256:").unwrap_or(name).bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Docker names a missing image with its tag.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

fn check_host(host: &HostConfig) -> Result<()> {
    spec::check(host)?;
    restart::check(&host.restart_policy, host.auto_remove)?;
    limits::check(&host.resources, &limits::Available::of_this_host())
}

/// The log driver with its options.
fn log_choice(config: &LogConfig, defaults: &crate::EngineConfig) -> Result<LogChoice> {
    const KNOWN: [&str; 10] = [
        "max-size",
        "max-file",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
        "compress",
        "mode",
        "max-buffer-size",
    ];
    match config.r#type.as_str() {
        "none" => return Ok(LogChoice::None),
        "json-file" | "local" => {}
        other => return Err(parameter(format!("logger: no log driver named '{other}' is registered"))),
    }
    if let Some(key) = config.config.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(parameter(format!("unknown log opt '{key}' for {} log driver", config.r#type)));
    }
    let max_size = match config.config.get("max-size").map(String::as_str) {
        None => defaults.default_log_max_size,
        Some("-1") => 0,
        Some(text) => bytes(text)
            .ok_or_else(|| parameter(format!("invalid log opt max-size: {text:?}; example: 10m")))?,
    };
    let max_file = match config.config.get("max-file") {
        None => defaults.default_log_max_file,
        Some(text) => match text.parse() {
            Ok(count @ 1..=1000) => count,
            _ => return Err(parameter(format!("invalid log opt max-file: {text:?}; at least 1"))),
        },
    };
    Ok(LogChoice::JsonFile { max_size, max_file })
}

/// `10`, `10k`, `10m`, `1g`, with or without `b`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, factor) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 1 << 10),
        b'm' => (&lower[..lower.len() - 1], 1 << 20),
        b'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_read_or_refused() {
        let defaults = crate::EngineConfig::new("/d", "/r", "/m");
        let read = |driver: &str, key: &str, value: &str| {
            let config = LogConfig {
                r#type: driver.to_owned(),
                config: std::collections::BTreeMap::from([(key.to_owned(), value.to_owned())]),
            };
            log_choice(&config, &defaults)
        };
        assert!(matches!(
            read("json-file", "max-size", "10m"),
            Ok(LogChoice::JsonFile { max_size: 10_485_760, .. })
        ));
        assert!(matches!(read("none", "x", ""), Ok(LogChoice::None)));
        assert!(read("json-file", "max-size", "ten").is_err());
        assert!(read("json-file", "max-file", "0").is_err());
        assert!(read("json-file", "colour", "red").is_err());
        assert!(read("splunk", "max-file", "1").is_err());
    }

    #[test]
    fn missing_images_are_named_with_their_tag() {
        assert_eq!(with_tag("web"), "web:latest");
        assert_eq!(with_tag("host:5000/web"), "host:5000/web:latest");
        assert_eq!(with_tag("web:1"), "web:1");
    }
}
