//! The daemon itself: version, info and disk usage.

use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::volume::VolumeInfo;
use gantry_model::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answer of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VersionResponse {
    /// Product.
    pub platform: PlatformName,
    /// Parts.
    #[serde(deserialize_with = "nullable")]
    pub components: Vec<Component>,
    /// Version.
    pub version: String,
    /// Newest API version.
    pub api_version: String,
    /// Oldest API version.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Commit.
    pub git_commit: String,
    /// Compiler; the key is older than Gantry.
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// `amd64` and so on.
    pub arch: String,
    /// Kernel.
    pub kernel_version: String,
    /// Experimental features.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    /// When it was built.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_time: String,
}

/// Product name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlatformName {
    /// Name.
    pub name: String,
}

/// One part of the product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Component {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// More.
    #[serde(deserialize_with = "nullable")]
    pub details: BTreeMap<String, String>,
}

/// Answer of `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InfoResponse {
    /// Identity of this daemon.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers.
    pub containers: u64,
    /// Of them running.
    pub containers_running: u64,
    /// Of them paused.
    pub containers_paused: u64,
    /// Of them stopped.
    pub containers_stopped: u64,
    /// Images.
    pub images: u64,
    /// Storage driver.
    pub driver: String,
    /// Facts of the storage driver.
    #[serde(deserialize_with = "nullable")]
    pub driver_status: Vec<[String; 2]>,
    /// Always null.
    pub system_status: Option<Vec<[String; 2]>>,
    /// Plug-ins.
    #[serde(deserialize_with = "nullable")]
    pub plugins: PluginsInfo,
    /// Memory limits work.
    pub memory_limit: bool,
    /// Swap limits work.
    pub swap_limit: bool,
    /// CFS quotas work.
    #[serde(rename = "CpuCfsPeriod")]
    pub cpu_cfs_period: bool,
    /// CFS quotas work.
    #[serde(rename = "CpuCfsQuota")]
    pub cpu_cfs_quota: bool,
    /// CPU weights work.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// CPU sets work.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Limits of processes work.
    pub pids_limit: bool,
    /// Forwarding is on.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Debug log.
    pub debug: bool,
    /// Open files of the daemon.
    #[serde(rename = "NFd")]
    pub nfd: i64,
    /// The OOM killer can be turned off.
    pub oom_kill_disable: bool,
    /// Threads of the daemon; the key is older than Gantry.
    pub n_goroutines: i64,
    /// RFC 3339.
    pub system_time: String,
    /// Log driver.
    pub logging_driver: String,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Event listeners.
    pub n_events_listener: i64,
    /// Kernel.
    pub kernel_version: String,
    /// Name of the distribution.
    pub operating_system: String,
    /// Version of the distribution.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// `x86_64` and so on.
    pub architecture: String,
    /// Docker Hub's address.
    pub index_server_address: String,
    /// Registries.
    pub registry_config: Option<RegistryConfig>,
    /// Processors.
    #[serde(rename = "NCPU")]
    pub ncpu: i64,
    /// Bytes.
    pub mem_total: i64,
    /// Always null.
    pub generic_resources: Option<Vec<serde_json::Value>>,
    /// Data folder.
    pub docker_root_dir: String,
    /// Proxy.
    pub http_proxy: String,
    /// Proxy.
    pub https_proxy: String,
    /// Proxy.
    pub no_proxy: String,
    /// Host name.
    pub name: String,
    /// Labels of the daemon.
    #[serde(deserialize_with = "nullable")]
    pub labels: Vec<String>,
    /// Experimental features.
    pub experimental_build: bool,
    /// Version of the daemon.
    pub server_version: String,
    /// OCI runtimes.
    #[serde(deserialize_with = "nullable")]
    pub runtimes: BTreeMap<String, RuntimeInfo>,
    /// The default one.
    pub default_runtime: String,
    /// The cluster (Docker API: `swarm.Info`, from `gantry_model`).
    pub swarm: serde_json::Value,
    /// Containers live on without the daemon: always.
    pub live_restore_enabled: bool,
    /// Empty.
    pub isolation: String,
    /// Executable for `--init`.
    pub init_binary: String,
    /// Its parts' versions.
    pub containerd_commit: Commit,
    /// Its parts' versions.
    pub runc_commit: Commit,
    /// Its parts' versions.
    pub init_commit: Commit,
    /// `name=seccomp,profile=builtin`.
    #[serde(deserialize_with = "nullable")]
    pub security_options: Vec<String>,
    /// Default address pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_address_pools: Vec<AddressPool>,
    /// `CDI` folders.
    #[serde(rename = "CDISpecDirs", deserialize_with = "nullable")]
    pub cdi_spec_dirs: Vec<String>,
    /// Whether bridges pass packets to iptables: nothing here depends on it, and clients before API 1.50 warn without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_nf_iptables: Option<bool>,
    /// The same of IPv6.
    #[serde(rename = "BridgeNfIp6tables", skip_serializing_if = "Option::is_none")]
    pub bridge_nf_ip6tables: Option<bool>,
    /// What does not work on this machine.
    #[serde(deserialize_with = "nullable")]
    pub warnings: Vec<String>,
}

