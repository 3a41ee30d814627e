//! `gantry node ls`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
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

/// Lists nodes, and the data paths between them that are broken.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let query = Query::new().filters(&arguments.filter)?;
    let nodes = context.client.json(Call::get("/nodes").query(query)).await?;
    let info = context.client.get("/info").await?;
    let format = context.format(arguments.format.as_deref(), "nodesFormat")?;
    list(&nodes, info.text("Swarm.NodeID"))
        .print(&Shape { format: format.as_deref(), quiet: arguments.quiet })?;
    if format.is_none() && !arguments.quiet {
        for node in nodes.list("") {
            for path in node.list("GantryPaths") {
                eprintln!("WARNING: {}", path.text("Detail"));
            }
        }
    }
    Ok(())
}

fn list(nodes: &Value, own: &str) -> List {
    let mut list = List::new(
        &[
            // The star of the own node is as wide as the gap that it would leave.
            ("ID", "_marked"),
            ("HOSTNAME", "Hostname"),
            ("STATUS", "Status"),
            ("AVAILABILITY", "Availability"),
            ("MANAGER STATUS", "ManagerStatus"),
            ("ENGINE VERSION", "EngineVersion"),
        ],
        "ID",
    )
    .with_fields(&[
        ("TLS STATUS", "TLSStatus"),
        ("SELF", "Self"),
        ("PATHS", "Paths"),
        ("ADDRESS", "Address"),
    ]);
    let mut sorted: Vec<&Value> = nodes.list("").iter().collect();
    sorted.sort_by_key(|node| node.text("Description.Hostname"));
    for node in sorted {
        let id = node.text("ID");
        let is_own = id == own;
        let manager = match (node.flag("ManagerStatus.Leader"), node.text("ManagerStatus.Reachability")) {
            (true, _) => "Leader".to_owned(),
            (false, text) => capital(text),
        };
        let paths: Vec<&str> = node.list("GantryPaths").iter().map(|p| p.text("Detail")).collect();
        list.push([
            ("ID", id.to_owned()),
            ("_marked", format!("{id} {}", if is_own { "*" } else { " " })),
            ("Self", is_own.to_string()),
            ("Hostname", node.text("Description.Hostname").to_owned()),
            ("Status", capital(node.text("Status.State"))),
            ("Availability", capital(node.text("Spec.Availability"))),
            ("ManagerStatus", manager),
            ("EngineVersion", node.text("Description.Engine.EngineVersion").to_owned()),
            (
                "TLSStatus",
                if node.text("Description.TLSInfo.TrustRoot").is_empty() { "Unknown" } else { "Ready" }
                    .to_owned(),
            ),
            ("Address", node.text("Status.Addr").to_owned()),
            ("Paths", paths.join("; ")),
        ]);
    }
    list
}

/// The word with a capital first letter.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_own_node_has_a_star() {
        let nodes = json!([{"ID": "b", "Description": {"Hostname": "n2"}, "Status": {"State": "down"}, "Spec": {"Availability": "active"}},
            {"ID": "a", "Description": {"Hostname": "n1"}, "Status": {"State": "ready"}, "Spec": {"Availability": "drain"},
             "ManagerStatus": {"Leader": true, "Reachability": "reachable"}}]);
        let text = list(&nodes, "a").render(&Shape::default()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("a *       n1         Ready     Drain          Leader"), "{text}");
        assert!(lines[2].starts_with("b         n2         Down      Active"), "{text}");
    }
}
