//! `gantry swarm ca`

use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {}

/// Prints the root certificate, by which nodes that join know the cluster.
pub async fn run(_: Arguments, context: &Context) -> Result<()> {
    let swarm = context.client.get("/swarm").await?;
    table::line(swarm.text("TLSInfo.TrustRoot").trim_end());
    Ok(())
}
