//! Services: what the user wants to run in the cluster, and how it changes.

use crate::container::{HealthConfig, Mount, Ulimit};
use crate::id::ServiceId;
use crate::nullable;
use crate::pull_auth::PullAuth;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of an object in the store; a write names the version that it read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Version {
    /// Raft index of the last change.
    pub index: u64,
}

/// A service (Docker API: `Service`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Service {
    /// Id.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What was wanted before the last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    /// Ports and virtual IPs.
    #[serde(deserialize_with = "nullable")]
    pub endpoint: Endpoint,
    /// Progress of the last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Counts of tasks, only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    /// Jobs only: which iteration runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
    /// Counts the changes of the task template: tasks of an older one are replaced.
    #[serde(rename = "GantrySpecVersion")]
    pub spec_version: u64,
    /// Version in which the specification came to be what it is; kept by the store. The managers change a service (its addresses,
    /// how far its update is) between a client's read and its write, and that must not be a conflict.
    #[serde(rename = "GantrySpecSince")]
    pub spec_since: Version,
}

impl Service {
    /// Whether the specification is still what a client saw who read this version.
    pub fn was_read_at(&self, read: Version) -> bool {
        (self.spec_since.index..=self.version.index).contains(&read.index)
    }
}

/// Which iteration of a job runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobStatus {
    /// Grows with every update of the service.
    pub job_iteration: Version,
    /// RFC 3339, when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_execution: Option<String>,
}

/// Counts of a service's tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceStatus {
    /// Running.
    pub running_tasks: u64,
    /// Wanted.
    pub desired_tasks: u64,
    /// Completed (jobs).
    pub completed_tasks: u64,
}

/// What a service is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceSpec {
    /// Unique name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// What each task runs.
    pub task_template: TaskSpec,
    /// How many.
    #[serde(deserialize_with = "nullable")]
    pub mode: ServiceMode,
    /// How it is updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How it is rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Networks of old clients; newer ones put them into the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkAttachmentConfig>>,
    /// Ports and the way names resolve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
}

impl ServiceSpec {
    /// The ports that it asks to be published.
    pub fn ports(&self) -> &[PortConfig] {
        self.endpoint_spec.as_ref().map(|spec| spec.ports.as_slice()).unwrap_or_default()
    }
}

/// How many tasks a service has; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceMode {
    /// A number of equal tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    /// One on each fitting node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<crate::container::Empty>,
    /// A number of tasks that end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<ReplicatedJob>,
    /// One task that ends on each fitting node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<crate::container::Empty>,
}

/// Replicated mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Replicated {
    /// Number of tasks; absent: 1.
    pub replicas: Option<u64>,
}

/// Replicated job mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReplicatedJob {
    /// At the same time.
    pub max_concurrent: Option<u64>,
    /// In all.
    pub total_completions: Option<u64>,
}

/// What a task runs and under which conditions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskSpec {
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_spec: Option<ContainerSpec>,
    /// For tasks that stand for a container outside services on a cluster network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_attachment_spec: Option<NetworkAttachmentSpec>,
    /// Limits and reservations.
    #[serde(deserialize_with = "nullable")]
    pub resources: ResourceRequirements,
    /// When a task that ended is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<TaskRestartPolicy>,
    /// Where.
    #[serde(deserialize_with = "nullable")]
    pub placement: Placement,
    /// Networks.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Log driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// A change of it replaces all tasks.
    #[serde(deserialize_with = "nullable")]
    pub force_update: u64,
    /// `container` or `attachment`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub runtime: String,
}

/// A container that joined a cluster network by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachmentSpec {
    /// The container.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The names it answers to (Gantry).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// The container of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSpec {
    /// Image reference, best with a digest.
    pub image: String,
    /// Labels of the container.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Entrypoint.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Host name, may be a template.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Environment.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// User.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Additional groups.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Security options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
    /// Pseudo-terminal.
    #[serde(rename = "TTY", deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Keep stdin open.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub open_stdin: bool,
    /// Root file system read-only.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Mounts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Stop signal.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<i64>,
    /// Health check.
    #[serde(rename = "Healthcheck", alias = "HealthCheck", skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// `address name…` lines for /etc/hosts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// DNS.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Secrets.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretReference>,
    /// Configs.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ConfigReference>,
    /// `default`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// Run an init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Kernel parameters.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities added.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub capability_add: Vec<String>,
    /// Capabilities dropped.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub capability_drop: Vec<String>,
    /// Limits of processes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// -1000 to 1000.
    #[serde(deserialize_with = "nullable")]
    pub oom_score_adj: i32,
    /// Credentials for the pull, base64 of the `X-Registry-Auth` JSON; never shown by the API.
    #[serde(rename = "GantryPullAuth", skip_serializing_if = "Option::is_none")]
    pub pull_auth: Option<PullAuth>,
}

