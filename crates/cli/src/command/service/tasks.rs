//! The table of tasks that `service ps` and `node ps` print.

use crate::client::{Call, Query};
use crate::command::node::list::capital;
use crate::command::service::list::image;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use crate::units;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;

/// How tasks are shown.
#[derive(Debug, Args)]
#[group(skip)]
pub struct View {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display task IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Names of services and nodes by their ids.
#[derive(Debug, Default)]
pub struct Names {
    services: HashMap<String, String>,
    nodes: HashMap<String, String>,
}

impl Names {
    /// Asks for all names.
    pub async fn read(context: &Context) -> Result<Names> {
        let map = |list: &Value, path: &str| -> HashMap<String, String> {
            list.list("")
                .iter()
                .map(|item| (item.text("ID").to_owned(), item.text(path).to_owned()))
                .collect()
        };
        Ok(Names {
            services: map(&context.client.get("/services").await?, "Spec.Name"),
            nodes: map(&context.client.get("/nodes").await?, "Description.Hostname"),
        })
    }

    /// `web.3`, or with a global service's node in place of the slot.
    pub fn task(&self, task: &Value) -> String {
        let service = task.text("ServiceID");
        let service = self.services.get(service).map_or(service, String::as_str);
        match task.int("Slot") {
            0 => format!("{service}.{}", task.text("NodeID")),
            slot => format!("{service}.{slot}"),
        }
    }

    /// A node's host name.
    pub fn node(&self, id: &str) -> String {
        self.nodes.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }
}

/// Prints the tasks that the filters select.
pub async fn print(view: &View, mut filters: Vec<String>, context: &Context) -> Result<()> {
    filters.extend(view.filter.iter().cloned());
    let query = Query::new().filters(&filters)?;
    let tasks = context.client.json(Call::get("/tasks").query(query)).await?;
    let names = if view.no_resolve { Names::default() } else { Names::read(context).await? };
    let format = context.format(view.format.as_deref(), "tasksFormat")?;
    // Ids alone are for other commands, which need them whole.
    let whole = view.no_trunc || (view.quiet && format.is_none());
    list(&tasks, &names, whole, Timestamp::now())
        .print(&Shape { format: format.as_deref(), quiet: view.quiet })
}

fn list(tasks: &Value, names: &Names, whole: bool, now: Timestamp) -> List {
    let mut list = List::new(
        &[
            ("ID", "ID"),
            ("NAME", "_indented"),
            ("IMAGE", "Image"),
            ("NODE", "Node"),
            ("DESIRED STATE", "DesiredState"),
            ("CURRENT STATE", "CurrentState"),
            ("ERROR", "Error"),
            ("PORTS", "Ports"),
        ],
        "ID",
    )
    .with_fields(&[("NAME", "Name")]);
    let mut sorted: Vec<&Value> = tasks.list("").iter().collect();
    // The newest task of a slot first, its history below it.
    sorted.sort_by(|a, b| {
        let place = |task: &Value| (task.text("ServiceID").to_owned(), task.int("Slot"), slot_node(task));
        place(a).cmp(&place(b)).then_with(|| b.text("CreatedAt").cmp(a.text("CreatedAt")))
    });
    let mut previous = String::new();
    for task in sorted {
        let name = names.task(task);
        let indented = if name == previous { format!(" \\_ {name}") } else { name.clone() };
        previous.clone_from(&name);
        list.push(row(task, names, (name, indented), whole, now));
    }
    list
}

/// Tasks of a global service belong together by node; those of a replicated one move between nodes.
fn slot_node(task: &Value) -> String {
    if task.int("Slot") == 0 { task.text("NodeID").to_owned() } else { String::new() }
}

fn row(
    task: &Value,
    names: &Names,
    (name, indented): (String, String),
    whole: bool,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let id = task.text("ID");
    let error = task.text("Status.Err");
    let error = match error {
        "" => String::new(),
        text if whole => format!("\"{text}\""),
        text => format!("\"{}\"", units::ellipsis(text, 30)),
    };
    let state = capital(task.text("Status.State"));
    let since = units::moment(task.text("Status.Timestamp"));
    let ports = task.list("Status.PortStatus.Ports").iter();
    let ports: Vec<String> = ports
        .map(|p| format!("*:{}->{}/{}", p.int("PublishedPort"), p.int("TargetPort"), p.text("Protocol")))
        .collect();
    let image_text = task.text("Spec.ContainerSpec.Image");
    vec![
        ("ID", if whole { id.to_owned() } else { units::short_id(id) }),
        ("Name", name),
        ("_indented", indented),
        ("Image", if whole { image_text.to_owned() } else { image(image_text) }),
        ("Node", names.node(task.text("NodeID"))),
        ("DesiredState", capital(task.text("DesiredState"))),
        ("CurrentState", format!("{state} {}", units::ago(now, since).to_lowercase())),
        ("Error", error),
        ("Ports", ports.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_history_of_a_slot_is_below_its_task() {
        let task = |id: &str, created: &str, state: &str, err: &str| {
            json!({"ID": id, "ServiceID": "s", "Slot": 1, "NodeID": "n", "CreatedAt": created, "DesiredState": "running",
                "Status": {"State": state, "Timestamp": "2024-01-01T00:00:00Z", "Err": err},
                "Spec": {"ContainerSpec": {"Image": "a:1@sha256:x"}}})
        };
        let tasks = json!([
            task("old", "2024-01-01T00:00:00Z", "failed", "task: non-zero exit (3) and a long text"),
            task("new", "2024-01-01T00:01:00Z", "running", "")
        ]);
        let names = Names { services: [("s".to_owned(), "web".to_owned())].into(), nodes: HashMap::new() };
        let now = "2024-01-01T00:02:00Z".parse().unwrap();
        let text = list(&tasks, &names, false, now).render(&Shape::default()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("new       web.1"), "{text}");
        assert!(lines[1].contains("Running 2 minutes ago"), "{text}");
        assert!(
            lines[2].contains(" \\_ web.1") && lines[2].contains("task: non-zero exit (3) and a…"),
            "{text}"
        );
    }
}
