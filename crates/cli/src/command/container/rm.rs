//! `gantry rm`

use crate::client::{Call, Query};
use crate::command::container::path;
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Removes each container. With `--force` a container that does not exist is no failure, as with `rm -f`.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.containers, async |name| {
        let name = name.trim_matches('/');
        let query = Query::new()
            .flag("force", arguments.force)
            .flag("link", arguments.link)
            .flag("v", arguments.volumes);
        match context.client.json(Call::delete(path(name, "")).query(query)).await {
            Err(error) if arguments.force && error.is_not_found() => {
                eprintln!("{}", error.sentence());
                Ok(None)
            }
            result => result.map(|_| Some(name.to_owned())),
        }
    })
    .await
}
