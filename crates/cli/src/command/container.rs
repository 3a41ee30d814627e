//! `gantry container …`

pub mod attach;
pub mod commit;
pub mod cp;
pub mod create;
pub mod diff;
pub mod exec;
pub mod export;
pub mod kill;
pub mod logs;
pub mod pause;
pub mod port;
pub mod ps;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod run;
pub mod settings;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod unpause;
pub mod update;
pub mod wait;

use crate::client::segment;
use crate::command::{inspect, prune};
use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of containers.
#[derive(Debug, Subcommand)]
pub enum Container {
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Arguments),
    /// Create a new image from a container's changes
    Commit(commit::Arguments),
    /// Copy files/folders between a container and the local filesystem
    Cp(cp::Arguments),
    /// Create a new container
    #[command(override_usage = "gantry container create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Create(create::Arguments),
    /// Inspect changes to files or directories on a container's filesystem
    Diff(diff::Arguments),
    /// Execute a command in a running container
    Exec(exec::Arguments),
    /// Export a container's filesystem as a tar archive
    Export(export::Arguments),
    /// Display detailed information on one or more containers
    Inspect(inspect::Typed),
    /// Kill one or more running containers
    Kill(kill::Arguments),
    /// Fetch the logs of a container
    Logs(logs::Arguments),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Arguments),
    /// Pause all processes within one or more containers
    Pause(pause::Arguments),
    /// List port mappings or a specific mapping for the container
    Port(port::Arguments),
    /// Remove all stopped containers
    Prune(prune::Common),
    /// Rename a container
    Rename(rename::Arguments),
    /// Restart one or more containers
    Restart(restart::Arguments),
    /// Remove one or more containers
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
    /// Create and run a new container from an image
    #[command(override_usage = "gantry container run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Run(run::Arguments),
    /// Start one or more stopped containers
    Start(start::Arguments),
    /// Display a live stream of container(s) resource usage statistics
    Stats(stats::Arguments),
    /// Stop one or more running containers
    Stop(stop::Arguments),
    /// Display the running processes of a container
    Top(top::Arguments),
    /// Unpause all processes within one or more containers
    Unpause(unpause::Arguments),
    /// Update configuration of one or more containers
    Update(update::Arguments),
    /// Block until one or more containers stop, then print their exit codes
    Wait(wait::Arguments),
}

impl Container {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Container::Attach(arguments) => attach::run(arguments, context).await,
            Container::Commit(arguments) => commit::run(arguments, context).await,
            Container::Cp(arguments) => cp::run(arguments, context).await,
            Container::Create(arguments) => create::run(arguments, context).await,
            Container::Diff(arguments) => diff::run(arguments, context).await,
            Container::Exec(arguments) => exec::run(arguments, context).await,
            Container::Export(arguments) => export::run(arguments, context).await,
            Container::Inspect(arguments) => {
                inspect::typed(arguments, inspect::Kind::Container, context).await
            }
            Container::Kill(arguments) => kill::run(arguments, context).await,
            Container::Logs(arguments) => logs::run(arguments, context).await,
            Container::Ls(arguments) => ps::run(arguments, context).await,
            Container::Pause(arguments) => pause::run(arguments, context).await,
            Container::Port(arguments) => port::run(arguments, context).await,
            Container::Prune(arguments) => prune::run(arguments, prune::What::Containers, context).await,
            Container::Rename(arguments) => rename::run(arguments, context).await,
            Container::Restart(arguments) => restart::run(arguments, context).await,
            Container::Rm(arguments) => rm::run(arguments, context).await,
            Container::Run(arguments) => run::run(arguments, context).await,
            Container::Start(arguments) => start::run(arguments, context).await,
            Container::Stats(arguments) => stats::run(arguments, context).await,
            Container::Stop(arguments) => stop::run(arguments, context).await,
            Container::Top(arguments) => top::run(arguments, context).await,
            Container::Unpause(arguments) => unpause::run(arguments, context).await,
            Container::Update(arguments) => update::run(arguments, context).await,
            Container::Wait(arguments) => wait::run(arguments, context).await,
        }
    }
}

/// The path of a container, or of something below it.
pub fn path(container: &str, below: &str) -> String {
    format!("/containers/{}{below}", segment(container))
}