/// Plug-ins by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PluginsInfo {
    /// Volume drivers.
    #[serde(deserialize_with = "nullable")]
    pub volume: Vec<String>,
    /// Network drivers.
    #[serde(deserialize_with = "nullable")]
    pub network: Vec<String>,
    /// Authorization plug-ins.
    pub authorization: Option<Vec<String>>,
    /// Log drivers.
    #[serde(deserialize_with = "nullable")]
    pub log: Vec<String>,
}

/// Registries that the daemon knows something of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RegistryConfig {
    /// Networks whose registries may speak http.
    #[serde(rename = "InsecureRegistryCIDRs", deserialize_with = "nullable")]
    pub insecure_registry_cidrs: Vec<String>,
    /// By host.
    #[serde(deserialize_with = "nullable")]
    pub index_configs: BTreeMap<String, IndexInfo>,
    /// Mirrors of Docker Hub.
    pub mirrors: Option<Vec<String>>,
}

/// One registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IndexInfo {
    /// Host.
    pub name: String,
    /// Mirrors.
    #[serde(deserialize_with = "nullable")]
    pub mirrors: Vec<String>,
    /// https only.
    pub secure: bool,
    /// Docker Hub.
    pub official: bool,
}

/// An OCI runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeInfo {
    /// Executable.
    pub path: String,
}

/// Version of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// Commit or version.
    #[serde(rename = "ID")]
    pub id: String,
}

/// Where new networks get their subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AddressPool {
    /// CIDR.
    pub base: String,
    /// Length of the subnets' prefixes.
    pub size: u8,
}

/// Answer of `GET /system/df`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskUsage {
    /// Bytes of all layers.
    pub layers_size: i64,
    /// Images.
    pub images: Option<Vec<ImageSummary>>,
    /// Containers.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Volumes.
    pub volumes: Option<Vec<VolumeInfo>>,
    /// Build cache: none yet.
    pub build_cache: Option<Vec<serde_json::Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_has_dockers_keys() {
        let value = serde_json::to_value(InfoResponse::default()).unwrap();
        for key in [
            "ID",
            "NCPU",
            "NFd",
            "NGoroutines",
            "NEventsListener",
            "CPUShares",
            "CpuCfsQuota",
            "IPv4Forwarding",
            "OSType",
            "CgroupVersion",
            "CDISpecDirs",
            "DockerRootDir",
            "HttpProxy",
            "LiveRestoreEnabled",
            "RuncCommit",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(value["Warnings"], serde_json::json!([]));
        assert!(value["Plugins"]["Authorization"].is_null());
    }
}
