//! `gantry node ps`

use crate::command::inspect::{Kind, object};
use crate::command::service::tasks;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    view: tasks::View,
    /// Nodes; the own node when none is given
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// Lists the tasks of nodes.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let names = if arguments.nodes.is_empty() { vec!["self".to_owned()] } else { arguments.nodes };
    let mut filters = Vec::new();
    for name in &names {
        let node = object(Kind::Node, name, false, context).await?;
        filters.push(format!("node={}", node.text("ID")));
    }
    tasks::print(&arguments.view, filters, context).await
}
