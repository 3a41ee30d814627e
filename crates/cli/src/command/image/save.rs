//! `gantry save`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::{Error, Result};
use clap::Args;
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio_util::io::StreamReader;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only the given platform variant
    #[arg(long)]
    platform: Option<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Writes images as a tar archive.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let mut query = Query::new();
    for image in &arguments.images {
        query = query.set("names", image);
    }
    let query = query.option("platform", arguments.platform);
    to_file_or_stdout(context, Call::get("/images/get").query(query), arguments.output.as_deref()).await
}

/// Writes an answer to a file or to stdout; never to a terminal. The file appears whole or not at all.
pub async fn to_file_or_stdout(context: &Context, call: Call, output: Option<&Path>) -> Result<()> {
    if output.is_none() && crate::terminal::stdout_is_terminal() {
        return Err(Error::invalid("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let response = context.client.send(call).await?;
    let mut reader = StreamReader::new(response.into_body().into_data_stream().map_err(io::Error::other));
    let Some(path) = output else {
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut reader, &mut stdout).await.map_err(Error::io("write the archive to STDOUT"))?;
        return stdout.flush().await.map_err(Error::io("write the archive to STDOUT"));
    };
    let act = format!("write the archive to {}", path.display());
    // A device or a pipe is written as it is; a file is replaced.
    let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
    let target = if special { path.to_owned() } else { partial_name(path) };
    let copied = async {
        let mut file = tokio::fs::File::create(&target).await?;
        tokio::io::copy(&mut reader, &mut file).await?;
        file.flush().await?;
        if !special {
            file.sync_all().await?;
            tokio::fs::rename(&target, path).await?;
        }
        Ok(())
    }
    .await;
    if copied.is_err() && !special {
        let _ = std::fs::remove_file(&target);
    }
    copied.map_err(Error::io(act))
}

fn partial_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}
