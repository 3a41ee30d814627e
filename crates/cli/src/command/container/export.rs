//! `gantry export`

use crate::client::Call;
use crate::command::container::path;
use crate::command::image::save::to_file_or_stdout;
use crate::context::Context;
use crate::error::Result;
use clap::Args;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container
    container: String,
}

/// Writes a container's file system as a tar archive.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let call = Call::get(path(&arguments.container, "/export"));
    to_file_or_stdout(context, call, arguments.output.as_deref()).await
}
