//! The commands: which there are, and what they share.

pub mod cluster_data;
pub mod completion;
pub mod container;
pub mod doctor;
pub mod each;
pub mod image;
pub mod inspect;
pub mod network;
pub mod node;
pub mod playground;
pub mod prompt;
pub mod prune;
pub mod service;
pub mod swarm;
pub mod system;
pub mod volume;

use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create and run a new container from an image
    #[command(override_usage = "gantry run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Run(container::run::Arguments),
    /// Execute a command in a running container
    Exec(container::exec::Arguments),
    /// List containers
    Ps(container::ps::Arguments),
    /// Download an image from a registry
    Pull(image::pull::Arguments),
    /// Upload an image to a registry
    Push(image::push::Arguments),
    /// List images
    Images(image::list::Arguments),
    /// Authenticate to a registry
    Login(system::login::Arguments),
    /// Log out from a registry
    Logout(system::logout::Arguments),
    /// Show the version information
    Version(system::version::Arguments),
    /// Display system-wide information
    Info(system::info::Arguments),
    /// Check what this host and this cluster need, and say what is missing
    Doctor(doctor::Arguments),
    /// A cluster of real nodes on this machine, to try things out
    Playground(playground::Arguments),
    /// Manage containers
    #[command(subcommand)]
    Container(container::Container),
    /// Manage images
    #[command(subcommand)]
    Image(image::Image),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Manage Gantry
    #[command(subcommand)]
    System(system::System),
    /// Manage the cluster
    #[command(subcommand)]
    Swarm(swarm::Swarm),
    /// Manage nodes of the cluster
    #[command(subcommand)]
    Node(node::Node),
    /// Manage services of the cluster
    #[command(subcommand)]
    Service(service::Service),
    /// Manage secrets of the cluster
    #[command(subcommand)]
    Secret(cluster_data::Secret),
    /// Manage configs of the cluster
    #[command(subcommand)]
    Config(cluster_data::Config),
    /// Attach local standard input, output, and error streams to a running container
    Attach(container::attach::Arguments),
    /// Create a new image from a container's changes
    Commit(container::commit::Arguments),
    /// Copy files/folders between a container and the local filesystem
    Cp(container::cp::Arguments),
    /// Create a new container
    #[command(override_usage = "gantry create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Create(container::create::Arguments),
    /// Inspect changes to files or directories on a container's filesystem
    Diff(container::diff::Arguments),
    /// Get real time events from the server
    Events(system::events::Arguments),
    /// Export a container's filesystem as a tar archive
    Export(container::export::Arguments),
    /// Show the history of an image
    History(image::history::Arguments),
    /// Import the contents from a tarball to create a filesystem image
    Import(image::import::Arguments),
    /// Return low-level information on Gantry objects
    Inspect(inspect::Arguments),
    /// Kill one or more running containers
    Kill(container::kill::Arguments),
    /// Load an image from a tar archive or STDIN
    Load(image::load::Arguments),
    /// Fetch the logs of a container
    Logs(container::logs::Arguments),
    /// Pause all processes within one or more containers
    Pause(container::pause::Arguments),
    /// List port mappings or a specific mapping for the container
    Port(container::port::Arguments),
    /// Rename a container
    Rename(container::rename::Arguments),
    /// Restart one or more containers
    Restart(container::restart::Arguments),
    /// Remove one or more containers
    Rm(container::rm::Arguments),
    /// Remove one or more images
    Rmi(image::rm::Arguments),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(image::save::Arguments),
    /// Start one or more stopped containers
    Start(container::start::Arguments),
    /// Display a live stream of container(s) resource usage statistics
    Stats(container::stats::Arguments),
    /// Stop one or more running containers
    Stop(container::stop::Arguments),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(image::tag::Arguments),
    /// Display the running processes of a container
    Top(container::top::Arguments),
    /// Unpause all processes within one or more containers
    Unpause(container::unpause::Arguments),
    /// Update configuration of one or more containers
    Update(container::update::Arguments),
    /// Block until one or more containers stop, then print their exit codes
    Wait(container::wait::Arguments),
    /// Print a shell's completion script
    Completion(completion::Arguments),
}

