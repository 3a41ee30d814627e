//! From a task to the container that the engine is asked for. Pure.

use base64::Engine as _;
use gantry_cluster::executor::TaskContext;
use gantry_engine::CreateRequest;
use gantry_model::container::{
    ContainerConfig, Empty, HostConfig, LogConfig, NetworkingConfig, PortBinding, PortMap, Resources,
};
use gantry_model::network::{EndpointIpam, EndpointSettings};
use gantry_model::service::{ContainerSpec, Privileges};
use gantry_model::task::NetworkAttachment;
use gantry_model::task_template::{TaskFacts, TaskValues, TemplateError};
use std::collections::BTreeMap;

/// Label with the task's id, by which its container is found again.
pub const LABEL_TASK_ID: &str = "com.docker.swarm.task.id";

/// Why a task cannot be turned into a container.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No container in the specification.
    #[error("task {0} has no container specification")]
    NoContainer(String),
    /// A template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A secret or config whose template cannot be filled in.
    #[error("fill in the template of {kind} {name}")]
    Payload {
        /// Secret or config.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: gantry_model::template::Error,
    },
    /// The managers did not send what the specification names.
    #[error("{kind} {name} is not available to this task")]
    Missing {
        /// Secret or config.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Data that is no base64.
    #[error("{kind} {name} has malformed data")]
    Malformed {
        /// Secret or config.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: base64::DecodeError,
    },
    /// An owner that is no number.
    #[error("{kind} {name}: owner {owner:?} is no number")]
    Owner {
        /// Secret or config.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What came.
        owner: String,
    },
}

/// `service.slot.task`, with the node's id for tasks of global services.
pub fn task_name(context: &TaskContext) -> String {
    let task = &context.task;
    format!("{}.{}.{}", task.service_name, slot(context), task.id)
}

/// Tasks of global services have no number: the node's id stands for it.
fn slot(context: &TaskContext) -> String {
    match context.task.slot {
        0 => context.node_id.to_string(),
        slot => slot.to_string(),
    }
}

fn values(context: &TaskContext) -> TaskValues {
    let task = &context.task;
    TaskValues::of(&TaskFacts {
        service_id: task.service_id.as_str(),
        service_name: &task.service_name,
        service_labels: &task.service_labels,
        node_id: context.node_id.as_str(),
        hostname: &context.hostname,
        platform: ("linux", std::env::consts::ARCH),
        task_id: task.id.as_str(),
        task_name: &task_name(context),
        slot: &slot(context),
    })
}

/// What the engine is asked for.
pub fn request(context: &TaskContext) -> Result<CreateRequest, SpecError> {
    let task = &context.task;
    let spec =
        task.spec.container_spec.as_ref().ok_or_else(|| SpecError::NoContainer(task.id.to_string()))?;
    let values = values(context);
    Ok(CreateRequest {
        name: Some(task_name(context)),
        config: config(context, spec, &values)?,
        host: host(context, spec, &values)?,
        networking: networking(&task.networks_attachments),
        platform: None,
        files: super::files::files(context, spec, &values)?,
    })
}

