//! `gantry node promote` and `gantry node demote`

use crate::command::each::each;
use crate::command::node::update::change;
use crate::context::Context;
use crate::error::Result;
use clap::Args;
use gantry_model::node::NodeRole;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Gives each node a role.
pub async fn run(arguments: Arguments, role: NodeRole, context: &Context) -> Result<()> {
    each(&arguments.nodes, async |name| {
        let had = std::cell::Cell::new(false);
        change(name, context, |spec| {
            had.set(spec.role == role);
            spec.role = role;
            Ok(())
        })
        .await?;
        let text = match (role, had.get()) {
            (NodeRole::Manager, true) => format!("Node {name} is already a manager."),
            (NodeRole::Worker, true) => format!("Node {name} is already a worker."),
            (NodeRole::Manager, false) => format!("Node {name} promoted to a manager in the swarm."),
            (NodeRole::Worker, false) => format!("Manager {name} demoted in the swarm."),
        };
        Ok(Some(text))
    })
    .await
}
