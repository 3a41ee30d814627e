//! `gantry service rm`

use crate::client::{Call, segment};
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// Removes each service.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.services, async |name| {
        context.client.json(Call::delete(format!("/services/{}", segment(name)))).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
