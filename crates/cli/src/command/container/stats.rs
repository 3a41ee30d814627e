//! `gantry stats`

use crate::client::{Call, Query, frames::Documents};
use crate::command::container::path;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{self, List, Shape};
use crate::units;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Containers
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

type Latest = Arc<Mutex<BTreeMap<String, Value>>>;

/// Shows what containers use, once or again and again.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let names = if arguments.containers.is_empty() {
        let query = Query::new().flag("all", arguments.all);
        let containers = context.client.json(Call::get("/containers/json").query(query)).await?;
        containers.list("").iter().map(|c| c.text("Id").to_owned()).collect()
    } else {
        arguments.containers.clone()
    };
    let format = context.format(arguments.format.as_deref(), "statsFormat")?;
    if arguments.no_stream {
        let mut samples = Vec::new();
        for name in &names {
            let query = Query::new().set("stream", 0);
            samples.push(context.client.json(Call::get(path(name, "/stats")).query(query)).await?);
        }
        return list(samples.iter(), arguments.no_trunc)
            .print(&Shape { format: format.as_deref(), quiet: false });
    }
    let latest: Latest = Arc::default();
    let mut followers = tokio::task::JoinSet::new();
    for name in names {
        followers.spawn(follow(context.client.clone(), name, latest.clone()));
    }
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        let samples = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = list(samples.values(), arguments.no_trunc)
            .render(&Shape { format: format.as_deref(), quiet: false })?;
        // Home, then each line with the rest of the old one erased, then the rest of the screen.
        let frame = text.replace('\n', "\x1b[K\n");
        let clear = crate::terminal::stdout_is_terminal();
        table::out(&if clear { format!("\x1b[H{frame}\x1b[J") } else { text });
        if followers.try_join_next().is_some() && followers.is_empty() && !arguments.containers.is_empty() {
            return Ok(());
        }
    }
}

async fn follow(client: Arc<crate::client::Client>, name: String, latest: Latest) -> Result<()> {
    let response = client.send(Call::get(path(&name, "/stats")).query(Query::new().set("stream", 1))).await?;
    let mut documents = Documents::new(response.into_body());
    while let Some(sample) = documents.next().await? {
        latest.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), sample);
    }
    latest.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    Ok(())
}

fn list<'a>(samples: impl Iterator<Item = &'a Value>, whole: bool) -> List {
    let mut list = List::new(
        &[
            ("CONTAINER ID", "ID"),
            ("NAME", "Name"),
            ("CPU %", "CPUPerc"),
            ("MEM USAGE / LIMIT", "MemUsage"),
            ("MEM %", "MemPerc"),
            ("NET I/O", "NetIO"),
            ("BLOCK I/O", "BlockIO"),
            ("PIDS", "PIDs"),
        ],
        "ID",
    )
    .with_fields(&[("CONTAINER", "Container")]);
    for sample in samples {
        list.push(row(sample, whole));
    }
    list
}

fn row(sample: &Value, whole: bool) -> Vec<(&'static str, String)> {
    let id = sample.text("id");
    let id = if whole { id.to_owned() } else { units::short_id(id) };
    // The page cache that can be dropped is not the container's need.
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .map(|name| sample.at("memory_stats.stats").int(name))
        .find(|bytes| *bytes > 0)
        .unwrap_or(0);
    let used = (sample.int("memory_stats.usage") - cache).max(0);
    let limit = sample.int("memory_stats.limit");
    let sum = |key: &str| sample.pairs("networks").iter().map(|(_, net)| net.int(key)).sum::<i64>();
    let blocks = sample.list("blkio_stats.io_service_bytes_recursive");
    let io = |op: &str| -> i64 {
        blocks.iter().filter(|b| b.text("op").eq_ignore_ascii_case(op)).map(|b| b.int("value")).sum()
    };
    let percent = |part: f64| format!("{part:.2}%");
    vec![
        ("ID", id.clone()),
        ("Container", id),
        ("Name", sample.text("name").trim_start_matches('/').to_owned()),
        ("CPUPerc", percent(cpu_percent(sample))),
        ("MemUsage", format!("{} / {}", units::bytes(used), units::bytes(limit))),
        ("MemPerc", percent(if limit > 0 { used as f64 / limit as f64 * 100.0 } else { 0.0 })),
        ("NetIO", format!("{} / {}", units::size(sum("rx_bytes")), units::size(sum("tx_bytes")))),
        ("BlockIO", format!("{} / {}", units::size(io("read")), units::size(io("write")))),
        ("PIDs", sample.int("pids_stats.current").to_string()),
    ]
}

fn cpu_percent(sample: &Value) -> f64 {
    let delta = |path: &str| {
        (sample.int(&format!("cpu_stats.{path}")) - sample.int(&format!("precpu_stats.{path}"))) as f64
    };
    let (used, system) = (delta("cpu_usage.total_usage"), delta("system_cpu_usage"));
    let cpus = match sample.int("cpu_stats.online_cpus") {
        0 => sample.list("cpu_stats.cpu_usage.percpu_usage").len() as f64,
        n => n as f64,
    };
    if used > 0.0 && system > 0.0 { used / system * cpus * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sample_becomes_percentages() {
        let sample = json!({"id": "abc", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_145_728, "limit": 4_194_304, "stats": {"inactive_file": 1_048_576}}});
        let row = row(&sample, false);
        let get = |name: &str| row.iter().find(|(k, _)| *k == name).map(|(_, v)| v.clone()).unwrap();
        assert_eq!(get("CPUPerc"), "20.00%");
        assert_eq!(get("MemUsage"), "2MiB / 4MiB");
        assert_eq!(get("MemPerc"), "50.00%");
    }
}