fn config(
    context: &TaskContext,
    spec: &ContainerSpec,
    values: &TaskValues,
) -> Result<ContainerConfig, SpecError> {
    let expand_all =
        |texts: &[String]| texts.iter().map(|text| values.expand(text)).collect::<Result<Vec<_>, _>>();
    let some = |words: Vec<String>| (!words.is_empty()).then_some(words);
    let mut labels = spec.labels.clone();
    labels.extend(system_labels(context));
    let ports = context.task.host_ports.iter();
    Ok(ContainerConfig {
        hostname: values.expand(&spec.hostname)?,
        user: spec.user.clone(),
        exposed_ports: ports.map(|port| (port_name(port.target_port, &port.protocol), Empty {})).collect(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        env: expand_all(&spec.env)?,
        cmd: some(spec.args.clone()),
        entrypoint: some(spec.command.clone()),
        healthcheck: spec.healthcheck.clone(),
        image: spec.image.clone(),
        working_dir: spec.dir.clone(),
        labels,
        stop_signal: Some(spec.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        // Whole seconds, rounded up: a grace period of 500 ms must not become none.
        stop_timeout: spec.stop_grace_period.map(|nanos| (nanos.max(0) + 999_999_999) / 1_000_000_000),
        ..ContainerConfig::default()
    })
}

fn system_labels(context: &TaskContext) -> BTreeMap<String, String> {
    let task = &context.task;
    let labels = [
        ("com.docker.swarm.node.id", context.node_id.to_string()),
        ("com.docker.swarm.service.id", task.service_id.to_string()),
        ("com.docker.swarm.service.name", task.service_name.clone()),
        ("com.docker.swarm.task", String::new()),
        (LABEL_TASK_ID, task.id.to_string()),
        ("com.docker.swarm.task.name", task_name(context)),
    ];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn port_name(port: u16, protocol: &str) -> String {
    format!("{port}/{}", if protocol.is_empty() { "tcp" } else { protocol })
}

fn host(context: &TaskContext, spec: &ContainerSpec, values: &TaskValues) -> Result<HostConfig, SpecError> {
    let task = &context.task;
    let dns = spec.dns_config.clone().unwrap_or_default();
    let mut host = HostConfig {
        network_mode: network_mode(&task.networks_attachments),
        port_bindings: host_ports(context),
        cap_add: spec.capability_add.clone(),
        cap_drop: spec.capability_drop.clone(),
        dns: dns.nameservers,
        dns_options: dns.options,
        dns_search: dns.search,
        extra_hosts: spec.hosts.iter().flat_map(|line| extra_hosts(line)).collect(),
        group_add: spec.groups.clone(),
        oom_score_adj: spec.oom_score_adj,
        readonly_rootfs: spec.read_only,
        security_opt: spec.privileges.as_ref().map(security).unwrap_or_default(),
        sysctls: spec.sysctls.clone(),
        init: spec.init,
        mounts: spec.mounts.iter().map(|mount| values.expand_mount(mount)).collect::<Result<_, _>>()?,
        resources: resources(context, spec),
        ..HostConfig::default()
    };
    if let Some(driver) = &task.spec.log_driver {
        host.log_config = LogConfig { r#type: driver.name.clone(), config: driver.options.clone() };
    }
    Ok(host)
}

/// The first network decides the mode; a task without one is on the default bridge.
fn network_mode(attachments: &[NetworkAttachment]) -> String {
    attachments.first().map_or_else(|| "default".to_owned(), |attachment| attachment.network_id.clone())
}

fn host_ports(context: &TaskContext) -> PortMap {
    let mut map = PortMap::new();
    for port in &context.task.host_ports {
        let binding = PortBinding { host_ip: String::new(), host_port: port.published_port.to_string() };
        let bindings = map.entry(port_name(port.target_port, &port.protocol)).or_default();
        bindings.get_or_insert_default().push(binding);
    }
    map
}

/// `address name…` of a service → `name:address` of a container.
fn extra_hosts(line: &str) -> Vec<String> {
    let mut words = line.split_whitespace();
    let Some(address) = words.next() else { return Vec::new() };
    words.map(|name| format!("{name}:{address}")).collect()
}

fn security(privileges: &Privileges) -> Vec<String> {
    let mut options = Vec::new();
    if privileges.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    let mode = |value: &Option<serde_json::Value>| {
        value.as_ref().and_then(|value| value.get("Mode")?.as_str()).unwrap_or_default().to_owned()
    };
    match mode(&privileges.seccomp).as_str() {
        "unconfined" => options.push("seccomp=unconfined".to_owned()),
        "custom" => {
            let profile = privileges.seccomp.as_ref().and_then(|value| value.get("Profile")?.as_str());
            let decoded =
                profile.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
            if let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
                options.push(format!("seccomp={text}"));
            }
        }
        _ => {}
    }
    if mode(&privileges.app_armor) == "disabled" {
        options.push("apparmor=unconfined".to_owned());
    }
    options
}

fn resources(context: &TaskContext, spec: &ContainerSpec) -> Resources {
    let wanted = &context.task.spec.resources;
    let limits = wanted.limits.clone().unwrap_or_default();
    let reserved = wanted.reservations.clone().unwrap_or_default();
    Resources {
        memory: limits.memory_bytes,
        memory_reservation: reserved.memory_bytes,
        nano_cpus: limits.nano_cpus,
        pids_limit: Some(limits.pids).filter(|pids| *pids > 0),
        ulimits: spec.ulimits.clone(),
        ..Resources::default()
    }
}

fn networking(attachments: &[NetworkAttachment]) -> NetworkingConfig {
    let of_cluster =
        |attachment: &&NetworkAttachment| !matches!(attachment.network_id.as_str(), "host" | "none");
    // The mesh and the way out use the first network that leads outside: the earlier, the higher.
    let priorities = (0..=100i64).rev().chain(std::iter::repeat(0));
    let endpoints_config = attachments
        .iter()
        .filter(of_cluster)
        .zip(priorities)
        .map(|(attachment, gw_priority)| {
            let address = attachment.addresses.first().map(|cidr| cidr.split('/').next().unwrap_or_default());
            let ipam_config = address
                .map(|address| EndpointIpam { ipv4_address: address.to_owned(), ..EndpointIpam::default() });
            let aliases = Some(attachment.aliases.clone()).filter(|aliases| !aliases.is_empty());
            let settings =
                EndpointSettings { ipam_config, aliases, gw_priority, ..EndpointSettings::default() };
            (attachment.network_id.clone(), Some(settings))
        })
        .collect();
    NetworkingConfig { endpoints_config }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::id::{NodeId, SecretId, ServiceId, TaskId};
    use gantry_model::secret::{DataSpec, Secret};
    use gantry_model::service::{FileTarget, PortConfig, SecretReference, TaskResources, TaskSpec};
    use gantry_model::task::Task;

    fn context() -> TaskContext {
        let spec = ContainerSpec {
            image: "web:1".into(),
            args: vec!["serve".into()],
            env: vec!["SLOT={{.Task.Slot}}".into()],
            hostname: "{{.Service.Name}}-{{.Task.Slot}}".into(),
            hosts: vec!["10.0.0.9 db db2".into()],
            stop_grace_period: Some(1_500_000_000),
            secrets: vec![SecretReference {
                file: Some(FileTarget {
                    name: "key".into(),
                    uid: "7".into(),
                    mode: 0o400,
                    ..FileTarget::default()
                }),
                secret_id: "s1".into(),
                secret_name: "key".into(),
            }],
            ..ContainerSpec::default()
        };
        let mut task = Task {
            id: TaskId::parse("t1").unwrap(),
            service_id: ServiceId::parse("sv").unwrap(),
            service_name: "web".into(),
            slot: 2,
            spec: TaskSpec { container_spec: Some(spec), ..TaskSpec::default() }.into(),
            ..Task::default()
        };
        task.spec.resources.limits =
            Some(TaskResources { memory_bytes: 1 << 20, ..TaskResources::default() });
        task.networks_attachments = vec![NetworkAttachment {
            network_id: "net1".into(),
            addresses: vec!["10.0.1.7/24".into()],
            aliases: vec!["w".into()],
        }];
        task.host_ports = vec![PortConfig { target_port: 80, published_port: 8080, ..PortConfig::default() }];
        let data = DataSpec { name: "key".into(), data: "c2VjcmV0".into(), ..DataSpec::default() };
        let secret = Secret { id: SecretId::parse("s1").unwrap(), spec: data, ..Secret::default() };
        TaskContext {
            task,
            node_id: NodeId::parse("n1").unwrap(),
            hostname: "host1".into(),
            secrets: vec![secret],
            configs: vec![],
        }
    }

    #[test]
    fn a_task_becomes_a_container() {
        let request = request(&context()).unwrap();
        assert_eq!(request.name.as_deref(), Some("web.2.t1"));
        assert_eq!(request.config.hostname, "web-2");
        assert_eq!(request.config.env, ["SLOT=2"]);
        assert_eq!(request.config.stop_timeout, Some(2));
        assert_eq!(request.config.entrypoint, None);
        assert_eq!(request.config.labels[LABEL_TASK_ID], "t1");
        assert_eq!(request.host.network_mode, "net1");
        assert_eq!(request.host.extra_hosts, ["db:10.0.0.9", "db2:10.0.0.9"]);
        assert_eq!(request.host.resources.memory, 1 << 20);
        assert_eq!(request.host.port_bindings["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
        let endpoint = request.networking.endpoints_config["net1"].as_ref().unwrap();
        assert_eq!(endpoint.ipam_config.as_ref().unwrap().ipv4_address, "10.0.1.7");
        assert_eq!(endpoint.gw_priority, 100);
        let file = &request.files[0];
        assert_eq!((file.path.as_str(), file.uid, file.mode), ("/run/secrets/key", 7, 0o400));
        assert_eq!(file.data, b"secret");
    }

    #[test]
    fn a_missing_secret_is_named() {
        let mut context = context();
        context.secrets.clear();
        assert_eq!(request(&context).unwrap_err().to_string(), "secret key is not available to this task");
    }
}
