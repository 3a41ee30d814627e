//! What a container is asked to be: Docker's `ContainerConfig` and `HostConfig`, and the states it can be in.

use crate::network::EndpointSettings;
use crate::{is_zero, null_if_empty, nullable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An empty JSON object, as Docker uses it for the values of sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The portable part of a container's specification (Docker API: `ContainerConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// Host name inside; empty: the short id.
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(deserialize_with = "nullable")]
    pub domainname: String,
    /// `user[:group]`, by name or number.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// The creating client attaches to stdin.
    #[serde(deserialize_with = "nullable")]
    pub attach_stdin: bool,
    /// The creating client attaches to stdout.
    #[serde(deserialize_with = "nullable")]
    pub attach_stdout: bool,
    /// The creating client attaches to stderr.
    #[serde(deserialize_with = "nullable")]
    pub attach_stderr: bool,
    /// Ports that the image documents, `80/tcp`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Give the process a pseudo-terminal.
    #[serde(deserialize_with = "nullable")]
    pub tty: bool,
    /// Keep stdin open.
    #[serde(deserialize_with = "nullable")]
    pub open_stdin: bool,
    /// Close stdin when the first client that attached to it goes.
    #[serde(deserialize_with = "nullable")]
    pub stdin_once: bool,
    /// `KEY=value`; in a create request `KEY` alone removes the image's.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Arguments; null means the image's.
    #[serde(deserialize_with = "one_or_many")]
    pub cmd: Option<Vec<String>>,
    /// Health check; null means the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// The image as the user named it.
    #[serde(deserialize_with = "nullable")]
    pub image: String,
    /// Mount points of anonymous volumes.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory.
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    /// Executable and first arguments; null means the image's.
    #[serde(deserialize_with = "one_or_many")]
    pub entrypoint: Option<Vec<String>>,
    /// No network at all (superseded by network mode `none`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_disabled: Option<bool>,
    /// MAC address of the first endpoint (API before 1.44).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Triggers for derived images.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to end; null means SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL; null means 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell for the shell form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// A health check; times in nanoseconds, 0 means inherit or default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `[]` inherit, `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between checks; default 30 s.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check; default 30 s.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Failures in a row that make it unhealthy; default 3.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// In which failures do not count.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between checks in the start period; default 5 s.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
}

/// When a container is started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// `""`/`no`, `always`, `unless-stopped`, `on-failure`.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// For `on-failure`; 0 means no limit.
    #[serde(deserialize_with = "nullable")]
    pub maximum_retry_count: i64,
}

/// One address on the host for a port of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Hash, PartialOrd, Ord)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortBinding {
    /// Address on the host; empty: all.
    #[serde(deserialize_with = "nullable")]
    pub host_ip: String,
    /// Port or `from-to` range on the host; empty or 0: any free one.
    #[serde(deserialize_with = "nullable")]
    pub host_port: String,
}

/// Container port (`80/tcp`) → where it is published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// The log driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// `json-file`, `local`, `none`; empty: the daemon's default.
    #[serde(deserialize_with = "nullable")]
    pub r#type: String,
    /// `max-size`, `max-file`, …
    #[serde(deserialize_with = "nullable")]
    pub config: BTreeMap<String, String>,
}

/// A device of the host given to the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    /// Path on the host.
    pub path_on_host: String,
    /// Path inside.
    pub path_in_container: String,
    /// Some of `rwm`.
    #[serde(deserialize_with = "nullable")]
    pub cgroup_permissions: String,
}

/// A resource limit of processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    /// Lower case without `RLIMIT_`: `nofile`.
    pub name: String,
    /// Soft limit; -1: none.
    pub soft: i64,
    /// Hard limit; -1: none.
    pub hard: i64,
}

/// Rate limit of a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ThrottleDevice {
    /// Device node on the host.
    pub path: String,
    /// Bytes or operations each second.
    pub rate: u64,
}

/// Weight of a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WeightDevice {
    /// Device node on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// A mount as `--mount` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`.
    pub r#type: String,
    /// Path on the host or volume name; empty for tmpfs and anonymous volumes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Absolute path inside.
    pub target: String,
    /// Read-only.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Ignored on Linux.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// For binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindOptions {
    /// `rprivate` and so on.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Not recursive.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// Make the source when it is not there.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub create_mountpoint: bool,
    /// Submounts stay writable.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub read_only_non_recursive: bool,
    /// Fail when submounts cannot be made read-only.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub read_only_force_recursive: bool,
}

