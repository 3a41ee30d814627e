//! `gantry service create`

use crate::client::Call;
use crate::command::service::{converge, files, resolve, settings::Settings};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::syntax::{self, device, environment, mount, network, port};
use crate::table;
use clap::Args;
use gantry_model::container::Empty;
use gantry_model::service::{
    ContainerSpec, DnsConfig, EndpointSpec, NetworkAttachmentConfig, PlacementPreference, Replicated,
    ReplicatedJob, ServiceMode, ServiceSpec, SpreadOver,
};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Add Linux capabilities
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Specify configurations to expose to the service
    #[arg(long)]
    config: Vec<String>,
    /// Placement constraints
    #[arg(long)]
    constraint: Vec<String>,
    /// Container labels
    #[arg(long)]
    container_label: Vec<String>,
    /// Set custom DNS servers
    #[arg(long)]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long)]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    dns_search: Vec<String>,
    /// Set environment variables
    #[arg(short, long)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// Set one or more supplementary user groups for the container
    #[arg(long)]
    group: Vec<String>,
    /// Set one or more custom host-to-IP mappings (host:ip)
    #[arg(long)]
    host: Vec<String>,
    /// Service labels
    #[arg(short, long)]
    label: Vec<String>,
    /// Service mode ("replicated", "global", "replicated-job", "global-job")
    #[arg(long, default_value = "replicated")]
    mode: String,
    /// Attach a filesystem mount to the service
    #[arg(long)]
    mount: Vec<String>,
    /// Service name
    #[arg(long, default_value_t)]
    name: String,
    /// Network attachments
    #[arg(long)]
    network: Vec<String>,
    /// Add a placement preference
    #[arg(long)]
    placement_pref: Vec<String>,
    /// Publish a port as a node port
    #[arg(short, long)]
    publish: Vec<String>,
    /// Specify secrets to expose to the service
    #[arg(long)]
    secret: Vec<String>,
    /// Sysctl options
    #[arg(long)]
    sysctl: Vec<String>,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    /// Image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG...]")]
    image_and_command: Vec<String>,
}

/// Creates a service, prints its id, and waits until it runs.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let mut spec = spec(&arguments)?;
    if let Some(container) = &mut spec.task_template.container_spec {
        container.secrets = files::secrets(&arguments.secret, context).await?;
        container.configs = files::configs(&arguments.config, context).await?;
    }
    if !arguments.settings.no_resolve_image {
        resolve::pin(&mut spec.task_template, context).await?;
    }
    let image = arguments.image_and_command.first().map(String::as_str).unwrap_or_default();
    let auth =
        if arguments.settings.with_registry_auth { context.config()?.header_for(image)? } else { None };
    let call = Call::post("/services/create").json(&spec).header_option("X-Registry-Auth", auth);
    let answer = context.client.json(call).await?;
    for warning in answer.list("Warnings").iter().filter_map(|w| w.as_str()) {
        eprintln!("{warning}");
    }
    let id = answer.text("ID");
    table::line(id);
    if arguments.settings.detach {
        return Ok(());
    }
    converge::wait(id, arguments.settings.quiet, context).await
}

fn mode(text: &str) -> Result<ServiceMode> {
    Ok(match text {
        "replicated" => {
            ServiceMode { replicated: Some(Replicated { replicas: Some(1) }), ..ServiceMode::default() }
        }
        "global" => ServiceMode { global: Some(Empty {}), ..ServiceMode::default() },
        "replicated-job" => ServiceMode {
            replicated_job: Some(ReplicatedJob { max_concurrent: None, total_completions: Some(1) }),
            ..ServiceMode::default()
        },
        "global-job" => ServiceMode { global_job: Some(Empty {}), ..ServiceMode::default() },
        other => {
            return Err(Error::invalid(format!(
                "unknown mode: {other}, only replicated, global, replicated-job and global-job are supported"
            )));
        }
    })
}

/// Docker keeps hosts as lines of /etc/hosts: `ip name`.
pub fn host_line(text: &str) -> Result<String> {
    let pair = text
        .split_once(':')
        .or_else(|| text.split_once('='))
        .filter(|(_, ip)| ip.parse::<std::net::IpAddr>().is_ok());
    pair.map(|(name, ip)| format!("{ip} {name}"))
        .ok_or_else(|| Error::invalid(format!("bad format for --host: {text:?}")))
}

/// `spread=node.labels.zone`.
pub fn preference(text: &str) -> Result<PlacementPreference> {
    match text.split_once('=') {
        Some(("spread", descriptor)) if !descriptor.is_empty() => {
            Ok(PlacementPreference { spread: Some(SpreadOver { spread_descriptor: descriptor.to_owned() }) })
        }
        Some((strategy, _)) => Err(Error::invalid(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        ))),
        None => Err(Error::invalid("placement preference must be of the format \"<strategy>=<arg>\"")),
    }
}

