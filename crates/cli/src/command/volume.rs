//! `gantry volume …`

pub mod create;
pub mod list;
pub mod rm;

use crate::command::{inspect, prune};
use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of volumes.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Create a volume
    Create(create::Arguments),
    /// Display detailed information on one or more volumes
    Inspect(inspect::Typed),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Remove unused local volumes
    Prune(prune::WithAll),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
}

impl Volume {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Volume::Create(arguments) => create::run(arguments, context).await,
            Volume::Inspect(arguments) => inspect::typed(arguments, inspect::Kind::Volume, context).await,
            Volume::Ls(arguments) => list::run(arguments, context).await,
            Volume::Prune(arguments) => prune::run(arguments, prune::What::Volumes, context).await,
            Volume::Rm(arguments) => rm::run(arguments, context).await,
        }
    }
}
