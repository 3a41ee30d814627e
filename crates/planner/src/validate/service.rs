//! Checks of services.

use super::{Invalid, check_dns_name, spec};
use crate::allocator::NODE_NETWORKS;
use crate::constraint::Constraints;
use crate::find;
use crate::index::{PublishMode, protocol_of};
use crate::state::State;
use gantry_model::overlay::Transport;
use gantry_model::reference::Reference;
use gantry_model::service::{
    ContainerSpec, EndpointSpec, NetworkAttachmentConfig, PortConfig, Replicated, Service, ServiceMode,
    ServiceSpec, TaskResources, TaskSpec, UpdateConfig,
};
use gantry_model::task_template;
use std::collections::BTreeSet;
use std::collections::HashMap;

/// Least CPU that may be asked for, in billionths: a thousandth, as Docker has it.
const LEAST_CPU: i64 = 1_000_000;
/// Least memory that may be asked for.
const LEAST_MEMORY: i64 = 4 << 20;
/// Most tasks that one service may ask for: more than any cluster runs, and few enough to count.
const MOST_TASKS: u64 = 10_000_000;

/// Checks the specification of a service that is to be created, or to replace that of `existing`.
pub fn service_spec(
    state: &State,
    mut wanted: ServiceSpec,
    existing: Option<&Service>,
) -> Result<ServiceSpec, Invalid> {
    check_dns_name(&wanted.name)?;
    check_name_is_free(state, &wanted, existing)?;
    check_mode(&mut wanted.mode)?;
    if let Some(networks) = wanted.networks.take().filter(|_| wanted.task_template.networks.is_empty()) {
        wanted.task_template.networks = networks;
    }
    check_template(state, &mut wanted.task_template)?;
    check_templates(&wanted)?;
    check_update(wanted.update_config.as_ref())?;
    check_update(wanted.rollback_config.as_ref())?;
    if let Some(endpoint) = &mut wanted.endpoint_spec {
        check_endpoint(endpoint)?;
        check_ports_are_free(state, &endpoint.ports, existing)?;
    }
    Ok(wanted)
}

/// Checks that a service may take back the specification that it had: another may have published one of its ports since.
pub fn returned_spec(state: &State, previous: &ServiceSpec, service: &Service) -> Result<(), Invalid> {
    check_ports_are_free(state, previous.ports(), Some(service))
}

fn check_name_is_free(
    state: &State,
    wanted: &ServiceSpec,
    existing: Option<&Service>,
) -> Result<(), Invalid> {
    if let Some(existing) = existing {
        if existing.spec.name != wanted.name {
            return spec("renaming services is not supported");
        }
    } else if state.service_named(&wanted.name).is_some() {
        return Err(Invalid::NameConflict { kind: "service", name: wanted.name.clone() });
    }
    Ok(())
}

fn check_mode(mode: &mut ServiceMode) -> Result<(), Invalid> {
    let set = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    match set.into_iter().filter(|set| *set).count() {
        0 => mode.replicated = Some(Replicated { replicas: Some(1) }),
        1 => {}
        _ => return spec("must specify only one service mode"),
    }
    if let Some(replicated) = &mut mode.replicated {
        let replicas = *replicated.replicas.get_or_insert(1);
        if replicas > MOST_TASKS {
            return spec(format!("invalid number of replicas {replicas}: must be at most {MOST_TASKS}"));
        }
    }
    if let Some(job) = &mut mode.replicated_job {
        let concurrent = *job.max_concurrent.get_or_insert(1);
        let total = *job.total_completions.get_or_insert(concurrent);
        if concurrent > MOST_TASKS || total > MOST_TASKS {
            return spec(format!("invalid number of job tasks: must be at most {MOST_TASKS}"));
        }
    }
    Ok(())
}

fn check_template(state: &State, template: &mut TaskSpec) -> Result<(), Invalid> {
    if !matches!(template.runtime.as_str(), "" | "container") {
        return spec(format!("RuntimeSpec: unimplemented runtime {:?} in service spec", template.runtime));
    }
    let Some(container) = &mut template.container_spec else {
        return spec("ContainerSpec: missing in service spec");
    };
    check_container(container)?;
    check_secrets(state, container)?;
    check_configs(state, container)?;
    check_resources(template.resources.limits.as_ref())?;
    check_resources(template.resources.reservations.as_ref())?;
    check_restart(template)?;
    Constraints::parse(&template.placement.constraints).map_err(|bad| Invalid::Spec(bad.to_string()))?;
    check_preferences(template)?;
    check_networks(state, &mut template.networks)
}

