//! `gantry service update`

use crate::client::{Call, Query, segment};
use crate::command::inspect::{Kind, object};
use crate::command::service::create::{attachment, host_line, preference};
use crate::command::service::{converge, files, resolve, settings::Settings};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::syntax::{self, device, environment, mount, port};
use crate::table;
use clap::Args;
use gantry_model::service::{ContainerSpec, NetworkAttachmentConfig, PortConfig, ServiceSpec};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Service command args
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    args: Option<String>,
    /// Add Linux capabilities
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Add or update a config file on a service
    #[arg(long)]
    config_add: Vec<String>,
    /// Remove a configuration file
    #[arg(long)]
    config_rm: Vec<String>,
    /// Add or update a placement constraint
    #[arg(long)]
    constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long)]
    constraint_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long)]
    container_label_add: Vec<String>,
    /// Remove a container label by its key
    #[arg(long)]
    container_label_rm: Vec<String>,
    /// Add or update a custom DNS server
    #[arg(long)]
    dns_add: Vec<String>,
    /// Remove a custom DNS server
    #[arg(long)]
    dns_rm: Vec<String>,
    /// Add or update a DNS option
    #[arg(long)]
    dns_option_add: Vec<String>,
    /// Remove a DNS option
    #[arg(long)]
    dns_option_rm: Vec<String>,
    /// Add or update a custom DNS search domain
    #[arg(long)]
    dns_search_add: Vec<String>,
    /// Remove a DNS search domain
    #[arg(long)]
    dns_search_rm: Vec<String>,
    /// Add or update an environment variable
    #[arg(long)]
    env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long)]
    env_rm: Vec<String>,
    /// Force update even if no changes require it
    #[arg(long)]
    force: bool,
    /// Add an additional supplementary user group to the container
    #[arg(long)]
    group_add: Vec<String>,
    /// Remove a previously added supplementary user group from the container
    #[arg(long)]
    group_rm: Vec<String>,
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    host_add: Vec<String>,
    /// Remove a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    host_rm: Vec<String>,
    /// Service image tag
    #[arg(long)]
    image: Option<String>,
    /// Add or update a service label
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long)]
    label_rm: Vec<String>,
    /// Add or update a mount on a service
    #[arg(long)]
    mount_add: Vec<String>,
    /// Remove a mount by its target path
    #[arg(long)]
    mount_rm: Vec<String>,
    /// Add a network
    #[arg(long)]
    network_add: Vec<String>,
    /// Remove a network
    #[arg(long)]
    network_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long)]
    placement_pref_add: Vec<String>,
    /// Remove a placement preference
    #[arg(long)]
    placement_pref_rm: Vec<String>,
    /// Add or update a published port
    #[arg(long)]
    publish_add: Vec<String>,
    /// Remove a published port by its target port
    #[arg(long)]
    publish_rm: Vec<String>,
    /// Rollback to previous specification
    #[arg(long)]
    rollback: bool,
    /// Add or update a secret on a service
    #[arg(long)]
    secret_add: Vec<String>,
    /// Remove a secret
    #[arg(long)]
    secret_rm: Vec<String>,
    /// Add or update a Sysctl option
    #[arg(long)]
    sysctl_add: Vec<String>,
    /// Remove a Sysctl option
    #[arg(long)]
    sysctl_rm: Vec<String>,
    /// Add or update a ulimit option
    #[arg(long)]
    ulimit_add: Vec<String>,
    /// Remove a ulimit option
    #[arg(long)]
    ulimit_rm: Vec<String>,
    /// Service
    service: String,
}

