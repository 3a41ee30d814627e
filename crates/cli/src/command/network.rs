//! `gantry network …`

pub mod connect;
pub mod create;
pub mod disconnect;
pub mod list;
pub mod rm;

use crate::command::{inspect, prune};
use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of networks.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Connect a container to a network
    Connect(connect::Arguments),
    /// Create a network
    Create(create::Arguments),
    /// Disconnect a container from a network
    Disconnect(disconnect::Arguments),
    /// Display detailed information on one or more networks
    Inspect(inspect::Typed),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Remove all unused networks
    Prune(prune::Common),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
}

impl Network {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Network::Connect(arguments) => connect::run(arguments, context).await,
            Network::Create(arguments) => create::run(arguments, context).await,
            Network::Disconnect(arguments) => disconnect::run(arguments, context).await,
            Network::Inspect(arguments) => inspect::typed(arguments, inspect::Kind::Network, context).await,
            Network::Ls(arguments) => list::run(arguments, context).await,
            Network::Prune(arguments) => prune::run(arguments, prune::What::Networks, context).await,
            Network::Rm(arguments) => rm::run(arguments, context).await,
        }
    }
}
