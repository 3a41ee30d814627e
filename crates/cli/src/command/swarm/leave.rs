//! `gantry swarm leave`

use crate::client::Query;
use crate::context::Context;
use crate::error::Result;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Force this node to leave the swarm, ignoring warnings
    #[arg(short, long)]
    force: bool,
}

/// Takes this node out of its cluster.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    context.client.post("/swarm/leave", Query::new().flag("force", arguments.force)).await?;
    table::line("Node left the swarm.");
    Ok(())
}
