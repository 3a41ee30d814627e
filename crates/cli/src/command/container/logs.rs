//! `gantry logs`

use crate::client::{Call, Client, Query, frames};
use crate::command::container::path;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::units;
use clap::Args;
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use std::io;
use tokio_util::io::StreamReader;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    until: Option<String>,
    /// Container
    container: String,
}

/// Prints a container's log.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let container = context.client.get(path(&arguments.container, "/json")).await?;
    let now = jiff::Timestamp::now();
    let since = |text: &Option<String>| text.as_deref().map(|t| units::parse_since(t, now)).transpose();
    let query = Query::new()
        .set("stdout", 1)
        .set("stderr", 1)
        .option("since", since(&arguments.since)?)
        .option("until", since(&arguments.until)?)
        .flag("timestamps", arguments.timestamps)
        .flag("follow", arguments.follow)
        .set("tail", &arguments.tail)
        .flag("details", arguments.details);
    let call = Call::get(path(container.text("Id"), "/logs")).query(query);
    print(&context.client, call, container.flag("Config.Tty")).await
}

/// Prints a stream of output.
pub async fn print(client: &Client, call: Call, tty: bool) -> Result<()> {
    let response = client.send(call).await?;
    let stream = response.into_body().into_data_stream().map_err(io::Error::other);
    let reader = StreamReader::new(stream);
    let (stdout, stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let result = if tty {
        frames::copy_raw(reader, stdout).await
    } else {
        frames::copy_framed(reader, stdout, stderr).await
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Exit(141)),
        result => result.map_err(Error::io("read the log")),
    }
}