/// A network of a service.
pub fn attachment(text: &str) -> Result<NetworkAttachmentConfig> {
    let option = network::parse(text)?;
    Ok(NetworkAttachmentConfig {
        target: option.target,
        aliases: option.aliases,
        driver_opts: option.driver_opts,
        ..NetworkAttachmentConfig::default()
    })
}

fn all<T>(texts: &[String], parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    texts.iter().map(|text| parse(text)).collect()
}

fn spec(arguments: &Arguments) -> Result<ServiceSpec> {
    let dns = DnsConfig {
        nameservers: arguments.dns.clone(),
        search: arguments.dns_search.clone(),
        options: arguments.dns_option.clone(),
    };
    let (image, command) =
        arguments.image_and_command.split_first().map_or(("", &[][..]), |(i, c)| (i.as_str(), c));
    let container = ContainerSpec {
        image: image.to_owned(),
        labels: syntax::map(&arguments.container_label),
        args: command.to_vec(),
        env: environment::environment(&arguments.env, &arguments.env_file)?,
        groups: arguments.group.clone(),
        mounts: all(&arguments.mount, mount::parse)?,
        hosts: all(&arguments.host, host_line)?,
        dns_config: (dns != DnsConfig::default()).then_some(dns),
        sysctls: syntax::strict_map("--sysctl", &arguments.sysctl)?,
        capability_add: arguments.cap_add.clone(),
        capability_drop: arguments.cap_drop.clone(),
        ulimits: all(&arguments.ulimit, device::ulimit)?,
        ..ContainerSpec::default()
    };
    let mut spec = ServiceSpec {
        name: arguments.name.clone(),
        labels: syntax::map(&arguments.label),
        mode: mode(&arguments.mode)?,
        endpoint_spec: Some(EndpointSpec {
            mode: "vip".to_owned(),
            ports: all(&arguments.publish, port::service_ports)?.into_iter().flatten().collect(),
        }),
        ..ServiceSpec::default()
    };
    spec.task_template.container_spec = Some(container);
    spec.task_template.placement.constraints.clone_from(&arguments.constraint);
    spec.task_template.placement.preferences = all(&arguments.placement_pref, preference)?;
    spec.task_template.networks = all(&arguments.network, attachment)?;
    arguments.settings.apply(&mut spec)?;
    Ok(spec)
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

    fn made(line: &str) -> Result<ServiceSpec> {
        let words = syntax::words(line).unwrap();
        spec(&Line::parse_from(std::iter::once("create".to_owned()).chain(words)).arguments)
    }

    #[test]
    fn the_flags_of_the_issue_reach_the_specification() {
        let spec = made(
            "--name web --replicas 6 -p 8080:80 --network name=net,alias=w --constraint node.role==worker \
             --placement-pref spread=node.labels.zone --limit-memory 64m --reserve-cpu .5 -e A=1 --mount type=tmpfs,dst=/t \
             --update-parallelism 2 --update-order start-first --rollback-monitor 3s --restart-condition on-failure \
             --restart-delay 1s --health-cmd true --stop-grace-period 3s --host db:10.0.0.5 img serve --port 80",
        )
        .unwrap();
        assert_eq!(spec.mode.replicated.unwrap().replicas, Some(6));
        let container = spec.task_template.container_spec.unwrap();
        assert_eq!(container.args, ["serve", "--port", "80"]);
        assert_eq!(container.hosts, ["10.0.0.5 db"]);
        assert_eq!(spec.task_template.resources.limits.unwrap().memory_bytes, 64 << 20);
        assert_eq!(spec.task_template.resources.reservations.unwrap().nano_cpus, 500_000_000);
        let update = spec.update_config.unwrap();
        assert_eq!(
            (update.parallelism, update.order.as_str(), update.failure_action.as_str()),
            (2, "start-first", "pause")
        );
        assert_eq!(spec.rollback_config.unwrap().monitor, 3_000_000_000);
        assert_eq!(spec.task_template.restart_policy.unwrap().delay, Some(1_000_000_000));
        assert_eq!(spec.endpoint_spec.unwrap().ports[0].published_port, 8080);
        assert_eq!(spec.task_template.networks[0].aliases, ["w"]);
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "--mode global --replicas 2 img",
            "--mode sometimes img",
            "--placement-pref pack=x img",
            "--no-healthcheck --health-cmd x img",
            "--restart-condition never img",
            "--max-concurrent 2 img",
        ] {
            assert!(made(line).is_err(), "{line}");
        }
    }
}
