//! What the engine tells about a container: its specification, state, names, mounts and network places at one moment.

use gantry_model::container::{ContainerConfig, ContainerStatus, HostConfig, PortMap};
use gantry_model::id::ContainerId;
use gantry_model::network::EndpointSettings;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A container at one moment.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// Id.
    pub id: ContainerId,
    /// Name, without the leading slash.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Executable of its process.
    pub path: String,
    /// Arguments of its process, without the executable.
    pub args: Vec<String>,
    /// Specification after the merge with the image's.
    pub config: ContainerConfig,
    /// Host part of the specification, defaults filled in.
    pub host: HostConfig,
    /// State.
    pub state: StateView,
    /// Image id, `sha256:…`.
    pub image_id: String,
    /// `linux`.
    pub platform: String,
    /// Mount points.
    pub mounts: Vec<MountPoint>,
    /// Places in networks.
    pub network: NetworkView,
    /// The json-file log; empty path for other drivers.
    pub log_path: PathBuf,
    /// The file that is /etc/resolv.conf inside.
    pub resolv_conf_path: PathBuf,
    /// The file that is /etc/hostname inside.
    pub hostname_path: PathBuf,
    /// The file that is /etc/hosts inside.
    pub hosts_path: PathBuf,
    /// How often the restart policy started it again.
    pub restart_count: u32,
    /// Execs that have not ended.
    pub exec_ids: Vec<String>,
    /// Layers of its file system, top-most first.
    pub lower: Vec<PathBuf>,
    /// Its writable layer.
    pub upper: PathBuf,
}

/// A container's state at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateView {
    /// Status.
    pub status: ContainerStatus,
    /// Process id on the host; 0 when it does not run.
    pub pid: i32,
    /// Exit code of the last run.
    pub exit_code: i32,
    /// Why it could not be started, or what went wrong at its end.
    pub error: String,
    /// The kernel killed one of its processes for memory in the last run.
    pub oom_killed: bool,
    /// Start of the last run.
    pub started_at: Option<Timestamp>,
    /// End of the last run.
    pub finished_at: Option<Timestamp>,
    /// Health, when there is a health check.
    pub health: Option<Health>,
}

impl StateView {
    /// Whether its process exists (running or paused; restarting counts as running for Docker's clients).
    pub fn alive(&self) -> bool {
        matches!(self.status, ContainerStatus::Running | ContainerStatus::Paused)
    }
}

/// Whether a container is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has decided yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// As many checks failed in a row as were allowed.
    Unhealthy,
}

impl HealthStatus {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A container's health and the last checks (five at most).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last checks, oldest first.
    pub log: Vec<HealthResult>,
}

/// One health check that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 healthy, 1 unhealthy, -1 timed out or could not run.
    pub exit_code: i32,
    /// The first 4096 bytes of its output.
    pub output: String,
}

/// One mount of a container (Docker API: `MountPoint`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`.
    pub r#type: String,
    /// Volume name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path inside.
    pub destination: String,
    /// Volume driver.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as the user wrote them.
    pub mode: String,
    /// Writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// `rprivate` and so on.
    pub propagation: String,
}

/// A container's places in networks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Id of the sandbox; empty when it does not run.
    pub sandbox_id: String,
    /// Path of the network namespace; empty when it does not run.
    pub sandbox_key: PathBuf,
    /// Ports that are published right now.
    pub ports: PortMap,
    /// Endpoint of each network, by network name.
    pub networks: BTreeMap<String, EndpointSettings>,
}