impl Command {
    /// The words of the command, as far as errors need them.
    pub fn full_name(&self) -> String {
        match self {
            Command::Run(_) => "run".to_owned(),
            Command::Create(_) => "create".to_owned(),
            Command::Container(container::Container::Run(_)) => "container run".to_owned(),
            Command::Container(container::Container::Create(_)) => "container create".to_owned(),
            // `Ps(Arguments { … })`: the variant's name is the command's.
            other => {
                let text = format!("{other:?}");
                text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase()
            }
        }
    }

    /// Runs a command that talks to the daemon.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Run(arguments) => container::run::run(arguments, context).await,
            Command::Exec(arguments) => container::exec::run(arguments, context).await,
            Command::Ps(arguments) => container::ps::run(arguments, context).await,
            Command::Pull(arguments) => image::pull::run(arguments, context).await,
            Command::Push(arguments) => image::push::run(arguments, context).await,
            Command::Images(arguments) => image::list::run(arguments, context).await,
            Command::Login(arguments) => system::login::run(arguments, context).await,
            Command::Logout(arguments) => system::logout::run(arguments, context).await,
            Command::Version(arguments) => system::version::run(arguments, context).await,
            Command::Info(arguments) => system::info::run(arguments, context).await,
            Command::Doctor(arguments) => doctor::run(arguments, context).await,
            Command::Playground(arguments) => playground::run(arguments),
            Command::Completion(arguments) => completion::run(&arguments),
            Command::Container(command) => command.run(context).await,
            Command::Image(command) => command.run(context).await,
            Command::Network(command) => command.run(context).await,
            Command::Volume(command) => command.run(context).await,
            Command::System(command) => command.run(context).await,
            Command::Swarm(command) => command.run(context).await,
            Command::Node(command) => command.run(context).await,
            Command::Service(command) => command.run(context).await,
            Command::Secret(command) => command.run(context).await,
            Command::Config(command) => command.run(context).await,
            Command::Attach(arguments) => container::attach::run(arguments, context).await,
            Command::Commit(arguments) => container::commit::run(arguments, context).await,
            Command::Cp(arguments) => container::cp::run(arguments, context).await,
            Command::Create(arguments) => container::create::run(arguments, context).await,
            Command::Diff(arguments) => container::diff::run(arguments, context).await,
            Command::Events(arguments) => system::events::run(arguments, context).await,
            Command::Export(arguments) => container::export::run(arguments, context).await,
            Command::History(arguments) => image::history::run(arguments, context).await,
            Command::Import(arguments) => image::import::run(arguments, context).await,
            Command::Inspect(arguments) => inspect::run(arguments, context).await,
            Command::Kill(arguments) => container::kill::run(arguments, context).await,
            Command::Load(arguments) => image::load::run(arguments, context).await,
            Command::Logs(arguments) => container::logs::run(arguments, context).await,
            Command::Pause(arguments) => container::pause::run(arguments, context).await,
            Command::Port(arguments) => container::port::run(arguments, context).await,
            Command::Rename(arguments) => container::rename::run(arguments, context).await,
            Command::Restart(arguments) => container::restart::run(arguments, context).await,
            Command::Rm(arguments) => container::rm::run(arguments, context).await,
            Command::Rmi(arguments) => image::rm::run(arguments, context).await,
            Command::Save(arguments) => image::save::run(arguments, context).await,
            Command::Start(arguments) => container::start::run(arguments, context).await,
            Command::Stats(arguments) => container::stats::run(arguments, context).await,
            Command::Stop(arguments) => container::stop::run(arguments, context).await,
            Command::Tag(arguments) => image::tag::run(arguments, context).await,
            Command::Top(arguments) => container::top::run(arguments, context).await,
            Command::Unpause(arguments) => container::unpause::run(arguments, context).await,
            Command::Update(arguments) => container::update::run(arguments, context).await,
            Command::Wait(arguments) => container::wait::run(arguments, context).await,
        }
    }
}
