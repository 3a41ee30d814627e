//! `gantry secret …` and `gantry config …`: the two differ in name only.

pub mod create;
pub mod inspect;
pub mod list;
pub mod rm;

use crate::command::inspect::Typed;
use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of secrets.
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Create a secret from a file or STDIN as content
    Create(create::Arguments),
    /// Display detailed information on one or more secrets
    Inspect(Typed),
    /// List secrets
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Remove one or more secrets
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
}

/// Management of configs.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Create a config from a file or STDIN
    Create(create::Arguments),
    /// Display detailed information on one or more configs
    Inspect(Typed),
    /// List configs
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Remove one or more configs
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
}

/// Secret or config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Secret.
    Secret,
    /// Config.
    Config,
}

impl Data {
    /// The path in the API.
    pub fn path(self) -> &'static str {
        match self {
            Data::Secret => "/secrets",
            Data::Config => "/configs",
        }
    }
}

impl Secret {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Secret::Create(arguments) => create::run(arguments, Data::Secret, context).await,
            Secret::Inspect(arguments) => inspect::run(arguments, Data::Secret, context).await,
            Secret::Ls(arguments) => list::run(arguments, Data::Secret, context).await,
            Secret::Rm(arguments) => rm::run(arguments, Data::Secret, context).await,
        }
    }
}

impl Config {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Config::Create(arguments) => create::run(arguments, Data::Config, context).await,
            Config::Inspect(arguments) => inspect::run(arguments, Data::Config, context).await,
            Config::Ls(arguments) => list::run(arguments, Data::Config, context).await,
            Config::Rm(arguments) => rm::run(arguments, Data::Config, context).await,
        }
    }
}
