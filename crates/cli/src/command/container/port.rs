//! `gantry port`

use crate::command::container::path;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Container
    container: String,
    /// Port of the container, with or without its protocol
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

/// Prints where a container's ports are published.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let container = context.client.get(path(&arguments.container, "/json")).await?;
    let wanted =
        arguments.port.as_ref().map(|p| if p.contains('/') { p.clone() } else { format!("{p}/tcp") });
    let mut found = false;
    let ports = container.at("NetworkSettings");
    for (port, bindings) in ports.pairs("Ports") {
        if wanted.as_deref().is_some_and(|wanted| wanted != port) {
            continue;
        }
        for binding in bindings.list("") {
            found = true;
            let ip = binding.text("HostIp");
            let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            let address = format!("{ip}:{}", binding.text("HostPort"));
            let text = if wanted.is_some() { address } else { format!("{port} -> {address}") };
            table::line(&text);
        }
    }
    match wanted {
        Some(port) if !found => Err(Error::NoPort { port, container: arguments.container }),
        _ => Ok(()),
    }
}
