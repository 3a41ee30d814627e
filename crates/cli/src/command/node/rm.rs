//! `gantry node rm`

use crate::client::{Call, Query, segment};
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Force remove a node from the swarm
    #[arg(short, long)]
    force: bool,
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Removes each node.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.nodes, async |name| {
        let query = Query::new().flag("force", arguments.force);
        context.client.json(Call::delete(format!("/nodes/{}", segment(name))).query(query)).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
