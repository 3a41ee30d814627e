//! `gantry swarm join`

use crate::client::Call;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;
use serde_json::json;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, default_value_t)]
    advertise_addr: String,
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, default_value = "active")]
    availability: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value_t)]
    data_path_addr: String,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Token for entry into the swarm
    #[arg(long, default_value_t)]
    token: String,
    /// Address of a manager
    #[arg(value_name = "HOST:PORT")]
    remote: String,
}

/// Makes this node a member of a cluster.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let body = json!({
        "JoinToken": arguments.token,
        "ListenAddr": arguments.listen_addr,
        "AdvertiseAddr": arguments.advertise_addr,
        "DataPathAddr": arguments.data_path_addr,
        "RemoteAddrs": [arguments.remote],
        "Availability": arguments.availability,
    });
    context.client.json(Call::post("/swarm/join").json(&body)).await?;
    let info = context.client.get("/info").await?;
    let role = if info.flag("Swarm.ControlAvailable") { "manager" } else { "worker" };
    table::line(&format!("This node joined a swarm as a {role}."));
    Ok(())
}
