//! `gantry commit`

use crate::client::{Call, Query};
use crate::command::container::path;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;
use gantry_model::reference::Reference;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long)]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long)]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
    /// Container
    container: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

/// Makes an image of a container.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let container = context.client.get(path(&arguments.container, "/json")).await?;
    let mut query = Query::new()
        .set("container", &arguments.container)
        .option("author", arguments.author)
        .option("comment", arguments.message)
        .set("pause", u8::from(arguments.pause));
    if let Some(text) = &arguments.reference {
        let reference = Reference::parse(text).map_err(|e| crate::error::Error::invalid(e.to_string()))?;
        query = query.set("repo", reference.familiar_name()).option("tag", reference.tag());
    }
    for change in &arguments.change {
        query = query.set("changes", change);
    }
    let answer = context.client.json(Call::post("/commit").query(query).json(container.at("Config"))).await?;
    table::line(answer.text("Id"));
    Ok(())
}
