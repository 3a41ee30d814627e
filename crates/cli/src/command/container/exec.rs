//! `gantry exec`

use crate::client::{Call, segment};
use crate::command::container::path;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::session::{self, Ended, Streams};
use crate::syntax::environment;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, default_value_t)]
    user: String,
    /// Working directory inside the container
    #[arg(short, long, default_value_t)]
    workdir: String,
    /// Container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG...]")]
    container_and_command: Vec<String>,
}

/// Runs a command in a container; the exit status is the command's.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let client = &context.client;
    let (container, _) =
        arguments.container_and_command.split_first().ok_or_else(|| Error::invalid("no container"))?;
    if arguments.tty && arguments.interactive && !arguments.detach && !crate::terminal::stdin_is_terminal() {
        return Err(Error::invalid("the input device is not a TTY"));
    }
    let keys = context.detach_keys(arguments.detach_keys.as_deref())?;
    let created = client.json(Call::post(path(container, "/exec")).json(&request(&arguments)?)).await?;
    let id = segment(created.text("Id"));
    let start =
        json!({"Detach": arguments.detach, "Tty": arguments.tty, "ConsoleSize": console_size(arguments.tty)});
    let call = Call::post(format!("/exec/{id}/start")).json(&start);
    if arguments.detach {
        return client.json(call).await.map(drop).map_err(start_status);
    }
    let streams = Streams {
        tty: arguments.tty,
        stdin: arguments.interactive,
        stdout: true,
        stderr: true,
        detach_keys: keys,
    };
    let hijacked = client.hijack(call).await.map_err(start_status)?;
    let sizes = arguments.tty.then(|| session::follow_size(client.clone(), format!("/exec/{id}/resize")));
    let ended = session::run(hijacked, &streams).await?;
    if let Some(task) = sizes {
        task.abort();
    }
    if ended == Ended::Detached {
        eprintln!("read escape sequence");
        return Ok(());
    }
    let state = client.get(format!("/exec/{id}/json")).await?;
    match state.int("ExitCode") {
        0 => Ok(()),
        code => Err(Error::Exit(code.clamp(0, 255) as u8)),
    }
}

fn start_status(error: Error) -> Error {
    let status = crate::error::start_status(error);
    // Docker's exec keeps 1 for what is neither "not found" nor "not executable".
    if status.exit_status() == 125 {
        let Error::WithStatus { error, .. } = status else { return status };
        return *error;
    }
    status
}

fn console_size(tty: bool) -> Value {
    match crate::terminal::size().filter(|_| tty) {
        Some((rows, columns)) => json!([rows, columns]),
        None => Value::Null,
    }
}

fn request(arguments: &Arguments) -> Result<Value> {
    Ok(json!({
        "User": arguments.user,
        "Privileged": arguments.privileged,
        "Tty": arguments.tty,
        "ConsoleSize": console_size(arguments.tty),
        "AttachStdin": arguments.interactive && !arguments.detach,
        "AttachStderr": !arguments.detach,
        "AttachStdout": !arguments.detach,
        "DetachKeys": arguments.detach_keys.clone().unwrap_or_default(),
        "Env": environment::environment(&arguments.env, &arguments.env_file)?,
        "WorkingDir": arguments.workdir,
        "Cmd": arguments.container_and_command.get(1..).unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn flags_after_the_container_belong_to_the_command() {
        let line = Line::parse_from(["exec", "-e", "A=1", "-w", "/w", "web", "ls", "-l", "--help"]);
        let request = request(&line.arguments).unwrap();
        assert_eq!(request["Cmd"], json!(["ls", "-l", "--help"]));
        assert_eq!((request.text("WorkingDir"), request.flag("AttachStdin")), ("/w", false));
        assert!(Line::try_parse_from(["exec", "web"]).is_err());
    }
}
