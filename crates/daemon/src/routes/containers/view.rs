//! From the engine's view of a container to Docker's: list entries and inspections.

use crate::daemon::Daemon;
use gantry_api::container::{
    ContainerInspect, ContainerState, ContainerSummary, GraphDriver, Health, HealthResult, MountPoint,
    NetworkSettings, Port, SummaryHostConfig, SummaryNetworks,
};
use gantry_api::time;
use gantry_engine::{ContainerView, HealthStatus, StateView};
use gantry_model::container::{ContainerStatus, PortMap};
use gantry_model::duration;
use jiff::Timestamp;
use std::time::Duration;

/// Name of the storage driver in answers.
pub const STORAGE_DRIVER: &str = "overlayfs";

/// An entry of a list.
pub fn summary(daemon: &Daemon, container: &ContainerView) -> ContainerSummary {
    ContainerSummary {
        id: container.id.to_string(),
        names: vec![format!("/{}", container.name)],
        image: daemon.image_name(container),
        image_id: container.image_id.clone(),
        command: command(container),
        created: container.created.as_second(),
        ports: ports(&container.network.ports),
        labels: container.config.labels.clone(),
        state: container.state.status.as_str().to_owned(),
        status: status(&container.state, Timestamp::now()),
        host_config: SummaryHostConfig {
            network_mode: container.host.network_mode.clone(),
            annotations: container.host.annotations.clone(),
        },
        network_settings: SummaryNetworks { networks: container.network.networks.clone() },
        mounts: mounts(container),
        ..ContainerSummary::default()
    }
}

fn command(container: &ContainerView) -> String {
    let quoted =
        container.args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { arg.clone() });
    std::iter::once(container.path.clone()).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
fn status(state: &StateView, now: Timestamp) -> String {
    let ago = |time: Option<Timestamp>| {
        let passed = time.map(|time| now.duration_since(time)).unwrap_or_default();
        duration::human(Duration::try_from(passed).unwrap_or_default())
    };
    match state.status {
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Removing => "Removal In Progress".to_owned(),
        ContainerStatus::Dead => "Dead".to_owned(),
        ContainerStatus::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        ContainerStatus::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, ago(state.finished_at))
        }
        ContainerStatus::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(state.finished_at)),
        ContainerStatus::Running => {
            let up = format!("Up {}", ago(state.started_at));
            match state.health.as_ref().map(|health| health.status) {
                None => up,
                Some(HealthStatus::Starting) => format!("{up} (health: starting)"),
                Some(status) => format!("{up} ({})", status.as_str()),
            }
        }
    }
}

/// `80/tcp` → number and protocol.
fn split_port(text: &str) -> Option<(u16, &str)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((number.parse().ok()?, protocol))
}

