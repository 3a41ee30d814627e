//! `gantry service inspect`

use crate::command::inspect::{self, Kind, Typed};
use crate::command::service::list;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use crate::units;
use serde_json::Value;
use std::time::Duration;

/// Prints services as JSON, or in words with `--pretty`.
pub async fn run(arguments: Typed, context: &Context) -> Result<()> {
    if !arguments.pretty {
        return inspect::typed(arguments, Kind::Service, context).await;
    }
    for name in &arguments.names {
        let service = inspect::object(Kind::Service, name, false, context).await?;
        let networks = network_names(&service, context).await;
        table::out(&pretty(&service, &networks));
    }
    Ok(())
}

/// The names of the service's networks; an id stays where the network is gone.
async fn network_names(service: &Value, context: &Context) -> Vec<String> {
    let mut names = Vec::new();
    for network in service.list("Spec.TaskTemplate.Networks") {
        let id = network.text("Target");
        let found = inspect::object(Kind::Network, id, false, context).await;
        names.push(found.map_or_else(|_| units::short_id(id), |network| network.text("Name").to_owned()));
    }
    names
}

/// Lines of a label and a value, those without a value left out.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn head(&mut self, label: &str) {
        self.0.push_str(&format!("{label}:\n"));
    }

    fn add(&mut self, label: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.push_str(&format!("{:<20}{value}\n", format!("{label}:")));
        }
    }

    fn duration(&mut self, label: &str, nanos: i64) {
        if nanos > 0 {
            self.add(label, gantry_model::duration::format(Duration::from_nanos(nanos.unsigned_abs())));
        }
    }

    fn count(&mut self, label: &str, value: &Value) {
        if !value.is_null() {
            self.add(label, value.to_string());
        }
    }
}

fn pretty(service: &Value, networks: &[String]) -> String {
    let mut lines = Lines::default();
    let task = service.at("Spec.TaskTemplate");
    lines.add("ID", service.text("ID"));
    lines.add("Name", service.text("Spec.Name"));
    lines.add("Labels", service.labels("Spec.Labels"));
    lines.add("Service Mode", list::mode(service));
    lines.count(" Replicas", service.at("Spec.Mode.Replicated.Replicas"));
    if !service.at("UpdateStatus.State").is_null() {
        lines.head("UpdateStatus");
        lines.add(" State", service.text("UpdateStatus.State"));
        lines.add(" Started", units::precise_stamp(service.text("UpdateStatus.StartedAt")));
        lines.add(" Completed", units::precise_stamp(service.text("UpdateStatus.CompletedAt")));
        lines.add(" Message", service.text("UpdateStatus.Message"));
    }
    placement(&mut lines, task.at("Placement"));
    for (label, path) in [("UpdateConfig", "Spec.UpdateConfig"), ("RollbackConfig", "Spec.RollbackConfig")] {
        update_config(&mut lines, label, service.at(path));
    }
    restart(&mut lines, task.at("RestartPolicy"));
    container(&mut lines, task.at("ContainerSpec"));
    resources(&mut lines, task.at("Resources"));
    lines.add("Networks", networks.join(", "));
    lines.add("Endpoint Mode", service.text("Endpoint.Spec.Mode"));
    lines.add("Ports", list::ports(service.list("Endpoint.Ports")));
    for vip in service.list("Endpoint.VirtualIPs") {
        let network = units::short_id(vip.text("NetworkID"));
        lines.add("Virtual IP", format!("{} on network {network}", vip.text("Addr")));
    }
    lines.0
}

fn words(value: &Value, path: &str) -> String {
    value.list(path).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn placement(lines: &mut Lines, placement: &Value) {
    lines.add("Constraints", words(placement, "Constraints"));
    let preferences = placement.list("Preferences").iter();
    let spread: Vec<&str> = preferences.map(|p| p.text("Spread.SpreadDescriptor")).collect();
    lines.add("Spread over", spread.join(" "));
    if placement.int("MaxReplicas") > 0 {
        lines.add("Max per node", placement.int("MaxReplicas").to_string());
    }
}

fn update_config(lines: &mut Lines, label: &str, config: &Value) {
    if config.is_null() {
        return;
    }
    lines.head(label);
    lines.add(" Parallelism", config.int("Parallelism").to_string());
    lines.duration(" Delay", config.int("Delay"));
    lines.add(" On failure", config.text("FailureAction"));
    lines.duration(" Monitoring period", config.int("Monitor"));
    lines.count(" Max failure ratio", config.at("MaxFailureRatio"));
    lines.add(" Order", config.text("Order"));
}

fn restart(lines: &mut Lines, policy: &Value) {
    if policy.is_null() {
        return;
    }
    lines.head("RestartPolicy");
    lines.add(" Condition", policy.text("Condition"));
    lines.duration(" Delay", policy.int("Delay"));
    if policy.int("MaxAttempts") > 0 {
        lines.add(" Max attempts", policy.int("MaxAttempts").to_string());
    }
    lines.duration(" Window", policy.int("Window"));
}

fn container(lines: &mut Lines, container: &Value) {
    lines.head("ContainerSpec");
    lines.add(" Image", container.text("Image"));
    lines.add(" Command", words(container, "Command"));
    lines.add(" Args", words(container, "Args"));
    lines.add(" Env", words(container, "Env"));
    lines.add(" User", container.text("User"));
    lines.add(" Dir", container.text("Dir"));
    for mount in container.list("Mounts") {
        let kind = if mount.text("Type").is_empty() { "bind" } else { mount.text("Type") };
        let access = if mount.flag("ReadOnly") { ", read-only" } else { "" };
        lines.add(" Mount", format!("{kind} {} on {}{access}", mount.text("Source"), mount.text("Target")));
    }
    for (label, list, name) in [(" Secret", "Secrets", "SecretName"), (" Config", "Configs", "ConfigName")] {
        for reference in container.list(list) {
            lines.add(label, format!("{} as {}", reference.text(name), reference.text("File.Name")));
        }
    }
}

fn resources(lines: &mut Lines, resources: &Value) {
    for (label, path) in [("Reservations", "Reservations"), ("Limits", "Limits")] {
        let (cpus, memory) = (resources.at(path).int("NanoCPUs"), resources.at(path).int("MemoryBytes"));
        if cpus > 0 || memory > 0 {
            lines.head(label);
        }
        if cpus > 0 {
            lines.add(" CPU", format!("{}", cpus as f64 / 1e9));
        }
        if memory > 0 {
            lines.add(" Memory", units::bytes(memory));
        }
    }
}
