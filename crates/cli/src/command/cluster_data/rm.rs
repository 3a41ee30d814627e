//! `gantry secret rm` and `gantry config rm`

use crate::client::{Call, segment};
use crate::command::cluster_data::Data;
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Removes each.
pub async fn run(arguments: Arguments, data: Data, context: &Context) -> Result<()> {
    each(&arguments.names, async |name| {
        context.client.json(Call::delete(format!("{}/{}", data.path(), segment(name)))).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
