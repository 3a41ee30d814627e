//! Containers: what list, inspect, create, wait, top and changes answer.

use gantry_model::container::{ContainerConfig, HostConfig, NetworkingConfig, PortBinding};
use gantry_model::network::EndpointSettings;
use gantry_model::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `POST /containers/create`: the configuration with two more keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateBody {
    /// The portable part.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// The part that concerns the host.
    #[serde(rename = "HostConfig", deserialize_with = "nullable")]
    pub host_config: HostConfig,
    /// Networks to join.
    #[serde(rename = "NetworkingConfig", deserialize_with = "nullable")]
    pub networking_config: NetworkingConfig,
}

/// Answer of `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    /// Full id.
    pub id: String,
    /// What was ignored or is unwise.
    #[serde(deserialize_with = "nullable")]
    pub warnings: Vec<String>,
}

/// Answer of `POST /commit` and the like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IdResponse {
    /// Id of what was made.
    pub id: String,
}

/// Answer of `POST /containers/{id}/update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WarningsResponse {
    /// What was ignored or is unwise.
    #[serde(deserialize_with = "nullable")]
    pub warnings: Vec<String>,
}

/// One container of `GET /containers/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// Full id.
    pub id: String,
    /// Names with their leading `/`.
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// Image as the user named it.
    pub image: String,
    /// Image id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Command line.
    pub command: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<Port>,
    /// Bytes written above the image.
    #[serde(rename = "SizeRw", skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes with the image.
    #[serde(rename = "SizeRootFs", skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// `running` and so on.
    pub state: String,
    /// `Up 3 minutes (healthy)`.
    pub status: String,
    /// A little of the host's part.
    #[serde(deserialize_with = "nullable")]
    pub host_config: SummaryHostConfig,
    /// Networks.
    #[serde(deserialize_with = "nullable")]
    pub network_settings: SummaryNetworks,
    /// Mounts.
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<MountPoint>,
}

/// The host's part in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    /// Network mode.
    pub network_mode: String,
    /// Annotations.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Networks in a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryNetworks {
    /// By network name.
    #[serde(deserialize_with = "nullable")]
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// One port in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    /// Address on the host.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Port inside.
    pub private_port: u16,
    /// Port on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// `tcp`, `udp`, `sctp`.
    pub r#type: String,
}

/// One mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`.
    pub r#type: String,
    /// Volume name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path inside.
    pub destination: String,
    /// Volume driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as the user gave them.
    pub mode: String,
    /// Writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Propagation.
    pub propagation: String,
}

/// Answer of `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerInspect {
    /// Full id.
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// Executable.
    pub path: String,
    /// Its arguments.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// State.
    #[serde(deserialize_with = "nullable")]
    pub state: ContainerState,
    /// Image id.
    pub image: String,
    /// File mounted at /etc/resolv.conf.
    pub resolv_conf_path: String,
    /// File mounted at /etc/hostname.
    pub hostname_path: String,
    /// File mounted at /etc/hosts.
    pub hosts_path: String,
    /// Log file.
    pub log_path: String,
    /// Name with its leading `/`.
    pub name: String,
    /// How often the restart policy started it.
    pub restart_count: i64,
    /// Storage driver.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// SELinux label of mounts.
    pub mount_label: String,
    /// SELinux label of the process.
    pub process_label: String,
    /// AppArmor profile.
    pub app_armor_profile: String,
    /// Execs that run.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    /// The part that concerns the host.
    #[serde(deserialize_with = "nullable")]
    pub host_config: HostConfig,
    /// Where the root file system is.
    #[serde(deserialize_with = "nullable")]
    pub graph_driver: GraphDriver,
    /// Bytes written above the image (only when asked).
    #[serde(rename = "SizeRw", skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes with the image (only when asked).
    #[serde(rename = "SizeRootFs", skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Mounts.
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<MountPoint>,
    /// The portable part.
    #[serde(deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// Networks.
    #[serde(deserialize_with = "nullable")]
    pub network_settings: NetworkSettings,
}

/// A container's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerState {
    /// `running` and so on.
    pub status: String,
    /// Its process is there (paused and restarting too).
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Ended, and about to be started again.
    pub restarting: bool,
    /// Memory ran out.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Could not be removed.
    pub dead: bool,
    /// Process on the host; 0: none.
    pub pid: i64,
    /// Last exit code.
    pub exit_code: i64,
    /// Why it could not start.
    pub error: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// Health, for containers with a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Health of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five checks.
    #[serde(deserialize_with = "nullable")]
    pub log: Vec<HealthResult>,
}

