//! `gantry service rollback`

use crate::client::Query;
use crate::command::inspect::{Kind, object};
use crate::command::service::converge;
use crate::command::service::update::{read_spec, send};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Service
    service: String,
}

/// Goes back to the specification before the last change.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let service = object(Kind::Service, &arguments.service, false, context).await?;
    let query = Query::new().set("version", service.int("Version.Index")).set("rollback", "previous");
    send(service.text("ID"), &read_spec(&service)?, query, None, context).await?;
    table::line(&arguments.service);
    if arguments.detach {
        return Ok(());
    }
    converge::wait(service.text("ID"), arguments.quiet, context).await
}