/// Security options of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Privileges {
    /// `no-new-privileges`.
    #[serde(deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    /// `{Mode: default|unconfined|custom, Profile: base64}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<serde_json::Value>,
    /// `{Mode: default|disabled}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_armor: Option<serde_json::Value>,
    /// SELinux labels.
    #[serde(rename = "SELinuxContext", skip_serializing_if = "Option::is_none")]
    pub selinux_context: Option<serde_json::Value>,
    /// Windows only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_spec: Option<serde_json::Value>,
}

/// DNS of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsConfig {
    /// Servers.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// How a secret or config appears as a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FileTarget {
    /// Name or absolute path.
    pub name: String,
    /// User id.
    #[serde(rename = "UID", deserialize_with = "nullable")]
    pub uid: String,
    /// Group id.
    #[serde(rename = "GID", deserialize_with = "nullable")]
    pub gid: String,
    /// Permission bits.
    #[serde(deserialize_with = "nullable")]
    pub mode: u32,
}

/// A secret that a task gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretReference {
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// Id.
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    /// Name.
    pub secret_name: String,
}

/// A config that a task gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// Used by the runtime only, without a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<crate::container::Empty>,
    /// Id.
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    /// Name.
    pub config_name: String,
}

/// Limits and reservations of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResourceRequirements {
    /// What it may use at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<TaskResources>,
    /// What must be free on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<TaskResources>,
}

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskResources {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs", deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    /// Bytes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    /// Processes (limits only).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub pids: i64,
    /// Named and counted resources (reservations only).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<serde_json::Value>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// When a task that ended is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskRestartPolicy {
    /// `none`, `on-failure`, `any`; empty: any.
    #[serde(deserialize_with = "nullable")]
    pub condition: String,
    /// Nanoseconds; absent: 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    /// 0 or absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// Nanoseconds in which attempts count; 0 or absent: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
}

/// Where tasks may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Placement {
    /// `node.labels.zone==a` and so on.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Spread over the values of a label.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PlacementPreference>,
    /// At most so many on a node; 0: no limit.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "zero_u64")]
    pub max_replicas: u64,
    /// Platforms that the image is for.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<crate::node::NodePlatform>,
}

fn zero_u64(value: &u64) -> bool {
    *value == 0
}

/// One placement preference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlacementPreference {
    /// Spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadOver>,
}

/// Names the label whose values are spread over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpreadOver {
    /// `node.labels.zone` or `engine.labels.…`.
    pub spread_descriptor: String,
}

/// A network that tasks join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachmentConfig {
    /// Network id or name.
    pub target: String,
    /// Further names there.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Options of the driver.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Addresses asked for, without prefix; empty: any.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// Log driver of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogDriver {
    /// Name.
    pub name: String,
    /// Options.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// How tasks are replaced when the specification changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateConfig {
    /// At the same time; 0: all.
    #[serde(deserialize_with = "nullable")]
    pub parallelism: u64,
    /// Nanoseconds between batches.
    #[serde(deserialize_with = "nullable")]
    pub delay: i64,
    /// `pause`, `continue`, `rollback`; empty: pause.
    #[serde(deserialize_with = "nullable")]
    pub failure_action: String,
    /// Nanoseconds for which a new task is watched; 0: 5 s.
    #[serde(deserialize_with = "nullable")]
    pub monitor: i64,
    /// Part of the tasks that may fail.
    #[serde(deserialize_with = "nullable")]
    pub max_failure_ratio: f64,
    /// `stop-first` or `start-first`; empty: stop-first.
    #[serde(deserialize_with = "nullable")]
    pub order: String,
}

/// Progress of an update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused`, `rollback_completed`.
    pub state: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// A sentence.
    pub message: String,
}

/// Ports and the way names resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSpec {
    /// `vip` or `dnsrr`; empty: vip.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Ports.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortConfig {
    /// Name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `tcp`, `udp`; empty: tcp.
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
    /// Port of the container.
    pub target_port: u16,
    /// Port of the nodes; 0: one is chosen from 30000 on.
    #[serde(deserialize_with = "nullable")]
    pub published_port: u16,
    /// `ingress` or `host`; empty: ingress.
    #[serde(deserialize_with = "nullable")]
    pub publish_mode: String,
}

/// What a service got: ports and virtual IPs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Endpoint {
    /// As asked.
    #[serde(deserialize_with = "nullable")]
    pub spec: EndpointSpec,
    /// With numbers chosen.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// One for each network.
    #[serde(rename = "VirtualIPs", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<VirtualIp>,
}

/// The address of a service in one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VirtualIp {
    /// Network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// With the length of the prefix: `10.0.1.2/24`.
    pub addr: String,
}
