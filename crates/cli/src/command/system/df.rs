//! `gantry system df`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{self, List, Shape};
use crate::units;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

/// Prints what takes how much space.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let usage = context.client.json(Call::get("/system/df").query(Query::new())).await?;
    if !arguments.verbose || arguments.format.is_some() {
        summary(&usage).print(&Shape { format: arguments.format.as_deref(), quiet: false })?;
    } else {
        table::out("Images space usage:\n\n");
        images(&usage).print(&Shape::default())?;
        table::out("\nContainers space usage:\n\n");
        containers(&usage).print(&Shape::default())?;
        table::out("\nLocal Volumes space usage:\n\n");
        volumes(&usage).print(&Shape::default())?;
    }
    Ok(())
}

fn percent(part: i64, whole: i64) -> String {
    let text = units::size(part);
    if whole > 0 { format!("{text} ({}%)", part.saturating_mul(100) / whole) } else { text }
}

fn summary(usage: &Value) -> List {
    let mut list = List::new(
        &[
            ("TYPE", "Type"),
            ("TOTAL", "TotalCount"),
            ("ACTIVE", "Active"),
            ("SIZE", "Size"),
            ("RECLAIMABLE", "Reclaimable"),
        ],
        "Type",
    );
    let mut push = |kind: &str, total: usize, active: usize, size: i64, reclaimable: String| {
        list.push([
            ("Type", kind.to_owned()),
            ("TotalCount", total.to_string()),
            ("Active", active.to_string()),
            ("Size", units::size(size)),
            ("Reclaimable", reclaimable),
        ]);
    };
    let images = usage.list("Images");
    let used: i64 = images
        .iter()
        .filter(|i| i.int("Containers") > 0)
        .map(|i| (i.int("Size") - i.int("SharedSize").max(0)).max(0))
        .sum();
    let size = usage.int("LayersSize");
    let active = images.iter().filter(|i| i.int("Containers") > 0).count();
    push("Images", images.len(), active, size, percent((size - used).max(0), size));
    let containers = usage.list("Containers");
    let running = |c: &&Value| matches!(c.text("State"), "running" | "paused" | "restarting");
    let size: i64 = containers.iter().map(|c| c.int("SizeRw")).sum();
    let idle: i64 = containers.iter().filter(|c| !running(c)).map(|c| c.int("SizeRw")).sum();
    push(
        "Containers",
        containers.len(),
        containers.iter().filter(running).count(),
        size,
        percent(idle, size),
    );
    let volumes = usage.list("Volumes");
    let bytes = |v: &Value| v.int("UsageData.Size").max(0);
    let size: i64 = volumes.iter().map(bytes).sum();
    let in_use = |v: &&Value| v.int("UsageData.RefCount") > 0;
    let idle: i64 = volumes.iter().filter(|v| !in_use(v)).map(bytes).sum();
    push("Local Volumes", volumes.len(), volumes.iter().filter(in_use).count(), size, percent(idle, size));
    let cache = usage.list("BuildCache");
    let size: i64 = cache.iter().map(|c| c.int("Size")).sum();
    push(
        "Build Cache",
        cache.len(),
        cache.iter().filter(|c| c.flag("InUse")).count(),
        size,
        units::size(size),
    );
    list
}

/// How long ago an image or container was made.
fn created(object: &Value) -> String {
    units::ago(Timestamp::now(), Timestamp::from_second(object.int("Created")).ok())
}

fn images(usage: &Value) -> List {
    let mut list = List::new(
        &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("IMAGE ID", "ID"),
            ("CREATED", "Created"),
            ("SIZE", "Size"),
            ("SHARED SIZE", "Shared"),
            ("UNIQUE SIZE", "Unique"),
            ("CONTAINERS", "Containers"),
        ],
        "ID",
    );
    for image in usage.list("Images") {
        let name = image.list("RepoTags").first().and_then(Value::as_str).unwrap_or("<none>:<none>");
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let shared = image.int("SharedSize").max(0);
        list.push([
            ("Repository", repository.to_owned()),
            ("Tag", tag.to_owned()),
            ("ID", units::short_id(image.text("Id"))),
            ("Created", created(image)),
            ("Size", units::size(image.int("Size"))),
            ("Shared", units::size(shared)),
            ("Unique", units::size((image.int("Size") - shared).max(0))),
            ("Containers", image.int("Containers").max(0).to_string()),
        ]);
    }
    list
}

fn containers(usage: &Value) -> List {
    let columns = [
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("LOCAL VOLUMES", "Volumes"),
        ("SIZE", "Size"),
        ("CREATED", "Created"),
        ("STATUS", "Status"),
        ("NAMES", "Names"),
    ];
    let mut list = List::new(&columns, "ID");
    for container in usage.list("Containers") {
        let names: Vec<&str> = container
            .list("Names")
            .iter()
            .filter_map(Value::as_str)
            .map(|n| n.trim_start_matches('/'))
            .collect();
        let volumes = container.list("Mounts").iter().filter(|m| m.text("Driver") == "local").count();
        list.push([
            ("ID", units::short_id(container.text("Id"))),
            ("Image", container.text("Image").to_owned()),
            ("Volumes", volumes.to_string()),
            ("Command", format!("\"{}\"", units::ellipsis(container.text("Command"), 20))),
            ("Created", created(container)),
            ("Size", units::size(container.int("SizeRw"))),
            ("Status", container.text("Status").to_owned()),
            ("Names", names.join(",")),
        ]);
    }
    list
}

fn volumes(usage: &Value) -> List {
    let mut list = List::new(&[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")], "Name");
    for volume in usage.list("Volumes") {
        list.push([
            ("Name", volume.text("Name").to_owned()),
            ("Links", volume.int("UsageData.RefCount").max(0).to_string()),
            ("Size", units::size(volume.int("UsageData.Size").max(0))),
        ]);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_summary_counts_what_is_in_use() {
        let usage = json!({"LayersSize": 1000, "Images": [{"Containers": 1, "Size": 400}, {"Containers": 0, "Size": 600}],
            "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}], "Volumes": null});
        let text = summary(&usage).render(&Shape::default()).unwrap();
        assert!(text.contains("Images          2         1         1kB       600B (60%)"), "{text}");
        assert!(text.contains("30B (75%)"), "{text}");
    }
}
