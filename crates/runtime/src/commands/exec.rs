//! `exec`: runs a further process in a container.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{Global, create, next, number, path, required, text};
use crate::{
    error::{Error, Result},
    exec::{self, Request},
    foreground, launch, null,
    oci::{Process, Spec, User},
    plan::Stdio,
};

#[derive(Default)]
struct Options {
    process: Option<PathBuf>,
    detach: bool,
    tty: bool,
    cwd: Option<String>,
    env: Vec<String>,
    user: Option<String>,
    groups: Vec<u32>,
    caps: Vec<String>,
    no_new_privs: bool,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    preserve_fds: i32,
    id: Option<String>,
    args: Vec<String>,
}

fn parse(mut parser: lexopt::Parser) -> Result<Options> {
    let mut options = Options::default();
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('p') | Long("process") => options.process = Some(path(&mut parser)?),
            Short('d') | Long("detach") => options.detach = true,
            Short('t') | Long("tty") => options.tty = true,
            Long("cwd") => options.cwd = Some(text(&mut parser)?),
            Short('e') | Long("env") => options.env.push(text(&mut parser)?),
            Short('u') | Long("user") => options.user = Some(text(&mut parser)?),
            Short('g') | Long("additional-gids") => options.groups.push(number(&mut parser)?),
            Short('c') | Long("cap") => options.caps.push(text(&mut parser)?),
            Long("no-new-privs") => options.no_new_privs = true,
            Long("pid-file") => options.pid_file = Some(path(&mut parser)?),
            Long("console-socket") => options.console_socket = Some(path(&mut parser)?),
            Long("preserve-fds") => options.preserve_fds = number(&mut parser)?,
            Long("apparmor" | "process-label" | "cgroup") => drop(text(&mut parser)?),
            Long("ignore-paused") => {}
            Value(value) => {
                options.id = Some(value.to_string_lossy().into_owned());
                let rest = parser.raw_args().map_err(|error| Error::Usage(error.to_string()))?;
                options.args = rest.map(|arg| arg.to_string_lossy().into_owned()).collect();
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    Ok(options)
}

fn process_of(options: &Options, of_container: Option<Process>) -> Result<Process> {
    if let Some(file) = &options.process {
        return Ok(Process::load(file)?);
    }
    let mut process = of_container.unwrap_or_default();
    process.args.clone_from(&options.args);
    process.env.extend(options.env.iter().cloned());
    process.terminal = options.tty;
    process.no_new_privileges |= options.no_new_privs;
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &options.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let id = |text: &str| text.parse().map_err(|_| Error::Usage(format!("{user:?} is not UID[:GID]")));
        process.user = User { uid: id(uid)?, gid: id(gid)?, ..User::default() };
    }
    process.user.additional_gids.extend(&options.groups);
    if let Some(sets) = process.capabilities.as_mut() {
        for cap in &options.caps {
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.push(cap.clone());
            }
        }
    }
    Ok(process)
}

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let mut options = parse(parser)?;
    let id = required(options.id.take(), "ID")?;
    let record = global.store.load(&id)?;
    let process = process_of(&options, Spec::load(&record.bundle)?.process)?;
    let terminal = process.terminal;
    if terminal && options.detach && options.console_socket.is_none() {
        return Err(Error::Usage(
            "a process with a terminal needs --console-socket when nobody stays with it".into(),
        ));
    }
    if !terminal {
        null::shield_stdio()?;
    }
    let signals = if options.detach { None } else { Some(foreground::take_signals()?) };
    let mut entered = exec::enter(Request {
        store: &global.store,
        id: &id,
        process,
        stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
        console_size: None,
        preserve_fds: options.preserve_fds,
    })?;
    let mut master = entered.terminal.take();
    if let (Some(socket), Some(terminal)) =
        (&options.console_socket, master.take_if(|_| options.console_socket.is_some()))
    {
        create::hand_over(socket, terminal)?;
    }
    if let Some(file) = &options.pid_file {
        create::write_pid(file, entered.child.pid)?;
    }
    entered.start()?;
    launch::outcome(entered.channel.next())?;
    let Some(signals) = signals else { return Ok(0) };
    Ok(foreground::stay(&entered.child, &signals, master)?.exit_code())
}
