//! `gantry doctor`

use crate::context::Context;
use crate::error::{Error, Result};
use std::process::ExitCode;

/// Arguments.
pub type Arguments = crate::doctor::Args;

/// Looks at the host and the cluster; a finding that fails makes the command fail.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let status = crate::doctor::run(context, &arguments).await?;
    if status == ExitCode::SUCCESS { Ok(()) } else { Err(Error::Exit(1)) }
}
