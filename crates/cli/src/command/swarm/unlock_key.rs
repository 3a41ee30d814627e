//! `gantry swarm unlock-key`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate unlock key
    #[arg(long)]
    rotate: bool,
}

/// Prints, or changes first, the key that unlocks managers.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    if arguments.rotate {
        let swarm = context.client.get("/swarm").await?;
        if !swarm.flag("Spec.EncryptionConfig.AutoLockManagers") {
            return Err(Error::invalid("cannot rotate because autolock is not turned on"));
        }
        let query =
            Query::new().set("version", swarm.int("Version.Index")).set("rotateManagerUnlockKey", "true");
        context.client.json(Call::post("/swarm/update").query(query).json(swarm.at("Spec"))).await?;
        if !arguments.quiet {
            table::line("Successfully rotated manager unlock key.\n");
        }
    }
    let answer = context.client.get("/swarm/unlockkey").await?;
    match answer.text("UnlockKey") {
        "" => Err(Error::NoUnlockKey),
        key if arguments.quiet => {
            table::line(key);
            Ok(())
        }
        key => {
            explain(key);
            Ok(())
        }
    }
}

/// Prints the key with what it is for.
pub fn explain(key: &str) {
    table::line(&format!(
        "To unlock a swarm manager after it restarts, run the `gantry swarm unlock`\ncommand and provide the following key:\n\n    {key}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager."
    ));
}
