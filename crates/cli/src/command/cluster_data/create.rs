//! `gantry secret create` and `gantry config create`

use crate::client::Call;
use crate::command::cluster_data::Data;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::{syntax, table};
use base64::Engine as _;
use clap::Args;
use gantry_model::secret::DataSpec;
use gantry_model::service::LogDriver;
use std::io::{Read, stdin};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Driver that keeps the content (secrets only)
    #[arg(short, long)]
    driver: Option<String>,
    /// Labels
    #[arg(short, long)]
    label: Vec<String>,
    /// Template driver
    #[arg(long)]
    template_driver: Option<String>,
    /// Name
    name: String,
    /// File, or - for STDIN
    #[arg(value_name = "file|-")]
    source: String,
}

/// Keeps the content of a file in the cluster.
pub async fn run(arguments: Arguments, data: Data, context: &Context) -> Result<()> {
    let content = match arguments.source.as_str() {
        "-" => {
            let mut bytes = Vec::new();
            stdin().read_to_end(&mut bytes).map_err(Error::io("read STDIN"))?;
            bytes
        }
        path => std::fs::read(path).map_err(Error::io(format!("read {path}")))?,
    };
    let spec = DataSpec {
        name: arguments.name,
        labels: syntax::map(&arguments.label),
        data: base64::engine::general_purpose::STANDARD.encode(content),
        driver: arguments.driver.map(|name| LogDriver { name, ..LogDriver::default() }),
        templating: arguments.template_driver.map(|name| LogDriver { name, ..LogDriver::default() }),
    };
    let answer = context.client.json(Call::post(format!("{}/create", data.path())).json(&spec)).await?;
    table::line(answer.text("ID"));
    Ok(())
}