fn ports(map: &PortMap) -> Vec<Port> {
    let mut found = Vec::new();
    for (port, bindings) in map {
        let Some((private_port, protocol)) = split_port(port) else { continue };
        let plain = Port { private_port, r#type: protocol.to_owned(), ..Port::default() };
        let bindings = bindings.as_deref().unwrap_or_default();
        if bindings.is_empty() {
            found.push(plain);
            continue;
        }
        found.extend(bindings.iter().map(|binding| Port {
            ip: if binding.host_ip.is_empty() { "0.0.0.0".to_owned() } else { binding.host_ip.clone() },
            public_port: binding.host_port.parse().ok(),
            ..plain.clone()
        }));
    }
    found.sort();
    found.dedup();
    found
}

fn mounts(container: &ContainerView) -> Vec<MountPoint> {
    let one = |mount: &gantry_engine::MountPoint| MountPoint {
        r#type: mount.r#type.clone(),
        name: mount.name.clone(),
        source: mount.source.clone(),
        destination: mount.destination.clone(),
        driver: mount.driver.clone(),
        mode: mount.mode.clone(),
        rw: mount.rw,
        propagation: mount.propagation.clone(),
    };
    container.mounts.iter().map(one).collect()
}

/// The whole of a container.
pub fn inspect(container: &ContainerView) -> ContainerInspect {
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    ContainerInspect {
        id: container.id.to_string(),
        created: time::format(container.created),
        path: container.path.clone(),
        args: container.args.clone(),
        state: state(&container.state),
        image: container.image_id.clone(),
        resolv_conf_path: path(&container.resolv_conf_path),
        hostname_path: path(&container.hostname_path),
        hosts_path: path(&container.hosts_path),
        log_path: path(&container.log_path),
        name: format!("/{}", container.name),
        restart_count: i64::from(container.restart_count),
        driver: STORAGE_DRIVER.to_owned(),
        platform: container.platform.clone(),
        exec_ids: (!container.exec_ids.is_empty()).then(|| container.exec_ids.clone()),
        host_config: container.host.clone(),
        graph_driver: graph_driver(container),
        mounts: mounts(container),
        config: container.config.clone(),
        network_settings: network_settings(container),
        ..ContainerInspect::default()
    }
}

fn state(state: &StateView) -> ContainerState {
    let is = |status: ContainerStatus| state.status == status;
    ContainerState {
        status: state.status.as_str().to_owned(),
        running: state.alive() || is(ContainerStatus::Restarting),
        paused: is(ContainerStatus::Paused),
        restarting: is(ContainerStatus::Restarting),
        oom_killed: state.oom_killed,
        dead: is(ContainerStatus::Dead),
        pid: i64::from(state.pid),
        exit_code: i64::from(state.exit_code),
        error: state.error.clone(),
        started_at: time::format_or_never(state.started_at),
        finished_at: time::format_or_never(state.finished_at),
        health: state.health.as_ref().map(health),
    }
}

fn health(health: &gantry_engine::Health) -> Health {
    let one = |result: &gantry_engine::HealthResult| HealthResult {
        start: time::format(result.start),
        end: time::format(result.end),
        exit_code: i64::from(result.exit_code),
        output: result.output.clone(),
    };
    Health {
        status: health.status.as_str().to_owned(),
        failing_streak: i64::from(health.failing_streak),
        log: health.log.iter().map(one).collect(),
    }
}

fn graph_driver(container: &ContainerView) -> GraphDriver {
    let lower: Vec<_> = container.lower.iter().map(|path| path.to_string_lossy()).collect();
    let mut data = std::collections::BTreeMap::new();
    data.insert("LowerDir".to_owned(), lower.join(":"));
    data.insert("UpperDir".to_owned(), container.upper.to_string_lossy().into_owned());
    GraphDriver { data: Some(data), name: STORAGE_DRIVER.to_owned() }
}

fn network_settings(container: &ContainerView) -> NetworkSettings {
    let view = &container.network;
    let bridge = view.networks.get("bridge").cloned().unwrap_or_default();
    NetworkSettings {
        sandbox_id: view.sandbox_id.clone(),
        sandbox_key: view.sandbox_key.to_string_lossy().into_owned(),
        ports: view.ports.clone(),
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        mac_address: bridge.mac_address,
        networks: view.networks.clone(),
        ..NetworkSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::PortBinding;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn states_read_as_dockers() {
        let now = at("2026-01-01T01:00:00Z");
        let mut view = StateView { started_at: Some(at("2026-01-01T00:57:00Z")), ..StateView::default() };
        assert_eq!(status(&view, now), "Created");
        view.status = ContainerStatus::Running;
        assert_eq!(status(&view, now), "Up 3 minutes");
        view.health = Some(gantry_engine::Health::default());
        assert_eq!(status(&view, now), "Up 3 minutes (health: starting)");
        view.status = ContainerStatus::Exited;
        view.exit_code = 137;
        view.finished_at = Some(at("2026-01-01T00:59:58Z"));
        assert_eq!(status(&view, now), "Exited (137) 2 seconds ago");
    }

    #[test]
    fn ports_are_listed_once_each() {
        let binding = PortBinding { host_ip: String::new(), host_port: "8080".into() };
        let map = PortMap::from([("80/tcp".to_owned(), Some(vec![binding])), ("53/udp".to_owned(), None)]);
        let listed = ports(&map);
        assert_eq!(listed.len(), 2);
        let value = serde_json::to_value(&listed).unwrap();
        assert_eq!(value[0], serde_json::json!({"PrivatePort": 53, "Type": "udp"}));
        assert_eq!(
            value[1],
            serde_json::json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"})
        );
    }
}
