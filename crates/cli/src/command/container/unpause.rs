//! `gantry unpause`

use crate::client::Query;
use crate::command::container::path;
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Unpauses each container.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.containers, async |name| {
        context.client.post(path(name, "/unpause"), Query::new()).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
