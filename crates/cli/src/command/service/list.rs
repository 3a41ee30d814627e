//! `gantry service ls`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use crate::units;
use clap::Args;
use serde_json::Value;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Lists services.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let query = Query::new().set("status", "true").filters(&arguments.filter)?;
    let services = context.client.json(Call::get("/services").query(query)).await?;
    let format = context.format(arguments.format.as_deref(), "servicesFormat")?;
    let mut sorted = services.list("").to_vec();
    sorted.sort_by(|a, b| a.text("Spec.Name").cmp(b.text("Spec.Name")));
    let mut list = List::new(
        &[
            ("ID", "ID"),
            ("NAME", "Name"),
            ("MODE", "Mode"),
            ("REPLICAS", "Replicas"),
            ("IMAGE", "Image"),
            ("PORTS", "Ports"),
        ],
        "ID",
    );
    for service in &sorted {
        list.push([
            ("ID", units::short_id(service.text("ID"))),
            ("Name", service.text("Spec.Name").to_owned()),
            ("Mode", mode(service).to_owned()),
            ("Replicas", replicas(service)),
            ("Image", image(service.text("Spec.TaskTemplate.ContainerSpec.Image"))),
            ("Ports", ports(service.list("Endpoint.Ports"))),
        ]);
    }
    list.print(&Shape { format: format.as_deref(), quiet: arguments.quiet })
}

/// The word of a service's mode.
pub fn mode(service: &Value) -> &'static str {
    let has = |key: &str| !service.at("Spec.Mode").at(key).is_null();
    match () {
        () if has("Global") => "global",
        () if has("ReplicatedJob") => "replicated job",
        () if has("GlobalJob") => "global job",
        () => "replicated",
    }
}

fn replicas(service: &Value) -> String {
    let status = |key: &str| service.at("ServiceStatus").int(key);
    let mut text = format!("{}/{}", status("RunningTasks"), status("DesiredTasks"));
    let max = service.int("Spec.TaskTemplate.Placement.MaxReplicas");
    if max > 0 {
        text.push_str(&format!(" (max {max} per node)"));
    }
    let total = service.int("Spec.Mode.ReplicatedJob.TotalCompletions");
    if total > 0 {
        text.push_str(&format!(" ({}/{total} completed)", status("CompletedTasks")));
    }
    text
}

/// An image's name without the digest that was resolved for it.
pub fn image(text: &str) -> String {
    match text.split_once('@') {
        Some((name, _)) if name.rsplit('/').next().is_some_and(|last| last.contains(':')) => name.to_owned(),
        _ => text.to_owned(),
    }
}

/// `*:8080->80/tcp`; host ports belong to tasks.
pub fn ports(ports: &[Value]) -> String {
    let published = ports.iter().filter(|p| p.text("PublishMode") != "host" && p.int("PublishedPort") > 0);
    let texts = published
        .map(|p| format!("*:{}->{}/{}", p.int("PublishedPort"), p.int("TargetPort"), p.text("Protocol")));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_reads_as_dockers() {
        let service = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 3}}, "TaskTemplate": {"Placement": {"MaxReplicas": 2}}},
            "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3}});
        assert_eq!(mode(&service), "replicated");
        assert_eq!(replicas(&service), "2/3 (max 2 per node)");
        assert_eq!(image("h:5/a:1@sha256:x"), "h:5/a:1");
        assert_eq!(image("h:5/a@sha256:x"), "h:5/a@sha256:x");
        let all =
            [json!({"PublishMode": "ingress", "PublishedPort": 8080, "TargetPort": 80, "Protocol": "tcp"})];
        assert_eq!(ports(&all), "*:8080->80/tcp");
    }
}