/// Changes a service and waits until the change has arrived.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let current = object(Kind::Service, &arguments.service, false, context).await?;
    let mut spec = read_spec(&current)?;
    apply(&arguments, &mut spec)?;
    if let Some(container) = &mut spec.task_template.container_spec {
        container.secrets.retain(|s| !arguments.secret_rm.contains(&s.secret_name));
        for secret in files::secrets(&arguments.secret_add, context).await? {
            container.secrets.retain(|s| s.file != secret.file);
            container.secrets.push(secret);
        }
        container.configs.retain(|c| !arguments.config_rm.contains(&c.config_name));
        for config in files::configs(&arguments.config_add, context).await? {
            container.configs.retain(|c| c.file != config.file);
            container.configs.push(config);
        }
    }
    change_networks(&arguments, &mut spec.task_template.networks, context).await?;
    if arguments.image.is_some() && !arguments.settings.no_resolve_image {
        resolve::pin(&mut spec.task_template, context).await?;
    }
    let image = spec.task_template.container_spec.as_ref().map(|c| c.image.clone()).unwrap_or_default();
    let auth =
        if arguments.settings.with_registry_auth { context.config()?.header_for(&image)? } else { None };
    let query = Query::new()
        .set("version", current.int("Version.Index"))
        .option("registryAuthFrom", (!arguments.settings.with_registry_auth).then_some("spec"))
        .option("rollback", arguments.rollback.then_some("previous"));
    send(current.text("ID"), &spec, query, auth, context).await?;
    table::line(&arguments.service);
    if arguments.settings.detach {
        return Ok(());
    }
    converge::wait(current.text("ID"), arguments.settings.quiet, context).await
}

/// The specification of a service as it was read.
pub fn read_spec(service: &serde_json::Value) -> Result<ServiceSpec> {
    serde_json::from_value(service.at("Spec").clone())
        .map_err(|source| Error::Answer { act: "read the service's specification".into(), source })
}

/// Writes a specification back.
pub async fn send(
    id: &str,
    spec: &ServiceSpec,
    query: Query,
    auth: Option<String>,
    context: &Context,
) -> Result<()> {
    let call = Call::post(format!("/services/{}/update", segment(id))).query(query).json(spec);
    let answer = context.client.json(call.header_option("X-Registry-Auth", auth)).await?;
    for warning in answer.list("Warnings").iter().filter_map(|w| w.as_str()) {
        eprintln!("{warning}");
    }
    Ok(())
}

/// Takes `remove` out of a list and puts `add` at its end, once.
fn change(list: &mut Vec<String>, add: &[String], remove: &[String]) {
    list.retain(|item| !remove.contains(item) && !add.contains(item));
    list.extend_from_slice(add);
}

/// As [`change`], where the part before `=` names an item.
fn change_pairs(list: &mut Vec<String>, add: Vec<String>, remove: &[String]) {
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    list.retain(|item| {
        !remove.iter().any(|r| *r == name(item)) && !add.iter().any(|a| name(a) == name(item))
    });
    list.extend(add);
}

fn apply(arguments: &Arguments, spec: &mut ServiceSpec) -> Result<()> {
    spec.labels.retain(|key, _| !arguments.label_rm.contains(key));
    spec.labels.extend(syntax::map(&arguments.label_add));
    if arguments.force {
        spec.task_template.force_update += 1;
    }
    let placement = &mut spec.task_template.placement;
    change(&mut placement.constraints, &arguments.constraint_add, &arguments.constraint_rm);
    for text in &arguments.placement_pref_rm {
        let gone = preference(text)?;
        placement.preferences.retain(|p| *p != gone);
    }
    for text in &arguments.placement_pref_add {
        placement.preferences.push(preference(text)?);
    }
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    change_ports(&mut endpoint.ports, &arguments.publish_add, &arguments.publish_rm)?;
    apply_container(arguments, spec.task_template.container_spec.get_or_insert_default())?;
    arguments.settings.apply(spec)
}