/// Options of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeOptions {
    /// Do not copy the image's content into an empty volume.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// Labels of a volume made for this mount.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Folder of the volume to mount.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// Driver of a volume made for this mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
}

/// A driver's name and options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DriverConfig {
    /// Driver name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Options.
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsOptions {
    /// Bytes; 0: no limit.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// Permission bits.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub mode: u32,
}

/// The part of a container's specification that concerns this host (Docker API: `HostConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `source:target[:options]`.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub binds: Vec<String>,
    /// File to write the id into (the client's affair).
    #[serde(rename = "ContainerIDFile", deserialize_with = "nullable")]
    pub container_id_file: String,
    /// Log driver.
    #[serde(deserialize_with = "nullable")]
    pub log_config: LogConfig,
    /// `default`, `bridge`, `host`, `none`, `container:ID`, or a network.
    #[serde(deserialize_with = "nullable")]
    pub network_mode: String,
    /// Published ports.
    #[serde(deserialize_with = "nullable")]
    pub port_bindings: PortMap,
    /// When it is started again.
    #[serde(deserialize_with = "nullable")]
    pub restart_policy: RestartPolicy,
    /// Remove it when it ends.
    #[serde(deserialize_with = "nullable")]
    pub auto_remove: bool,
    /// Driver of anonymous volumes.
    #[serde(deserialize_with = "nullable")]
    pub volume_driver: String,
    /// Containers whose volumes it takes, `ID[:ro]`.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub volumes_from: Vec<String>,
    /// Rows and columns of the first terminal.
    #[serde(deserialize_with = "nullable")]
    pub console_size: [u16; 2],
    /// Annotations for the runtime.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Capabilities added.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub cap_drop: Vec<String>,
    /// `private`, `host`, or empty.
    #[serde(deserialize_with = "nullable")]
    pub cgroupns_mode: String,
    /// DNS servers.
    #[serde(deserialize_with = "nullable")]
    pub dns: Vec<String>,
    /// DNS options.
    #[serde(deserialize_with = "nullable")]
    pub dns_options: Vec<String>,
    /// DNS search domains.
    #[serde(deserialize_with = "nullable")]
    pub dns_search: Vec<String>,
    /// `name:address` for /etc/hosts.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub extra_hosts: Vec<String>,
    /// Additional groups.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub group_add: Vec<String>,
    /// `private`, `shareable`, `host`, `container:ID`, `none`.
    #[serde(deserialize_with = "nullable")]
    pub ipc_mode: String,
    /// Cgroup to run in (unused).
    #[serde(deserialize_with = "nullable")]
    pub cgroup: String,
    /// Legacy links.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub links: Vec<String>,
    /// -1000 to 1000.
    #[serde(deserialize_with = "nullable")]
    pub oom_score_adj: i32,
    /// `host`, `container:ID` or empty.
    #[serde(deserialize_with = "nullable")]
    pub pid_mode: String,
    /// All capabilities, all devices, no confinement.
    #[serde(deserialize_with = "nullable")]
    pub privileged: bool,
    /// Publish all exposed ports.
    #[serde(deserialize_with = "nullable")]
    pub publish_all_ports: bool,
    /// Root file system read-only.
    #[serde(deserialize_with = "nullable")]
    pub readonly_rootfs: bool,
    /// `no-new-privileges`, `seccomp=…`, `apparmor=…`, `label=…`.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub security_opt: Vec<String>,
    /// Storage driver options.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Path → mount options.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// `host` or empty.
    #[serde(rename = "UTSMode", deserialize_with = "nullable")]
    pub uts_mode: String,
    /// `host` or empty.
    #[serde(deserialize_with = "nullable")]
    pub userns_mode: String,
    /// Bytes of /dev/shm; 0: 64 MiB.
    #[serde(deserialize_with = "nullable")]
    pub shm_size: i64,
    /// Kernel parameters.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// OCI runtime by its configured name; empty: the default.
    #[serde(deserialize_with = "nullable")]
    pub runtime: String,
    /// Windows only.
    #[serde(deserialize_with = "nullable")]
    pub isolation: String,
    /// Limits of resources.
    #[serde(flatten)]
    pub resources: Resources,
    /// Mounts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Paths hidden inside; null: the default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths read-only inside; null: the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Run an init that reaps zombies; null: the daemon's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// Limits of resources; 0 means no limit unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Resources {
    /// Relative weight, 2 to 262144.
    #[serde(deserialize_with = "nullable")]
    pub cpu_shares: i64,
    /// Bytes.
    #[serde(deserialize_with = "nullable")]
    pub memory: i64,
    /// Billionths of a CPU.
    #[serde(rename = "NanoCpus", deserialize_with = "nullable")]
    pub nano_cpus: i64,
    /// Parent cgroup.
    #[serde(deserialize_with = "nullable")]
    pub cgroup_parent: String,
    /// 10 to 1000.
    #[serde(deserialize_with = "nullable")]
    pub blkio_weight: u16,
    /// Weight of each device.
    #[serde(deserialize_with = "nullable")]
    pub blkio_weight_device: Vec<WeightDevice>,
    /// Bytes read each second.
    #[serde(deserialize_with = "nullable")]
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    /// Bytes written each second.
    #[serde(deserialize_with = "nullable")]
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    /// Reads each second.
    #[serde(rename = "BlkioDeviceReadIOps", deserialize_with = "nullable")]
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    /// Writes each second.
    #[serde(rename = "BlkioDeviceWriteIOps", deserialize_with = "nullable")]
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
    /// Microseconds.
    #[serde(deserialize_with = "nullable")]
    pub cpu_period: i64,
    /// Microseconds in each period.
    #[serde(deserialize_with = "nullable")]
    pub cpu_quota: i64,
    /// Microseconds.
    #[serde(deserialize_with = "nullable")]
    pub cpu_realtime_period: i64,
    /// Microseconds.
    #[serde(deserialize_with = "nullable")]
    pub cpu_realtime_runtime: i64,
    /// `0-2,4`.
    #[serde(deserialize_with = "nullable")]
    pub cpuset_cpus: String,
    /// `0,1`.
    #[serde(deserialize_with = "nullable")]
    pub cpuset_mems: String,
    /// Devices.
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<DeviceMapping>,
    /// `c 1:3 rwm`.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// GPUs and the like: refused when not empty.
    #[serde(deserialize_with = "nullable", serialize_with = "null_if_empty")]
    pub device_requests: Vec<serde_json::Value>,
    /// Bytes.
    #[serde(deserialize_with = "nullable")]
    pub memory_reservation: i64,
    /// Bytes of memory and swap; -1: unlimited swap; 0: twice the memory.
    #[serde(deserialize_with = "nullable")]
    pub memory_swap: i64,
    /// 0 to 100; null or -1: the kernel's.
    #[serde(deserialize_with = "nullable")]
    pub memory_swappiness: Option<i64>,
    /// Do not kill when memory runs out.
    #[serde(deserialize_with = "nullable")]
    pub oom_kill_disable: Option<bool>,
    /// Processes; 0 or -1: no limit; null: unchanged.
    pub pids_limit: Option<i64>,
    /// Limits of processes.
    #[serde(deserialize_with = "nullable")]
    pub ulimits: Vec<Ulimit>,
}

