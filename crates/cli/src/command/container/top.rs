//! `gantry top`

use crate::client::{Call, Query};
use crate::command::container::path;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Container, then options of ps
    #[arg(required = true, trailing_var_arg = true, value_name = "CONTAINER [ps OPTIONS]")]
    container_and_options: Vec<String>,
}

/// Prints a container's processes.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let (container, options) =
        arguments.container_and_options.split_first().map_or(("", &[][..]), |(c, o)| (c, o));
    let query = Query::new().option("ps_args", (!options.is_empty()).then(|| options.join(" ")));
    let answer = context.client.json(Call::get(path(container, "/top")).query(query)).await?;
    let words = |row: &serde_json::Value| -> Vec<String> {
        row.list("").iter().map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut lines = vec![words(answer.at("Titles"))];
    lines.extend(answer.list("Processes").iter().map(words));
    table::out(&table::align(&lines));
    Ok(())
}
