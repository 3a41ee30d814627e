//! `gantry diff`

use crate::command::container::path;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Container
    container: String,
}

/// Prints what changed in a container's file system.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let changes = context.client.get(path(&arguments.container, "/changes")).await?;
    for change in changes.list("") {
        let kind = ["C", "A", "D"].get(change.int("Kind") as usize).unwrap_or(&"?");
        table::line(&format!("{kind} {}", change.text("Path")));
    }
    Ok(())
}
