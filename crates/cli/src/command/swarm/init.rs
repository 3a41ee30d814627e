//! `gantry swarm init`

use crate::client::Call;
use crate::command::swarm::join_token;
use crate::command::swarm::settings::Settings;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;
use gantry_model::swarm::SwarmSpec;
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
    /// Port number to use for data path traffic (1024 - 49151)
    #[arg(long, default_value_t)]
    data_path_port: u32,
    /// Default address pool in CIDR format
    #[arg(long)]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Force create a new cluster from current state
    #[arg(long)]
    force_new_cluster: bool,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    #[command(flatten)]
    settings: Settings,
}

/// Makes this node the first manager of a new cluster.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let mut spec = SwarmSpec { name: "default".to_owned(), ..SwarmSpec::default() };
    arguments.settings.apply(&mut spec)?;
    let body = json!({
        "ListenAddr": arguments.listen_addr,
        "AdvertiseAddr": arguments.advertise_addr,
        "DataPathAddr": arguments.data_path_addr,
        "DataPathPort": arguments.data_path_port,
        "DefaultAddrPool": arguments.default_addr_pool,
        "SubnetSize": arguments.default_addr_pool_mask_length,
        "ForceNewCluster": arguments.force_new_cluster,
        "Availability": arguments.availability,
        "Spec": spec,
    });
    let answer = context.client.json(Call::post("/swarm/init").json(&body)).await?;
    let node = answer.as_str().unwrap_or_default();
    table::line(&format!("Swarm initialized: current node ({node}) is now a manager.\n"));
    table::line("To add a worker to this swarm, run the following command:\n");
    table::line(&format!("    {}\n", join_token::command(context, "Worker").await?));
    table::line(
        "To add a manager to this swarm, run 'gantry swarm join-token manager' and follow the instructions.\n",
    );
    if spec.encryption_config.auto_lock_managers {
        let key = context.client.get("/swarm/unlockkey").await?;
        crate::command::swarm::unlock_key::explain(key.text("UnlockKey"));
    }
    Ok(())
}
