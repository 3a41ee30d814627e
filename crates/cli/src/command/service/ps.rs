//! `gantry service ps`

use crate::command::inspect::{Kind, object};
use crate::command::service::tasks;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    view: tasks::View,
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// Lists the tasks of services.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let mut filters = Vec::new();
    let mut missing = Vec::new();
    for name in &arguments.services {
        match object(Kind::Service, name, false, context).await {
            Ok(service) => filters.push(format!("service={}", service.text("ID"))),
            Err(error) if error.is_not_found() => missing.push(format!("no such service: {name}")),
            Err(error) => return Err(error),
        }
    }
    if !filters.is_empty() {
        tasks::print(&arguments.view, filters, context).await?;
    }
    for text in &missing {
        eprintln!("{text}");
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Several(missing.len())) }
}
