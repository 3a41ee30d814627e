//! `gantry node inspect`

use crate::command::inspect::{self, Kind, Typed};
use crate::command::node::list::capital;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use crate::units;
use serde_json::Value;

/// Prints nodes as JSON, or in words with `--pretty`.
pub async fn run(arguments: Typed, context: &Context) -> Result<()> {
    if !arguments.pretty {
        return inspect::typed(arguments, Kind::Node, context).await;
    }
    for name in &arguments.names {
        let node = inspect::object(Kind::Node, name, false, context).await?;
        table::out(&pretty(&node));
    }
    Ok(())
}

fn pretty(node: &Value) -> String {
    let mut out = String::new();
    let mut line =
        |label: &str, value: String| out.push_str(&format!("{:<24}{value}\n", format!("{label}:")));
    line("ID", node.text("ID").to_owned());
    line("Hostname", node.text("Description.Hostname").to_owned());
    for (key, value) in node.pairs("Spec.Labels") {
        line("Label", format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    line("Joined at", units::precise_stamp(node.text("CreatedAt")));
    line("Status", String::new());
    line(" State", capital(node.text("Status.State")));
    line(" Availability", capital(node.text("Spec.Availability")));
    line(" Address", node.text("Status.Addr").to_owned());
    if !node.at("ManagerStatus").is_null() {
        line("Manager Status", String::new());
        line(" Address", node.text("ManagerStatus.Addr").to_owned());
        line(" Raft Status", capital(node.text("ManagerStatus.Reachability")));
        line(" Leader", if node.flag("ManagerStatus.Leader") { "Yes" } else { "No" }.to_owned());
    }
    let paths = node.list("GantryPaths");
    line("Data paths", if paths.is_empty() { "No trouble found".to_owned() } else { String::new() });
    for path in paths {
        line(&format!(" To {}", path.text("Peer")), path.text("Detail").to_owned());
    }
    line("Platform", String::new());
    line(" Operating System", node.text("Description.Platform.OS").to_owned());
    line(" Architecture", node.text("Description.Platform.Architecture").to_owned());
    line("Resources", String::new());
    line(" CPUs", (node.int("Description.Resources.NanoCPUs") / 1_000_000_000).to_string());
    line(" Memory", units::bytes(node.int("Description.Resources.MemoryBytes")));
    let plugins = node.list("Description.Engine.Plugins");
    line("Plugins", String::new());
    for kind in ["Log", "Network", "Volume"] {
        let names: Vec<&str> =
            plugins.iter().filter(|p| p.text("Type") == kind).map(|p| p.text("Name")).collect();
        line(&format!(" {kind}"), names.join(", "));
    }
    line("Engine Version", node.text("Description.Engine.EngineVersion").to_owned());
    out
}
