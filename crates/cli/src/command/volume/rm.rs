//! `gantry volume rm`

use crate::client::{Call, Query, segment};
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    /// Volumes
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Removes each volume.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.volumes, async |name| {
        let query = Query::new().flag("force", arguments.force);
        context.client.json(Call::delete(format!("/volumes/{}", segment(name))).query(query)).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
