//! `gantry network connect`

use crate::client::{Call, segment};
use crate::context::Context;
use crate::error::Result;
use crate::syntax;
use crate::syntax::network::NetworkOption;
use clap::Args;
use serde_json::json;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Add network-scoped alias for the container
    #[arg(long)]
    alias: Vec<String>,
    /// Driver options for the network
    #[arg(long)]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway
    #[arg(long, default_value_t, allow_hyphen_values = true)]
    gw_priority: i64,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, default_value_t)]
    ip: String,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, default_value_t)]
    ip6: String,
    /// Add link to another container
    #[arg(long)]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long)]
    link_local_ip: Vec<String>,
    /// Network
    network: String,
    /// Container
    container: String,
}

/// Connects a container to a network.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let option = NetworkOption {
        target: arguments.network.clone(),
        aliases: arguments.alias,
        ip: arguments.ip,
        ip6: arguments.ip6,
        links: arguments.link,
        link_local: arguments.link_local_ip,
        driver_opts: syntax::strict_map("--driver-opt", &arguments.driver_opt)?,
        gateway_priority: arguments.gw_priority,
        mac: String::new(),
    };
    let body = json!({"Container": arguments.container, "EndpointConfig": option.endpoint()});
    let path = format!("/networks/{}/connect", segment(&arguments.network));
    context.client.json(Call::post(path).json(&body)).await.map(drop)
}