/// One health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthResult {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// 0 healthy, 1 unhealthy, -1 did not run.
    pub exit_code: i64,
    /// Its output, cut.
    pub output: String,
}

/// Where a root file system is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GraphDriver {
    /// `LowerDir` and so on.
    pub data: Option<BTreeMap<String, String>>,
    /// Storage driver.
    pub name: String,
}

/// Networks of a container: the default bridge's values at the top, as old clients expect them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// Always empty.
    pub bridge: String,
    /// Id of the network namespace.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// Path of the network namespace.
    pub sandbox_key: String,
    /// Port inside → where it is published now.
    #[serde(deserialize_with = "nullable")]
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Always false.
    pub hairpin_mode: bool,
    /// Always empty.
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    /// Always 0.
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    /// Always null.
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<String>>,
    /// Always null.
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<String>>,
    /// Of the default bridge.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Of the default bridge.
    pub gateway: String,
    /// Of the default bridge.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Of the default bridge.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// Of the default bridge.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Of the default bridge.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// Of the default bridge.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// Of the default bridge.
    pub mac_address: String,
    /// By network name.
    #[serde(deserialize_with = "nullable")]
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// Answer of `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitResponse {
    /// Exit code.
    pub status_code: i64,
    /// Why waiting failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
}

/// Why waiting failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitError {
    /// The reason.
    pub message: String,
}

/// Answer of `GET /containers/{id}/top`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TopResponse {
    /// Rows.
    #[serde(deserialize_with = "nullable")]
    pub processes: Vec<Vec<String>>,
    /// Column heads.
    #[serde(deserialize_with = "nullable")]
    pub titles: Vec<String>,
}

/// One entry of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FilesystemChange {
    /// 0 changed, 1 added, 2 deleted.
    pub kind: u8,
    /// Absolute path inside.
    pub path: String,
}

/// The `X-Docker-Container-Path-Stat` header of the archive requests, before base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathStat {
    /// Last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `os.FileMode` bits, not the kernel's.
    pub mode: u32,
    /// RFC 3339.
    pub mtime: String,
    /// Target of a symbolic link.
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// Turns the kernel's `st_mode` into Go's `os.FileMode`.
pub fn go_file_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        0o060_000 => 1 << 26,
        0o020_000 => (1 << 26) | (1 << 21),
        _ => 0,
    };
    let bit = |kernel: u32, go: u32| if mode & kernel != 0 { go } else { 0 };
    kind | (mode & 0o777) | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20)
}

/// Answer of the prune requests of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainersPruned {
    /// Ids; null when there were none.
    pub containers_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// Body of `POST /networks/{id}/connect` and `/disconnect`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConnectBody {
    /// Container name or id.
    pub container: String,
    /// Settings (connect).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_config: Option<EndpointSettings>,
    /// Even when the container is gone (disconnect).
    #[serde(deserialize_with = "nullable")]
    pub force: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_body_keeps_its_three_parts() {
        let body: CreateBody = serde_json::from_str(
            r#"{"Image":"busybox","Cmd":["sh"],"Env":null,"HostConfig":{"Memory":7,"Binds":null},"NetworkingConfig":{"EndpointsConfig":{"n":null}},"Future":{"x":1}}"#,
        )
        .unwrap();
        assert_eq!(body.config.image, "busybox");
        assert_eq!(body.host_config.resources.memory, 7);
        assert!(body.networking_config.endpoints_config.contains_key("n"));
    }

    #[test]
    fn file_modes_are_gos() {
        assert_eq!(go_file_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(go_file_mode(0o100_644), 0o644);
        assert_eq!(go_file_mode(0o104_755), (1 << 23) | 0o755);
        assert_eq!(go_file_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
    }

    #[test]
    fn an_inspection_has_dockers_keys() {
        let value = serde_json::to_value(ContainerInspect::default()).unwrap();
        for key in [
            "Id",
            "Created",
            "Path",
            "Args",
            "State",
            "Image",
            "ExecIDs",
            "AppArmorProfile",
            "GraphDriver",
            "Mounts",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert!(value["ExecIDs"].is_null());
        assert_eq!(value["State"]["OOMKilled"], false);
        assert!(value["State"].get("Health").is_none());
        assert!(value["NetworkSettings"]["SecondaryIPAddresses"].is_null());
        assert_eq!(value["GraphDriver"], serde_json::json!({"Data": null, "Name": ""}));
    }
}
