//! `gantry swarm join-token`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate join token
    #[arg(long)]
    rotate: bool,
    /// Role
    #[arg(value_name = "worker|manager")]
    role: String,
}

/// Prints, or changes first, the token with which nodes join.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let (role, field) = match arguments.role.as_str() {
        "worker" => ("worker", "Worker"),
        "manager" => ("manager", "Manager"),
        other => return Err(Error::invalid(format!("unknown role {other:?}: expected worker or manager"))),
    };
    if arguments.rotate {
        let swarm = context.client.get("/swarm").await?;
        let flag = if role == "worker" { "rotateWorkerToken" } else { "rotateManagerToken" };
        let query = Query::new().set("version", swarm.int("Version.Index")).set(flag, "true");
        context.client.json(Call::post("/swarm/update").query(query).json(swarm.at("Spec"))).await?;
        if !arguments.quiet {
            table::line(&format!("Successfully rotated {role} join token.\n"));
        }
    }
    if arguments.quiet {
        let swarm = context.client.get("/swarm").await?;
        table::line(swarm.text(&format!("JoinTokens.{field}")));
        return Ok(());
    }
    let command = command(context, field).await?;
    table::line(&format!("To add a {role} to this swarm, run the following command:\n\n    {command}\n"));
    Ok(())
}

/// The command with which a node joins.
pub async fn command(context: &Context, field: &str) -> Result<String> {
    let swarm = context.client.get("/swarm").await?;
    let info = context.client.get("/info").await?;
    let node_id = info.text("Swarm.NodeID");
    let node = context.client.get(format!("/nodes/{}", crate::client::segment(node_id))).await?;
    let address = node.text("ManagerStatus.Addr");
    Ok(format!("gantry swarm join --token {} {address}", swarm.text(&format!("JoinTokens.{field}"))))
}
