//! `gantry swarm …`

pub mod ca;
pub mod init;
pub mod join;
pub mod join_token;
pub mod leave;
pub mod settings;
pub mod unlock;
pub mod unlock_key;
pub mod update;

use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of the cluster.
#[derive(Debug, Subcommand)]
pub enum Swarm {
    /// Display the root certificate of the cluster
    Ca(ca::Arguments),
    /// Initialize a swarm
    Init(init::Arguments),
    /// Join a swarm as a node and/or manager
    Join(join::Arguments),
    /// Manage join tokens
    JoinToken(join_token::Arguments),
    /// Leave the swarm
    Leave(leave::Arguments),
    /// Unlock swarm
    Unlock(unlock::Arguments),
    /// Manage the unlock key
    UnlockKey(unlock_key::Arguments),
    /// Update the swarm
    Update(update::Arguments),
}

impl Swarm {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Swarm::Ca(arguments) => ca::run(arguments, context).await,
            Swarm::Init(arguments) => init::run(arguments, context).await,
            Swarm::Join(arguments) => join::run(arguments, context).await,
            Swarm::JoinToken(arguments) => join_token::run(arguments, context).await,
            Swarm::Leave(arguments) => leave::run(arguments, context).await,
            Swarm::Unlock(arguments) => unlock::run(arguments, context).await,
            Swarm::UnlockKey(arguments) => unlock_key::run(arguments, context).await,
            Swarm::Update(arguments) => update::run(arguments, context).await,
        }
    }
}
