//! `gantry system …`, and what concerns the daemon or a registry as a whole.

pub mod df;
pub mod events;
pub mod info;
pub mod login;
pub mod logout;
pub mod version;

use crate::command::prune;
use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of the daemon.
#[derive(Debug, Subcommand)]
pub enum System {
    /// Show disk usage
    Df(df::Arguments),
    /// Get real time events from the server
    Events(events::Arguments),
    /// Display system-wide information
    Info(info::Arguments),
    /// Remove unused data
    Prune(prune::WithVolumes),
}

impl System {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            System::Df(arguments) => df::run(arguments, context).await,
            System::Events(arguments) => events::run(arguments, context).await,
            System::Info(arguments) => info::run(arguments, context).await,
            System::Prune(arguments) => prune::run(arguments, prune::What::System, context).await,
        }
    }
}
