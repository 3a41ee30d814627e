//! `gantry network rm`

use crate::client::{Call, segment};
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    /// Networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Removes each network.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.networks, async |name| {
        match context.client.json(Call::delete(format!("/networks/{}", segment(name)))).await {
            Err(error) if arguments.force && error.is_not_found() => Ok(None),
            result => result.map(|_| Some(name.to_owned())),
        }
    })
    .await
}
