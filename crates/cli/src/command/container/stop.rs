//! `gantry stop`

use crate::client::Query;
use crate::command::container::path;
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, visible_alias = "time", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stops each container.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.containers, async |name| {
        let query = Query::new().option("t", arguments.timeout).option("signal", arguments.signal.as_deref());
        context.client.post(path(name, "/stop"), query).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
