//! `exec`: runs a further process in a container.

use std::{os::fd::OwnedFd, path::PathBuf};

use lexopt::prelude::*;

use super::{Global, create, next, number, path, required, text};
use crate::{
    error::{Error, Result},
    exec::{self, Entered, Request, SubGroups, WhenPaused},
    foreground,
    inherited::Inherited,
    null,
    oci::Process,
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
    apparmor: Option<String>,
    label: Option<String>,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    preserve_fds: u16,
    cgroups: Vec<String>,
    ignore_paused: bool,
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
            Long("pidfd-socket") => options.pidfd_socket = Some(path(&mut parser)?),
            Long("preserve-fds") => options.preserve_fds = number(&mut parser)?,
            Long("apparmor") => options.apparmor = Some(text(&mut parser)?),
            Long("process-label") => options.label = Some(text(&mut parser)?),
            Long("cgroup") => options.cgroups.push(text(&mut parser)?),
            Long("ignore-paused") => options.ignore_paused = true,
            Value(value) => {
                options.id = Some(value.to_string_lossy().into_owned());
                let rest = parser.raw_args().map_err(|error| Error::Usage(error.to_string()))?;
                options.args = rest.map(|arg| arg.to_string_lossy().into_owned()).collect();
                // `exec ID -- COMMAND`, as many write it.
                if options.args.first().is_some_and(|arg| arg == "--") {
                    options.args.remove(0);
                }
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
    if options.args.is_empty() {
        return Err(Error::Usage("COMMAND is missing: give one, or a file with --process".into()));
    }
    let mut process = of_container.unwrap_or_default();
    process.args.clone_from(&options.args);
    process.env.extend(options.env.iter().cloned());
    process.terminal = options.tty;
    process.no_new_privileges |= options.no_new_privs;
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(profile) = &options.apparmor {
        process.apparmor_profile = Some(profile.clone());
    }
    if let Some(label) = &options.label {
        process.selinux_label = Some(label.clone());
    }
    if let Some(user) = &options.user {
        // What is not given stays as the container has it.
        let id = |text: &str| text.parse().map_err(|_| Error::Usage(format!("{user:?} is not UID[:GID]")));
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        process.user.uid = id(uid)?;
        if let Some(gid) = gid {
            process.user.gid = id(gid)?;
        }
    }
    process.user.additional_gids.extend(&options.groups);
    if !options.caps.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for cap in &options.caps {
            // Not inheritable, and so not ambient (CVE-2022-29162).
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
    let spec = global.store.config(&record)?;
    let process = process_of(&options, spec.process.clone())?;
    let terminal = process.terminal;
    if terminal && options.detach && options.console_socket.is_none() {
        return Err(Error::Usage(
            "a process with a terminal needs --console-socket when nobody stays with it".into(),
        ));
    }
    if !terminal && options.console_socket.is_some() {
        return Err(Error::Usage("--console-socket is for processes with a terminal".into()));
    }
    if !terminal {
        null::shield_stdio()?;
    }
    let signals = if options.detach { None } else { Some(foreground::take_signals()?) };
    let mut entered = exec::enter(Request {
        record: &record,
        spec: &spec,
        process,
        stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
        console_size: None,
        inherited: Inherited::take(options.preserve_fds)?,
        cgroups: SubGroups::parse(&options.cgroups)?,
        when_paused: if options.ignore_paused { WhenPaused::Wait } else { WhenPaused::Refuse },
    })?;
    let master = entered.terminal.take();
    let master = match start(&options, &entered, master) {
        Ok(master) => master,
        Err(error) => {
            entered.undo();
            return Err(error);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    Ok(foreground::stay(&entered.child, &signals, master, None)?.exit_code())
}

/// Tells whoever wants to know of the process and lets its program run; what is left of the terminal is for the caller.
fn start(options: &Options, entered: &Entered, master: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    if let Some(socket) = &options.pidfd_socket {
        create::send_pidfd(socket, &entered.child)?;
    }
    let left = match (&options.console_socket, master) {
        (Some(socket), Some(master)) => {
            create::hand_over(socket, master)?;
            None
        }
        (_, master) => master,
    };
    if let Some(file) = &options.pid_file {
        create::write_pid(file, entered.child.pid)?;
    }
    entered.start()?;
    Ok(left)
}
