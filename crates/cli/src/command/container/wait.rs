//! `gantry wait`

use crate::client::Query;
use crate::command::container::path;
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Waits for each container and prints its exit code.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.containers, async |name| {
        let answer = context.client.post(path(name, "/wait"), Query::new()).await?;
        Ok(Some(answer.int("StatusCode").to_string()))
    })
    .await
}
