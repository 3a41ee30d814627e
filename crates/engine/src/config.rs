//! The engine's configuration: where it keeps things, which runtimes it has, and what containers get by default.

use gantry_model::container::Ulimit;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How an OCI runtime is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// `gantry-runtime`: the monitor creates the container itself.
    Own,
    /// runc, crun or another with runc's command line, called by our monitor.
    External,
}

/// One configured OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEntry {
    /// The executable.
    pub path: PathBuf,
    /// How it is driven.
    pub kind: RuntimeKind,
}

/// What an engine is opened with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Durable state: records, logs, volumes, container files.
    pub data_dir: PathBuf,
    /// State that ends with a reboot: monitors' folders, runtime roots, mount points.
    pub run_dir: PathBuf,
    /// The `gantry-runtime` executable, which is the monitor for every runtime.
    pub monitor: PathBuf,
    /// OCI runtimes by name; the own one is added as `gantry-runtime` when it is not there.
    pub runtimes: BTreeMap<String, RuntimeEntry>,
    /// Name of the runtime that containers get by default.
    pub default_runtime: String,
    /// Static init for `--init`; none: `gantry-runtime init`.
    pub init_binary: Option<PathBuf>,
    /// Whether containers get an init without asking.
    pub default_init: bool,
    /// Parent cgroup of all containers.
    pub cgroup_parent: String,
    /// Log driver for containers that name none.
    pub default_log_driver: String,
    /// Bytes after which a log is rotated (0: never) unless the container says otherwise.
    pub default_log_max_size: u64,
    /// Log files kept for each container unless it says otherwise.
    pub default_log_max_file: u32,
    /// Ulimits of containers that do not set them.
    pub default_ulimits: Vec<Ulimit>,
    /// DNS servers of containers that name none; empty: the node's.
    pub default_dns: Vec<String>,
    /// DNS options of containers that name none.
    pub default_dns_options: Vec<String>,
    /// DNS search domains of containers that name none.
    pub default_dns_search: Vec<String>,
    /// Bytes of /dev/shm for containers that say nothing.
    pub default_shm_size: u64,
    /// Seconds between stop signal and SIGKILL for containers that say nothing.
    pub default_stop_timeout: u64,
    /// Name of this engine in its events (Docker: `daemon` events), usually the host name.
    pub name: String,
}

impl EngineConfig {
    /// Defaults beneath the two folders, with the given `gantry-runtime`.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
        monitor: impl Into<PathBuf>,
    ) -> Self {
        let monitor = monitor.into();
        let own = RuntimeEntry { path: monitor.clone(), kind: RuntimeKind::Own };
        Self {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
            monitor,
            runtimes: BTreeMap::from([(OWN_RUNTIME.to_owned(), own)]),
            default_runtime: OWN_RUNTIME.to_owned(),
            init_binary: None,
            default_init: false,
            cgroup_parent: "gantry".to_owned(),
            default_log_driver: "json-file".to_owned(),
            default_log_max_size: 20 << 20,
            default_log_max_file: 5,
            default_ulimits: Vec::new(),
            default_dns: Vec::new(),
            default_dns_options: Vec::new(),
            default_dns_search: Vec::new(),
            default_shm_size: 64 << 20,
            default_stop_timeout: 10,
            name: "gantry".to_owned(),
        }
    }
}

/// Name of our own runtime among the configured ones.
pub const OWN_RUNTIME: &str = "gantry-runtime";
