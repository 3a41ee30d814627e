//! `gantry import`

use crate::client::{Call, Query, frames::Documents};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::progress::{self, Show};
use clap::Args;
use gantry_model::reference::Reference;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long)]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// File, URL, or - for STDIN
    #[arg(value_name = "file|URL|-")]
    source: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

/// Makes an image of one layer from a tar archive.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let is_url = arguments.source.contains("://");
    let mut query = Query::new()
        .set("fromSrc", if is_url { &arguments.source } else { "-" })
        .option("message", arguments.message)
        .option("platform", arguments.platform);
    if let Some(text) = &arguments.reference {
        let reference = Reference::parse(text).map_err(|e| Error::invalid(e.to_string()))?;
        query = query.set("repo", reference.familiar_name()).option("tag", reference.tag());
    }
    for change in &arguments.change {
        query = query.set("changes", change);
    }
    let call = Call::post("/images/create").query(query);
    let call = match arguments.source.as_str() {
        _ if is_url => call,
        "-" => call.stream(tokio::io::stdin(), "application/x-tar"),
        path => {
            let file = tokio::fs::File::open(path).await.map_err(Error::io(format!("open {path}")))?;
            call.stream(file, "application/x-tar")
        }
    };
    let documents = Documents::new(context.client.send(call).await?.into_body());
    progress::follow(documents, Show::Stdout, |_| {}).await
}
