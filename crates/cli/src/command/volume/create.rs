//! `gantry volume create`

use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::{syntax, table};
use clap::Args;
use gantry_model::volume::VolumeSpec;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long)]
    label: Vec<String>,
    /// Specify volume name
    #[arg(long, hide = true)]
    name: Option<String>,
    /// Set driver specific options
    #[arg(short, long)]
    opt: Vec<String>,
    /// Volume
    #[arg(value_name = "VOLUME")]
    volume: Option<String>,
}

/// Creates a volume and prints its name.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    if arguments.name.is_some() && arguments.volume.is_some() {
        return Err(Error::invalid(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let spec = VolumeSpec {
        name: arguments.name.or(arguments.volume).unwrap_or_default(),
        driver: arguments.driver,
        driver_opts: syntax::map(&arguments.opt),
        labels: syntax::map(&arguments.label),
    };
    let answer = context.client.json(Call::post("/volumes/create").json(&spec)).await?;
    table::line(answer.text("Name"));
    Ok(())
}
