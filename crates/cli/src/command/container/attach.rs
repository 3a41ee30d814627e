//! `gantry attach`

use crate::client::{Call, Query};
use crate::command::container::path;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::session::{self, Ended, Streams};
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Container
    container: String,
}

/// Joins the terminal to a running container; the exit status is the container's.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let client = &context.client;
    let container = client.get(path(&arguments.container, "/json")).await?;
    if !container.flag("State.Running") {
        return Err(Error::invalid("cannot attach to a stopped container, start it first"));
    }
    if container.flag("State.Paused") {
        return Err(Error::invalid("cannot attach to a paused container, unpause it first"));
    }
    let id = container.text("Id").to_owned();
    let tty = container.flag("Config.Tty");
    let stdin = !arguments.no_stdin && container.flag("Config.OpenStdin");
    let streams = Streams {
        tty,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: context.detach_keys(arguments.detach_keys.as_deref())?,
    };
    let query = Query::new().set("stream", 1).flag("stdin", stdin).set("stdout", 1).set("stderr", 1);
    let waiter = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { client.post(path(&id, "/wait"), Query::new()).await })
    };
    let hijacked = client.hijack(Call::post(path(&id, "/attach")).query(query)).await?;
    let _signals = (arguments.sig_proxy && !tty).then(|| session::proxy_signals(client.clone(), id.clone()));
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