fn apply_container(arguments: &Arguments, container: &mut ContainerSpec) -> Result<()> {
    if let Some(image) = &arguments.image {
        container.image.clone_from(image);
    }
    if let Some(text) = &arguments.args {
        container.args = syntax::words(text)?;
    }
    container.labels.retain(|key, _| !arguments.container_label_rm.contains(key));
    container.labels.extend(syntax::map(&arguments.container_label_add));
    change_pairs(&mut container.env, environment::environment(&arguments.env_add, &[])?, &arguments.env_rm);
    change(&mut container.groups, &arguments.group_add, &arguments.group_rm);
    change(&mut container.capability_add, &arguments.cap_add, &arguments.cap_drop);
    change(&mut container.capability_drop, &arguments.cap_drop, &arguments.cap_add);
    let removed_hosts = arguments.host_rm.iter().map(|text| host_line(text)).collect::<Result<Vec<_>>>()?;
    let added_hosts = arguments.host_add.iter().map(|text| host_line(text)).collect::<Result<Vec<_>>>()?;
    change(&mut container.hosts, &added_hosts, &removed_hosts);
    container.sysctls.retain(|key, _| !arguments.sysctl_rm.contains(key));
    container.sysctls.extend(syntax::strict_map("--sysctl-add", &arguments.sysctl_add)?);
    container.ulimits.retain(|limit| !arguments.ulimit_rm.contains(&limit.name));
    for text in &arguments.ulimit_add {
        let limit = device::ulimit(text)?;
        container.ulimits.retain(|other| other.name != limit.name);
        container.ulimits.push(limit);
    }
    container.mounts.retain(|m| !arguments.mount_rm.contains(&m.target));
    for text in &arguments.mount_add {
        let added = mount::parse(text)?;
        container.mounts.retain(|m| m.target != added.target);
        container.mounts.push(added);
    }
    let mut dns = container.dns_config.take().unwrap_or_default();
    change(&mut dns.nameservers, &arguments.dns_add, &arguments.dns_rm);
    change(&mut dns.options, &arguments.dns_option_add, &arguments.dns_option_rm);
    change(&mut dns.search, &arguments.dns_search_add, &arguments.dns_search_rm);
    container.dns_config = Some(dns).filter(|dns| *dns != gantry_model::service::DnsConfig::default());
    Ok(())
}

fn change_ports(ports: &mut Vec<PortConfig>, add: &[String], remove: &[String]) -> Result<()> {
    for text in remove {
        let (target, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let target: u16 = target.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or_else(|| {
            Error::invalid(format!("invalid port {text:?} for --publish-rm: expected the target port"))
        })?;
        ports.retain(|port| port.target_port != target || port.protocol != protocol);
    }
    for text in add {
        for added in port::service_ports(text)? {
            // One target may be published at several ports; the same publication again is an update.
            let same = |port: &PortConfig| {
                port.target_port == added.target_port
                    && port.protocol == added.protocol
                    && port.published_port == added.published_port
            };
            ports.retain(|port| !same(port));
            ports.push(added);
        }
    }
    Ok(())
}

/// Networks are kept by id, and named by users by name.
async fn change_networks(
    arguments: &Arguments,
    networks: &mut Vec<NetworkAttachmentConfig>,
    context: &Context,
) -> Result<()> {
    for name in &arguments.network_rm {
        let network = object(Kind::Network, name, false, context).await?;
        networks.retain(|n| n.target != network.text("Id") && n.target != network.text("Name"));
    }
    for text in &arguments.network_add {
        let mut added = attachment(text)?;
        let network = object(Kind::Network, &added.target, false, context).await?;
        if networks.iter().any(|n| n.target == network.text("Id") || n.target == network.text("Name")) {
            return Err(Error::invalid(format!("service is already attached to network {}", added.target)));
        }
        added.target = network.text("Id").to_owned();
        networks.push(added);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn changed(line: &str, spec: &mut ServiceSpec) {
        let words = syntax::words(line).unwrap();
        apply(&Line::parse_from(std::iter::once("update".to_owned()).chain(words)).arguments, spec).unwrap();
    }

    #[test]
    fn only_what_is_given_changes() {
        let mut spec = ServiceSpec::default();
        changed("--image a:2 --env-add A=1 --env-add B=2 --label-add x=y --publish-add 8080:80 s", &mut spec);
        changed(
            "--env-add A=3 --env-rm B --replicas 4 --force --constraint-add node.role==manager s",
            &mut spec,
        );
        let container = spec.task_template.container_spec.clone().unwrap();
        assert_eq!((container.image.as_str(), container.env.as_slice()), ("a:2", &["A=3".to_owned()][..]));
        assert_eq!(spec.labels["x"], "y");
        assert_eq!(spec.mode.replicated.as_ref().unwrap().replicas, Some(4));
        assert_eq!(spec.task_template.force_update, 1);
        changed("--publish-rm 80 --label-rm x --constraint-rm node.role==manager s", &mut spec);
        assert!(spec.endpoint_spec.unwrap().ports.is_empty() && spec.labels.is_empty());
        assert!(spec.task_template.placement.constraints.is_empty());
    }
}
