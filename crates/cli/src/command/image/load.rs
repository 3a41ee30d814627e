//! `gantry load`

use crate::client::{Call, Query, frames::Documents};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::progress::{self, Show};
use clap::Args;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only the given platform variant
    #[arg(long)]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

/// Loads images of an archive.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let query = Query::new()
        .set("quiet", u8::from(arguments.quiet || !crate::terminal::stdout_is_terminal()))
        .option("platform", arguments.platform);
    let call = Call::post("/images/load").query(query);
    let call = match &arguments.input {
        Some(path) => {
            let file =
                tokio::fs::File::open(path).await.map_err(Error::io(format!("open {}", path.display())))?;
            call.stream(file, "application/x-tar")
        }
        None if crate::terminal::stdin_is_terminal() => {
            return Err(Error::invalid("requested load from stdin, but stdin is empty"));
        }
        None => call.stream(tokio::io::stdin(), "application/x-tar"),
    };
    let documents = Documents::new(context.client.send(call).await?.into_body());
    progress::follow(documents, Show::Stdout, |_| {}).await
}
