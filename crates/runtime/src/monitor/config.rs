//! `monitor.json`: what the engine tells a monitor.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole task of one monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorConfig {
    /// Name of the container, or of the exec.
    pub id: String,
    /// Container or exec.
    pub kind: MonitorKind,
    /// Which OCI runtime does it.
    pub runtime: RuntimeChoice,
    /// Pseudo-terminal instead of three pipes.
    #[serde(default)]
    pub terminal: bool,
    /// Keep standard input open for clients; otherwise it is /dev/null (or an idle terminal).
    #[serde(default)]
    pub open_stdin: bool,
    /// Close standard input when the first client that sent some goes away.
    #[serde(default)]
    pub stdin_once: bool,
    /// Rows and columns of the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<(u16, u16)>,
    /// Where output is kept; none keeps nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
}

/// What the monitor stays with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorKind {
    /// A container from a bundle.
    Container {
        /// Folder with `config.json`.
        bundle: PathBuf,
        /// Root file system made by the monitor; none takes `root.path` of the bundle as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rootfs: Option<Overlay>,
    },
    /// A process in a running container.
    Exec {
        /// The container.
        container: String,
        /// OCI process document.
        process: PathBuf,
    },
}

/// An overlay file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only layers, the top-most first; at least one.
    pub lower: Vec<PathBuf>,
    /// Layer that takes the changes.
    pub upper: PathBuf,
    /// Empty folder on the same file system as `upper`.
    pub work: PathBuf,
    /// Never synchronise to disk: for containers that are removed when they end.
    #[serde(default)]
    pub volatile: bool,
}

/// Which OCI runtime makes the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeChoice {
    /// This one.
    Own {
        /// Where state is kept.
        root: PathBuf,
    },
    /// Another executable with runc's command line.
    External {
        /// The executable.
        path: PathBuf,
        /// Where it keeps its state.
        root: PathBuf,
        /// Pass `--systemd-cgroup`.
        #[serde(default)]
        systemd_cgroup: bool,
    },
}

/// Where the output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogConfig {
    /// Docker's json-file format.
    JsonFile {
        /// The newest file; older ones are `path.1`, `path.2` and so on.
        path: PathBuf,
        /// Bytes after which the file is rotated; 0 is no limit.
        max_size: u64,
        /// Files kept, the newest included; 0 counts as 1.
        max_file: u32,
    },
}
