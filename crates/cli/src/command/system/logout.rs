//! `gantry logout`

use crate::auth;
use crate::context::Context;
use crate::error::Result;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Registry; Docker Hub when none is given
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Forgets the credentials of a registry.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let server = auth::server_key(arguments.server.as_deref().unwrap_or_default().trim_end_matches('/'));
    let known = context.config()?.forget(&server)?;
    let text = if known { "Removing login credentials for" } else { "Not logged in to" };
    table::line(&format!("{text} {server}"));
    Ok(())
}