/// How a new container joins networks (Docker API: `NetworkingConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkingConfig {
    /// Network name or id → settings.
    #[serde(deserialize_with = "nullable")]
    pub endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
}

/// A container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, Hash)]
#[serde(rename_all = "lowercase")]
pub enum ContainerStatus {
    /// Made, never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended, and about to be started again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl ContainerStatus {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// Why a text is no container name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct InvalidName(String);

/// Checks a name of a container or volume by Docker's rule; a leading `/` is dropped.
pub fn check_name(name: &str) -> Result<&str, InvalidName> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bare.len() >= 2
        && bare.len() <= 255
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good { Ok(bare) } else { Err(InvalidName(name.to_owned())) }
}

/// Docker accepts `"cmd"` as well as `["cmd"]` for commands.
fn one_or_many<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Form>::deserialize(source)?.map(|form| match form {
        Form::One(word) => vec![word],
        Form::Many(words) => words,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_go_clients_read_as_empty() {
        let config: ContainerConfig = serde_json::from_str(
            r#"{"Hostname":null,"Env":null,"Cmd":"ls","Volumes":null,"Labels":null,"New":1}"#,
        )
        .unwrap();
        assert_eq!(config.cmd, Some(vec!["ls".to_owned()]));
        let host: HostConfig = serde_json::from_str(
            r#"{"Binds":null,"Memory":42,"PidsLimit":null,"RestartPolicy":{"Name":"always"},"LogConfig":null,"ConsoleSize":[24,80]}"#,
        )
        .unwrap();
        assert_eq!(host.resources.memory, 42);
        assert_eq!(host.console_size, [24, 80]);
        assert_eq!(serde_json::to_value(&host).unwrap()["Memory"], 42);
    }

    #[test]
    fn names_follow_dockers_rule() {
        assert_eq!(check_name("/web-1"), Ok("web-1"));
        for bad in ["", "-a", "a b", "a/b", "a"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
