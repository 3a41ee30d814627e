//! `gantry node …`

pub mod inspect;
pub mod list;
pub mod ps;
pub mod rm;
pub mod role;
pub mod update;

use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;
use gantry_model::node::NodeRole;

/// Management of nodes.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Demote one or more nodes from manager in the swarm
    Demote(role::Arguments),
    /// Display detailed information on one or more nodes
    Inspect(crate::command::inspect::Typed),
    /// List nodes in the swarm
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Promote one or more nodes to manager in the swarm
    Promote(role::Arguments),
    /// List tasks running on one or more nodes, defaults to current node
    Ps(ps::Arguments),
    /// Remove one or more nodes from the swarm
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
    /// Update a node
    Update(update::Arguments),
}

impl Node {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Node::Demote(arguments) => role::run(arguments, NodeRole::Worker, context).await,
            Node::Inspect(arguments) => inspect::run(arguments, context).await,
            Node::Ls(arguments) => list::run(arguments, context).await,
            Node::Promote(arguments) => role::run(arguments, NodeRole::Manager, context).await,
            Node::Ps(arguments) => ps::run(arguments, context).await,
            Node::Rm(arguments) => rm::run(arguments, context).await,
            Node::Update(arguments) => update::run(arguments, context).await,
        }
    }
}
