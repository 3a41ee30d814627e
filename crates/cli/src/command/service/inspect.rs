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
        table::out(&pretty(&service));
    }
    Ok(())
}

fn pretty(service: &Value) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{:<20}{value}\n", format!("{label}:")));
        }
    };
    line("ID", service.text("ID").to_owned());
    line("Name", service.text("Spec.Name").to_owned());
    line("Labels", service.labels("Spec.Labels"));
    line("Service Mode", list::mode(service).to_owned());
    let replicas = service.at("Spec.Mode.Replicated.Replicas");
    line(" Replicas", if replicas.is_null() { String::new() } else { replicas.to_string() });
    line("UpdateStatus", service.text("UpdateStatus.State").to_owned());
    line(" Message", service.text("UpdateStatus.Message").to_owned());
    let task = service.at("Spec.TaskTemplate");
    let words = |path: &str| -> String {
        task.list(path).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    line("Constraints", words("Placement.Constraints"));
    for (label, path) in [("UpdateConfig", "Spec.UpdateConfig"), ("RollbackConfig", "Spec.RollbackConfig")] {
        let config = service.at(path);
        if !config.is_null() {
            line(label, " ".to_owned());
            line(" Parallelism", config.int("Parallelism").to_string());
            let delay = Duration::from_nanos(config.int("Delay").max(0).unsigned_abs());
            line(" Delay", gantry_model::duration::format(delay));
            line(" On failure", config.text("FailureAction").to_owned());
            line(" Order", config.text("Order").to_owned());
        }
    }
    line("Image", task.text("ContainerSpec.Image").to_owned());
    line("Args", words("ContainerSpec.Args"));
    line("Env", words("ContainerSpec.Env"));
    let memory = |path: &str| match task.int(path) {
        0 => String::new(),
        bytes => units::bytes(bytes),
    };
    line("Memory limit", memory("Resources.Limits.MemoryBytes"));
    line("Memory reserved", memory("Resources.Reservations.MemoryBytes"));
    line("Endpoint Mode", service.text("Endpoint.Spec.Mode").to_owned());
    line("Ports", list::ports(service.list("Endpoint.Ports")));
    for vip in service.list("Endpoint.VirtualIPs") {
        line(
            "Virtual IP",
            format!("{} on network {}", vip.text("Addr"), units::short_id(vip.text("NetworkID"))),
        );
    }
    out
}
