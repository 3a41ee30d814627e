//! `gantry rename`

use crate::client::Query;
use crate::command::container::path;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Container
    container: String,
    /// New name
    new_name: String,
}

/// Renames a container.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let query = Query::new().set("name", arguments.new_name);
    context.client.post(path(&arguments.container, "/rename"), query).await.map(drop)
}
