//! `gantry run`: create, attach, start, wait.

use crate::client::{Call, Hijacked, Query};
use crate::command::container::settings::{CreateRequest, Settings};
use crate::command::container::{create, path};
use crate::context::Context;
use crate::error::{Error, Result, start_status};
use crate::json::At;
use crate::session::{self, Ended, Streams};
use crate::table;
use clap::Args;
use serde_json::Value;
use tokio::task::JoinHandle;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Proxy received signals to the process
    #[arg(long, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Runs a container. The exit status is the container's; 125 when the daemon failed, 126 and 127 when the command could not
/// be run or found.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let settings = &arguments.settings;
    let attached = !arguments.detach;
    if arguments.detach && !settings.attach.is_empty() {
        return Err(
            Error::invalid("conflicting options: cannot specify both --attach and --detach").with_status(125)
        );
    }
    let request = settings.request(attached).map_err(|e| e.with_status(125))?;
    let config = &request.config;
    if attached && config.tty && config.attach_stdin && !crate::terminal::stdin_is_terminal() {
        return Err(Error::invalid("the input device is not a TTY").with_status(1));
    }
    let keys = context.detach_keys(arguments.detach_keys.as_deref()).map_err(|e| e.with_status(125))?;
    let id = create::create(settings, &request, context).await.map_err(|e| e.with_status(125))?;
    if arguments.detach {
        context.client.post(path(&id, "/start"), Query::new()).await.map_err(start_status)?;
        table::line(&id);
        return Ok(());
    }
    let proxy = (arguments.sig_proxy && !config.tty)
        .then(|| session::proxy_signals(context.client.clone(), id.clone()));
    let result = attached_run(&id, &request, keys, context).await;
    if let Some(task) = proxy {
        task.abort();
    }
    result
}

async fn attached_run(
    id: &str,
    request: &CreateRequest,
    detach_keys: Vec<u8>,
    context: &Context,
) -> Result<()> {
    let config = &request.config;
    let streams = Streams {
        tty: config.tty,
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        detach_keys,
    };
    let status_125 = |error: Error| error.with_status(125);
    let hijacked = attach(id, &streams, context).await.map_err(status_125)?;
    let waiter = wait(id, request.host.auto_remove, context).await.map_err(status_125)?;
    context.client.post(path(id, "/start"), Query::new()).await.map_err(start_status)?;
    let sizes = config.tty.then(|| session::follow_size(context.client.clone(), path(id, "/resize")));
    let ended = session::run(hijacked, &streams).await.map_err(status_125)?;
    if let Some(task) = sizes {
        task.abort();
    }
    if ended == Ended::Detached {
        eprintln!("read escape sequence");
        return Ok(());
    }
    let status = waiter.await.map_err(|e| status_125(Error::Stream(e.to_string())))?.map_err(status_125)?;
    let message = status.text("Error.Message");
    if !message.is_empty() {
        return Err(Error::Stream(message.to_owned()).with_status(125));
    }
    match status.int("StatusCode") {
        0 => Ok(()),
        code => Err(Error::Exit(code.clamp(0, 255) as u8)),
    }
}

/// Attaches before the start: no output is missed.
pub async fn attach(id: &str, streams: &Streams, context: &Context) -> Result<Hijacked> {
    let query = Query::new()
        .set("stream", 1)
        .flag("stdin", streams.stdin)
        .flag("stdout", streams.stdout)
        .flag("stderr", streams.stderr);
    context.client.hijack(Call::post(path(id, "/attach")).query(query)).await
}

/// Waits for the next exit, or for the removal, from now on: a container that ends at once is not missed.
pub async fn wait(id: &str, removed: bool, context: &Context) -> Result<JoinHandle<Result<Value>>> {
    use http_body_util::BodyExt;
    let condition = if removed { "removed" } else { "next-exit" };
    let call = Call::post(path(id, "/wait")).query(Query::new().set("condition", condition));
    // The head of the answer says that the daemon watches; the body comes with the exit.
    let response = context.client.send(call).await?;
    Ok(tokio::spawn(async move {
        let act = "wait for the container".to_owned();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|source| Error::Http { act: act.clone(), source })?;
        serde_json::from_slice(&body.to_bytes()).map_err(|source| Error::Answer { act, source })
    }))
}

impl Arguments {
    /// The flags shared with `create`.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
