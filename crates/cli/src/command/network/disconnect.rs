//! `gantry network disconnect`

use crate::client::{Call, segment};
use crate::context::Context;
use crate::error::Result;
use clap::Args;
use serde_json::json;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    /// Network
    network: String,
    /// Container
    container: String,
}

/// Disconnects a container from a network.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let body = json!({"Container": arguments.container, "Force": arguments.force});
    let path = format!("/networks/{}/disconnect", segment(&arguments.network));
    context.client.json(Call::post(path).json(&body)).await.map(drop)
}
