//! `gantry start`

use crate::client::Query;
use crate::command::container::{path, run as run_command};
use crate::command::each::each;
use crate::context::Context;
use crate::error::{Error, Result, start_status};
use crate::json::At;
use crate::session::{self, Ended, Streams};
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Starts each container, or one with the terminal joined to it.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    if !arguments.attach && !arguments.interactive {
        return each(&arguments.containers, async |name| {
            context.client.post(path(name, "/start"), Query::new()).await?;
            Ok(Some(name.to_owned()))
        })
        .await;
    }
    let [name] = arguments.containers.as_slice() else {
        return Err(Error::invalid("you cannot start and attach multiple containers at once"));
    };
    let client = &context.client;
    let container = client.get(path(name, "/json")).await?;
    let id = container.text("Id").to_owned();
    let tty = container.flag("Config.Tty");
    let streams = Streams {
        tty,
        stdin: arguments.interactive && container.flag("Config.OpenStdin"),
        stdout: true,
        stderr: true,
        detach_keys: context.detach_keys(arguments.detach_keys.as_deref())?,
    };
    let _signals = (!tty).then(|| session::proxy_signals(client.clone(), id.clone()));
    let hijacked = run_command::attach(&id, &streams, context).await?;
    let waiter = run_command::wait(&id, container.flag("HostConfig.AutoRemove"), context).await?;
    client.post(path(&id, "/start"), Query::new()).await.map_err(start_status)?;
    let _sizes = tty.then(|| session::follow_size(client.clone(), path(&id, "/resize")));
    if session::run(hijacked, &streams).await? == Ended::Detached {
        eprintln!("read escape sequence");
        return Ok(());
    }
    let status = waiter.await.map_err(|e| Error::Stream(e.to_string()))??;
    match status.int("StatusCode") {
        0 => Ok(()),
        code => Err(Error::Exit(code.clamp(0, 255) as u8)),
    }
}
