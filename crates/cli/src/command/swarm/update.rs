//! `gantry swarm update`

use crate::client::{Call, Query};
use crate::command::swarm::settings::Settings;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;
use gantry_model::swarm::SwarmSpec;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// Changes the settings of the cluster.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let swarm = context.client.get("/swarm").await?;
    let mut spec: SwarmSpec = serde_json::from_value(swarm.at("Spec").clone())
        .map_err(|source| Error::Answer { act: "read the swarm's specification".into(), source })?;
    if !arguments.settings.apply(&mut spec)? {
        return Err(Error::invalid("you must provide one or more flags when using this command"));
    }
    let query = Query::new().set("version", swarm.int("Version.Index"));
    context.client.json(Call::post("/swarm/update").query(query).json(&spec)).await?;
    table::line("Swarm updated.");
    Ok(())
}
