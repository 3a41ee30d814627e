//! `/info`: what this daemon is, has and cannot do.

use super::VERSION;
use crate::daemon::{Daemon, Shared};
use crate::host;
use crate::http::{Call, Reply, stream};
use crate::routes::containers::STORAGE_DRIVER;
use crate::settings::Reach;
use gantry_api::system::{
    AddressPool, Commit, IndexInfo, InfoResponse, PluginsInfo, RegistryConfig, RuntimeInfo,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

pub(super) async fn info(daemon: Shared, call: Call) -> Reply {
    let bridge_nf = (!call.since(50)).then_some(true);
    let counts = daemon.engine.counts();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let host = &daemon.host;
    let settings = &daemon.settings;
    let (nfd, threads) = host::own_use();
    let has = host::has_controller;
    let commit = || Commit { id: VERSION.to_owned() };
    let answer = InfoResponse {
        id: daemon.id.clone(),
        containers: number(counts.containers),
        containers_running: number(counts.running),
        containers_paused: number(counts.paused),
        containers_stopped: number(counts.stopped),
        images: number(daemon.image_count()),
        driver: STORAGE_DRIVER.to_owned(),
        driver_status: driver_status(),
        plugins: plugins(),
        memory_limit: has("memory"),
        swap_limit: swap_limit(),
        cpu_cfs_period: has("cpu"),
        cpu_cfs_quota: has("cpu"),
        cpu_shares: has("cpu"),
        cpu_set: has("cpuset"),
        pids_limit: has("pids"),
        ipv4_forwarding: host::forwarding(),
        debug: matches!(settings.log_level.as_str(), "debug" | "trace"),
        nfd,
        n_goroutines: threads,
        oom_kill_disable: host.cgroup_version == 1,
        system_time: gantry_api::time::format(Timestamp::now()),
        logging_driver: daemon.engine.config().default_log_driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: host.cgroup_version.to_string(),
        n_events_listener: daemon.listeners.load(Ordering::Relaxed),
        kernel_version: host.kernel.clone(),
        operating_system: host.distribution.clone(),
        os_version: host.distribution_version.clone(),
        os_type: "linux".to_owned(),
        architecture: host.machine.clone(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registries(&settings.reach)),
        ncpu: i64::try_from(host.cpus).unwrap_or(i64::MAX),
        mem_total: i64::try_from(host.memory).unwrap_or(i64::MAX),
        docker_root_dir: settings.data_root.to_string_lossy().into_owned(),
        http_proxy: settings.reach.shown_proxy("HTTP_PROXY"),
        https_proxy: settings.reach.shown_proxy("HTTPS_PROXY"),
        no_proxy: settings.reach.shown_proxy("NO_PROXY"),
        name: daemon.name.clone(),
        labels: settings.labels.clone(),
        server_version: VERSION.to_owned(),
        runtimes: runtimes(&daemon),
        default_runtime: settings.default_runtime.clone(),
        swarm: daemon.swarm_section(),
        live_restore_enabled: true,
        init_binary: "docker-init".to_owned(),
        containerd_commit: Commit { id: "none: not needed".to_owned() },
        runc_commit: commit(),
        init_commit: commit(),
        security_options: vec!["name=seccomp,profile=builtin".to_owned(), "name=cgroupns".to_owned()],
        default_address_pools: settings
            .default_address_pools
            .iter()
            .map(|pool| AddressPool { base: pool.base.clone(), size: pool.size })
            .collect(),
        bridge_nf_iptables: bridge_nf,
        bridge_nf_ip6tables: bridge_nf,
        warnings: daemon.warnings(),
        ..InfoResponse::default()
    };
    stream::json(&answer)
}

fn driver_status() -> Vec<[String; 2]> {
    let line = |key: &str, value: &str| [key.to_owned(), value.to_owned()];
    vec![line("Layers", "folders, one for each layer"), line("Mount API", "detached mounts (fsopen)")]
}

fn plugins() -> PluginsInfo {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    PluginsInfo {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "macvlan", "null", "overlay"]),
        authorization: None,
        log: list(&["json-file", "local", "none"]),
    }
}

/// Whether the kernel counts swap for each cgroup.
fn swap_limit() -> bool {
    ["/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/memory.swap.max"]
        .iter()
        .any(|path| std::path::Path::new(path).exists())
}

fn runtimes(daemon: &Daemon) -> BTreeMap<String, RuntimeInfo> {
    let own = daemon.engine.config();
    own.runtimes
        .iter()
        .map(|(name, entry)| (name.clone(), RuntimeInfo { path: entry.path.to_string_lossy().into_owned() }))
        .collect()
}

fn registries(reach: &Reach) -> RegistryConfig {
    let mut index_configs = BTreeMap::new();
    let mirrors: Vec<String> = reach.mirrors.iter().map(ToString::to_string).collect();
    let hub =
        IndexInfo { name: "docker.io".to_owned(), mirrors: mirrors.clone(), secure: true, official: true };
    index_configs.insert(hub.name.clone(), hub);
    let (networks, hosts): (Vec<&String>, Vec<&String>) =
        reach.insecure.iter().partition(|entry| entry.contains('/'));
    for name in hosts {
        let index = IndexInfo { name: name.clone(), ..IndexInfo::default() };
        index_configs.insert(name.clone(), index);
    }
    let loopback = ["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    RegistryConfig {
        insecure_registry_cidrs: loopback.into_iter().chain(networks.into_iter().cloned()).collect(),
        index_configs,
        mirrors: Some(mirrors),
    }
}
