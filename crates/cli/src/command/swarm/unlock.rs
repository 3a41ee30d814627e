//! `gantry swarm unlock`

use crate::client::Call;
use crate::command::prompt;
use crate::context::Context;
use crate::error::Result;
use clap::Args;
use serde_json::json;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {}

/// Asks for the unlock key and unlocks a locked manager.
pub async fn run(_: Arguments, context: &Context) -> Result<()> {
    let key = prompt::secret("Please enter unlock key: ")?;
    context.client.json(Call::post("/swarm/unlock").json(&json!({"UnlockKey": key.trim()}))).await.map(drop)
}
