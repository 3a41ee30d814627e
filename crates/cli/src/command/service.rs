//! `gantry service …`

pub mod converge;
pub mod create;
pub mod files;
pub mod inspect;
pub mod list;
pub mod logs;
pub mod ps;
pub mod resolve;
pub mod rm;
pub mod rollback;
pub mod scale;
pub mod settings;
pub mod tasks;
pub mod update;

use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of services.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Create a new service
    Create(Box<create::Arguments>),
    /// Display detailed information on one or more services
    Inspect(crate::command::inspect::Typed),
    /// Fetch the logs of a service or task
    Logs(logs::Arguments),
    /// List services
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// List the tasks of one or more services
    Ps(ps::Arguments),
    /// Remove one or more services
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
    /// Revert changes to a service's configuration
    Rollback(rollback::Arguments),
    /// Scale one or multiple replicated services
    Scale(scale::Arguments),
    /// Update a service
    Update(Box<update::Arguments>),
}

impl Service {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Service::Create(arguments) => create::run(*arguments, context).await,
            Service::Inspect(arguments) => inspect::run(arguments, context).await,
            Service::Logs(arguments) => logs::run(arguments, context).await,
            Service::Ls(arguments) => list::run(arguments, context).await,
            Service::Ps(arguments) => ps::run(arguments, context).await,
            Service::Rm(arguments) => rm::run(arguments, context).await,
            Service::Rollback(arguments) => rollback::run(arguments, context).await,
            Service::Scale(arguments) => scale::run(arguments, context).await,
            Service::Update(arguments) => update::run(*arguments, context).await,
        }
    }
}