fn check_container(container: &ContainerSpec) -> Result<(), Invalid> {
    if container.image.is_empty() {
        return spec("ContainerSpec: image reference must be provided");
    }
    if container.image.parse::<Reference>().is_err() {
        return spec(format!("ContainerSpec: {:?} is not a valid repository/tag", container.image));
    }
    let mut targets = BTreeSet::new();
    for mount in &container.mounts {
        if !targets.insert(mount.target.as_str()) {
            return spec(format!("ContainerSpec: duplicate mount point: {}", mount.target));
        }
    }
    if let Some(health) = &container.healthcheck {
        for (name, value) in [
            ("interval", health.interval),
            ("timeout", health.timeout),
            ("startPeriod", health.start_period),
            ("startInterval", health.start_interval),
        ] {
            if value != 0 && value < 1_000_000 {
                return spec(format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms"));
            }
        }
        if health.retries < 0 {
            return spec("ContainerSpec: Retries in HealthConfig cannot be negative");
        }
    }
    if container.stop_grace_period.is_some_and(|period| period < 0) {
        return spec("ContainerSpec: stop-grace-period cannot be negative");
    }
    Ok(())
}

/// Mistakes in `{{…}}` are told now, not by a task that can never start.
fn check_templates(wanted: &ServiceSpec) -> Result<(), Invalid> {
    let Some(container) = &wanted.task_template.container_spec else { return Ok(()) };
    task_template::check(wanted, container)
        .map_err(|e| Invalid::Spec(format!("ContainerSpec: {e}: {}", e.source)))
}

fn check_resources(resources: Option<&TaskResources>) -> Result<(), Invalid> {
    let Some(resources) = resources else { return Ok(()) };
    if resources.nano_cpus != 0 && resources.nano_cpus < LEAST_CPU {
        let value = resources.nano_cpus as f64 / 1e9;
        return spec(format!("invalid cpu value {value}: Must be at least 0.001"));
    }
    if resources.memory_bytes != 0 && resources.memory_bytes < LEAST_MEMORY {
        return spec(format!("invalid memory value {}: Must be at least 4MiB", resources.memory_bytes));
    }
    if resources.pids < 0 {
        return spec(format!("invalid pids limit {}: must not be negative", resources.pids));
    }
    Ok(())
}

fn check_restart(template: &TaskSpec) -> Result<(), Invalid> {
    let Some(policy) = &template.restart_policy else { return Ok(()) };
    if !matches!(policy.condition.as_str(), "" | "none" | "on-failure" | "any") {
        return spec(format!("invalid RestartCondition: {:?}", policy.condition));
    }
    if policy.delay.is_some_and(|delay| delay < 0) {
        return spec("TaskSpec: restart-delay cannot be negative");
    }
    if policy.window.is_some_and(|window| window < 0) {
        return spec("TaskSpec: restart-window cannot be negative");
    }
    Ok(())
}

fn check_preferences(template: &TaskSpec) -> Result<(), Invalid> {
    for preference in &template.placement.preferences {
        let descriptor =
            preference.spread.as_ref().map(|spread| spread.spread_descriptor.as_str()).unwrap_or_default();
        if !descriptor.starts_with("node.labels.") && !descriptor.starts_with("engine.labels.") {
            return spec(format!(
                "invalid placement preference {descriptor:?}: spread must name node.labels.* or engine.labels.*"
            ));
        }
    }
    Ok(())
}

fn check_networks(state: &State, networks: &mut Vec<NetworkAttachmentConfig>) -> Result<(), Invalid> {
    for config in networks.iter_mut().filter(|config| !NODE_NETWORKS.contains(&config.target.as_str())) {
        let network = find::network(state, &config.target)?;
        if network.network.spec.ingress {
            let name = &network.network.spec.name;
            return spec(format!("Service cannot be explicitly attached to the ingress network {name:?}"));
        }
        config.target.clone_from(&network.network.id);
    }
    // Named twice, by name and by id or with other aliases: a task has one place in a network, with all of its names.
    let mut once: Vec<NetworkAttachmentConfig> = Vec::with_capacity(networks.len());
    for config in networks.drain(..) {
        match once.iter_mut().find(|other| other.target == config.target) {
            Some(other) => {
                other.aliases.extend(config.aliases);
                other.addresses.extend(config.addresses);
                other.driver_opts.extend(config.driver_opts);
            }
            None => once.push(config),
        }
    }
    *networks = once;
    Ok(())
}

/// A secret may be named by the client, who then need not know the id.
fn check_secrets(state: &State, container: &mut ContainerSpec) -> Result<(), Invalid> {
    let mut targets: HashMap<String, String> = HashMap::new();
    for reference in &mut container.secrets {
        let asked =
            if reference.secret_id.is_empty() { &reference.secret_name } else { &reference.secret_id };
        let found =
            find::secret(state, asked).map_err(|_| Invalid::Spec(format!("secret not found: {asked}")))?;
        reference.secret_id = found.id.to_string();
        reference.secret_name.clone_from(&found.spec.name);
        let target = match &reference.file {
            Some(file) if file.name.is_empty() => {
                return spec("malformed file secret reference, invalid secret target file provided");
            }
            Some(file) => file.name.clone(),
            None => found.spec.name.clone(),
        };
        if let Some(other) = targets.insert(target.clone(), found.spec.name.clone()) {
            let name = &found.spec.name;
            return spec(format!(
                "secret references '{other}' and '{name}' have a conflicting target: '{target}'"
            ));
        }
    }
    Ok(())
}

fn check_configs(state: &State, container: &mut ContainerSpec) -> Result<(), Invalid> {
    let mut targets: HashMap<String, String> = HashMap::new();
    for reference in &mut container.configs {
        let asked =
            if reference.config_id.is_empty() { &reference.config_name } else { &reference.config_id };
        let found =
            find::config(state, asked).map_err(|_| Invalid::Spec(format!("config not found: {asked}")))?;
        reference.config_id = found.id.to_string();
        reference.config_name.clone_from(&found.spec.name);
        let target = match (&reference.file, &reference.runtime) {
            (_, Some(_)) => continue,
            (Some(file), None) if file.name.is_empty() => {
                return spec("malformed config reference, either File or Runtime should be set");
            }
            (Some(file), None) => file.name.clone(),
            (None, None) => found.spec.name.clone(),
        };
        if let Some(other) = targets.insert(target.clone(), found.spec.name.clone()) {
            let name = &found.spec.name;
            return spec(format!(
                "config references '{other}' and '{name}' have a conflicting target: '{target}'"
            ));
        }
    }
    Ok(())
}

fn check_update(config: Option<&UpdateConfig>) -> Result<(), Invalid> {
    let Some(config) = config else { return Ok(()) };
    if config.delay < 0 {
        return spec("TaskSpec: update-delay cannot be negative");
    }
    if config.monitor < 0 {
        return spec("TaskSpec: update-monitor cannot be negative");
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return spec("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1");
    }
    if !matches!(config.failure_action.as_str(), "" | "pause" | "continue" | "rollback") {
        return spec(format!("unrecognized update failure action {}", config.failure_action));
    }
    if !matches!(config.order.as_str(), "" | "stop-first" | "start-first") {
        return spec(format!("unrecognized update order {}", config.order));
    }
    Ok(())
}

fn check_endpoint(endpoint: &mut EndpointSpec) -> Result<(), Invalid> {
    match endpoint.mode.as_str() {
        "" => endpoint.mode = "vip".to_owned(),
        "vip" | "dnsrr" => {}
        other => return spec(format!("unknown EndpointSpec mode: {other:?}")),
    }
    let mut published = BTreeSet::new();
    for port in &mut endpoint.ports {
        check_port(port)?;
        let mode = PublishMode::of(port);
        if mode == PublishMode::Ingress && endpoint.mode == "dnsrr" {
            return spec("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
        }
        if port.published_port != 0 && !published.insert((protocol_of(port), port.published_port)) {
            return spec("EndpointSpec: duplicate published ports provided");
        }
    }
    Ok(())
}

fn check_port(port: &mut PortConfig) -> Result<(), Invalid> {
    let Some(protocol) = Transport::parse(&port.protocol) else {
        return spec(format!("invalid protocol {:?}: must be tcp, udp or sctp", port.protocol));
    };
    port.protocol = protocol.to_string();
    if port.target_port == 0 {
        return spec("EndpointSpec: a published port needs a target port");
    }
    match port.publish_mode.as_str() {
        "" => port.publish_mode = "ingress".to_owned(),
        "ingress" | "host" => {}
        other => return spec(format!("invalid publish mode {other:?}: must be ingress or host")),
    }
    Ok(())
}

/// Every port that is asked for must be free.
fn check_ports_are_free(
    state: &State,
    ports: &[PortConfig],
    existing: Option<&Service>,
) -> Result<(), Invalid> {
    for port in ports.iter().filter(|port| port.published_port != 0) {
        if let Some((id, mode)) = state.holder_of(port, existing.map(|existing| &existing.id)) {
            return Err(Invalid::PortInUse {
                port: port.published_port,
                service: state.service(&id).map(|service| service.spec.name.clone()).unwrap_or_default(),
                id: id.to_string(),
                mode: if mode == PublishMode::Host { "a host-published" } else { "an ingress" },
            });
        }
    }
    Ok(())
}
