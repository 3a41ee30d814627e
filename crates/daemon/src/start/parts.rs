//! From the daemon's settings to those of the crates below.

use super::StartError;
use crate::settings::{Settings, SettingsError};
use gantry_cluster::Timing;
use gantry_engine::{EngineConfig, RuntimeEntry, RuntimeKind};
use gantry_model::container::Ulimit;
use gantry_model::overlay::Subnet;
use gantry_network::{AddressPool, NetworkConfig};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The engine's part of the settings.
pub(super) fn engine_config(settings: &Settings, name: &str) -> Result<EngineConfig, StartError> {
    let monitor = match &settings.runtime_path {
        Some(path) => path.clone(),
        None => find_runtime()?,
    };
    let mut config = EngineConfig::new(&settings.data_root, &settings.run_root, monitor);
    let installed = ["runc", "crun"].into_iter().filter_map(|name| Some((name.to_owned(), in_path(name)?)));
    let configured = settings.runtimes.iter().map(|(name, path)| (name.clone(), path.clone()));
    for (name, path) in installed.chain(configured) {
        config.runtimes.insert(name, RuntimeEntry { path, kind: RuntimeKind::External });
    }
    config.default_runtime.clone_from(&settings.default_runtime);
    config.init_binary.clone_from(&settings.init_path);
    config.default_init = settings.init;
    config.cgroup_parent.clone_from(&settings.cgroup_parent);
    name.clone_into(&mut config.name);
    if let Some(driver) = &settings.log_driver {
        config.default_log_driver.clone_from(driver);
    }
    if let Some(size) = settings.log_opts.get("max-size") {
        config.default_log_max_size = crate::settings::bytes("log-opt max-size", size)?;
    }
    if let Some(count) = settings.log_opts.get("max-file") {
        config.default_log_max_file = crate::settings::number("log-opt max-file", count, "a whole number")?;
    }
    config.default_ulimits =
        settings.default_ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?;
    config.default_dns.clone_from(&settings.dns);
    config.default_dns_options.clone_from(&settings.dns_opts);
    config.default_dns_search.clone_from(&settings.dns_search);
    config.default_shm_size = settings.default_shm_size.unwrap_or(config.default_shm_size);
    config.default_stop_timeout = settings.stop_timeout.unwrap_or(config.default_stop_timeout);
    Ok(config)
}

/// The networks' part of the settings.
pub(super) fn network_config(settings: &Settings) -> Result<NetworkConfig, StartError> {
    let subnet = |name: &str, text: &str| {
        Subnet::parse(text).map_err(|_| SettingsError::BadValue {
            name: name.to_owned(),
            value: text.to_owned(),
            expected: "an IPv4 network such as 10.10.0.0/16",
        })
    };
    let own = std::env::current_exe()
        .map_err(|source| StartError::System { act: "find this executable", source })?;
    let mut config =
        NetworkConfig::new(settings.data_root.join("network"), settings.run_root.join("network"));
    config.node_address = settings.default_addr;
    config.default_bridge_address = settings.bip.as_deref().map(|text| subnet("--bip", text)).transpose()?;
    if !settings.default_address_pools.is_empty() {
        let pool = |pool: &crate::settings::Pool| -> Result<AddressPool, SettingsError> {
            Ok(AddressPool { base: subnet("--default-address-pool", &pool.base)?, size: pool.size })
        };
        config.pools = settings.default_address_pools.iter().map(pool).collect::<Result<_, _>>()?;
    }
    config.mtu = settings.mtu;
    config.vxlan_port = settings.vxlan_port.unwrap_or(config.vxlan_port);
    if let Some(table) = &settings.nft_table {
        config.table.clone_from(table);
    }
    config.resolver = Some(vec![own.into_os_string(), OsString::from("resolver")]);
    Ok(config)
}

/// `nofile=1024:2048`.
fn ulimit(text: &str) -> Result<Ulimit, SettingsError> {
    let bad = || SettingsError::BadValue {
        name: "--default-ulimit".to_owned(),
        value: text.to_owned(),
        expected: "name=soft[:hard]",
    };
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse().map_err(|_| bad());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// The runtime: named by GANTRY_RUNTIME, beside this executable, or in PATH.
fn find_runtime() -> Result<PathBuf, StartError> {
    let own = std::env::current_exe()
        .map_err(|source| StartError::System { act: "find this executable", source })?;
    let beside = own.with_file_name("gantry-runtime");
    let named = std::env::var_os("GANTRY_RUNTIME").map(PathBuf::from);
    named
        .into_iter()
        .chain([beside])
        .find(|path| path.is_file())
        .or_else(|| in_path("gantry-runtime"))
        .ok_or(StartError::NoRuntime(own))
}

/// A program in PATH or, because a service's PATH often lacks it, in /usr/sbin.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The pace of the cluster: as for real networks, or set for tests.
pub(super) fn timing(heartbeat_ms: Option<u64>) -> Timing {
    let Some(heartbeat) = heartbeat_ms.map(Duration::from_millis) else { return Timing::default() };
    Timing {
        raft_heartbeat: heartbeat / 10,
        election: heartbeat / 2,
        agent_heartbeat: Some(heartbeat),
        ..Timing::default()
    }
}
