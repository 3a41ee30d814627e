//! The command line of `gantry-runtime`: global options, then one command in a file of its own.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod go_flags;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

pub use spec::ordinary as ordinary_spec;

use std::{ffi::OsString, io::Write, path::PathBuf};

use lexopt::prelude::*;

use crate::{
    error::{Act, Error, Result},
    log::{self, Format, Log},
    monitor, pid1,
    plan::Manager,
    privilege::Privilege,
    protect,
    state::{DEFAULT_ROOT, Store},
};

/// Options before the command.
#[derive(Debug)]
pub struct Global {
    /// Where state is kept.
    pub store: Store,
    /// Who makes cgroups.
    pub manager: Manager,
    /// The executable that checkpoints and restores.
    pub criu: PathBuf,
}

const USAGE: &str = "\
usage: gantry-runtime [--root DIR] [--log FILE] [--log-format text|json] [--debug] [--systemd-cgroup]
                      [--rootless true|false|auto] [--criu PATH] COMMAND

  create  [--bundle DIR] [--pid-file FILE] [--pidfd-socket SOCKET] [--console-socket SOCKET] [--no-pivot]
          [--no-new-keyring] [--preserve-fds N] ID
  start   ID
  run     [--detach] [--keep] [--no-subreaper] and the options of create ID
  state   ID
  kill    [--all] ID [SIGNAL]
  delete  [--force] ID
  exec    [--process FILE] [--detach] [--tty] [--cwd DIR] [--env NAME=VALUE] [--user UID[:GID]]
          [--additional-gids GID] [--cap CAPABILITY] [--no-new-privs] [--apparmor PROFILE]
          [--process-label LABEL] [--cgroup [CONTROLLER:]PATH] [--ignore-paused] [--preserve-fds N]
          [--pid-file FILE] [--pidfd-socket SOCKET] [--console-socket SOCKET] ID [COMMAND ARGUMENT...]
  list    [--format table|json] [--quiet]
  ps      [--format table|json] ID [PS OPTION...]
  pause | resume ID
  update  [--resources FILE|-] [--memory BYTES] [--memory-reservation BYTES] [--memory-swap BYTES]
          [--cpu-share N] [--cpu-quota US] [--cpu-period US] [--cpu-burst US] [--cpu-rt-runtime US]
          [--cpu-rt-period US] [--cpu-idle 0|1] [--cpuset-cpus LIST] [--cpuset-mems LIST] [--pids-limit N]
          [--blkio-weight N] [--l3-cache-schema TEXT] [--mem-bw-schema TEXT] ID
  events  [--stats] [--interval DURATION] ID
  checkpoint [--image-path DIR] [--work-path DIR] [--parent-path DIR] [--leave-running] [--pre-dump]
          [--tcp-established] [--ext-unix-sk] [--shell-job] [--file-locks] [--lazy-pages] [--status-fd FD]
          [--page-server ADDRESS:PORT] [--manage-cgroups-mode MODE] [--empty-ns KIND] [--auto-dedup] ID
  restore [--bundle DIR] [--detach] [--pid-file FILE] [--lsm-profile TYPE:NAME]
          [--lsm-mount-context CONTEXT] and the options of checkpoint that fit ID
  features
  spec    [--bundle DIR] [--rootless]
  monitor DIR       stay with one container of the engine
  init    [--] COMMAND [ARGUMENT...]    first process of a container: reaps and passes signals on
";

/// Runs the command line and returns the exit code.
pub fn main(all: Vec<OsString>) -> i32 {
    // The reaper runs inside images and must not touch anything: before all else.
    if all.get(1).is_some_and(|word| word == "init") {
        return pid1::run(all[2..].to_vec());
    }
    let mut command = String::new();
    match dispatch(&all, &mut command) {
        Ok(code) => code,
        Err(error) => {
            log::error(&error.chain());
            match error {
                // exec and run speak for the program, which could not be run; the other commands fail plainly.
                _ if matches!(error.exit_code(), 126 | 127) => error.exit_code(),
                // As with runc: any other code could be that of a program.
                _ if command == "exec" => 255,
                _ => 1,
            }
        }
    }
}

fn dispatch(all: &[OsString], name: &mut String) -> Result<i32> {
    let mut global =
        Global { store: Store::new(default_root()), manager: Manager::Files, criu: PathBuf::from("criu") };
    let mut log = Log::default();
    let mut parser = lexopt::Parser::from_args(all.iter().skip(1).cloned());
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Long("root") => global.store = Store::new(crate::state::absolute(&path(&mut parser)?)?),
            Long("log") => log.file = Some(crate::state::absolute(&path(&mut parser)?)?),
            Long("log-format") => log.format = Format::from_name(&text(&mut parser)?)?,
            Long("debug") => log.debug = true,
            Long("log-level") => log.debug = text(&mut parser)? == "debug",
            Long("systemd-cgroup") => global.manager = Manager::Systemd,
            Long("criu") => global.criu = path(&mut parser)?,
            Long("rootless") => check_rootless(&text(&mut parser)?)?,
            Short('h') | Long("help") => {
                print(USAGE)?;
                return Ok(0);
            }
            Short('v') | Long("version") => {
                print(&format!(
                    "gantry-runtime version {}\nspec: {}\n",
                    env!("CARGO_PKG_VERSION"),
                    crate::oci::OCI_VERSION
                ))?;
                return Ok(0);
            }
            Value(command) => {
                *name = command.to_string_lossy().into_owned();
                log::begin(log)?;
                return command_of(name, all, &global, parser);
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    // As with runc, which is asked that way whether it is there.
    print(USAGE)?;
    Ok(0)
}

/// Where state is unless the command line says it; an ordinary user has a folder of his own (XDG Base Directory), also
/// under an engine that has made him root of a user namespace. Who is logged in as root of one, as in a container, is not.
fn default_root() -> PathBuf {
    let Some(own) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) else {
        return PathBuf::from(DEFAULT_ROOT);
    };
    let ordinary = match Privilege::own() {
        Privilege::Root => false,
        Privilege::NamespaceRoot => std::env::var_os("USER").is_none_or(|user| user != "root"),
        Privilege::User => true,
    };
    if ordinary { PathBuf::from(own).join("gantry-runtime") } else { PathBuf::from(DEFAULT_ROOT) }
}

/// What the kernel refuses is found out by trying; the option of runc is understood and changes nothing.
fn check_rootless(value: &str) -> Result<()> {
    match value {
        "auto" | "true" | "false" | "1" | "0" | "t" | "f" | "" => Ok(()),
        other => Err(Error::Usage(format!("--rootless {other:?} is none of true, false and auto"))),
    }
}

fn command_of(command: &str, all: &[OsString], global: &Global, parser: lexopt::Parser) -> Result<i32> {
    if matches!(parser.clone().next(), Ok(Some(Short('h') | Long("help")))) {
        print(USAGE)?;
        return Ok(0);
    }
    if matches!(command, "create" | "run" | "exec" | "monitor") {
        protect::from_overwriting(all)?;
    }
    match command {
        "create" => create::run(global, parser),
        "start" => start::run(global, parser),
        "run" => run::run(global, parser),
        "state" => state::run(global, parser),
        "kill" => kill::run(global, parser),
        "delete" => delete::run(global, parser),
        "exec" => exec::run(global, parser),
        "list" => list::run(global, parser),
        "ps" => ps::run(global, parser),
        "pause" => pause::run(global, parser, pause::Order::Pause),
        "resume" => pause::run(global, parser, pause::Order::Resume),
        "update" => update::run(global, parser),
        "checkpoint" => checkpoint::run(global, parser),
        "restore" => restore::run(global, parser),
        "events" => events::run(global, parser),
        "features" => features::run(parser),
        "spec" => spec::run(parser),
        "help" | "h" => print(USAGE).map(|()| 0),
        "monitor" => monitor::run(&operand(parser, "DIR")?),
        other => Err(Error::Usage(format!("unknown command {other:?}\n{USAGE}"))),
    }
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).act(|| "write to standard output".to_owned())
}

/// The value of an option as text.
pub(crate) fn text(parser: &mut lexopt::Parser) -> Result<String> {
    let value = parser.value().map_err(|error| Error::Usage(error.to_string()))?;
    value.into_string().map_err(|value| Error::Usage(format!("{value:?} is not text")))
}

/// The value of an option as a path.
pub(crate) fn path(parser: &mut lexopt::Parser) -> Result<PathBuf> {
    parser.value().map(PathBuf::from).map_err(|error| Error::Usage(error.to_string()))
}

/// The value of an option as a number.
pub(crate) fn number<T: std::str::FromStr>(parser: &mut lexopt::Parser) -> Result<T> {
    let value = text(parser)?;
    value.parse().map_err(|_| Error::Usage(format!("{value:?} is not a number in range")))
}

/// The next argument.
pub(crate) fn next<'p>(parser: &'p mut lexopt::Parser) -> Result<Option<lexopt::Arg<'p>>> {
    go_flags::translate(parser)?;
    parser.next().map_err(|error| Error::Usage(error.to_string()))
}

/// The only operand of a command without options.
fn operand(mut parser: lexopt::Parser, name: &str) -> Result<String> {
    let mut operand = None;
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Value(value) if operand.is_none() => operand = Some(value.to_string_lossy().into_owned()),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    operand.ok_or_else(|| Error::Usage(format!("{name} is missing")))
}

/// The operand, or a complaint.
pub(crate) fn required(operand: Option<String>, name: &str) -> Result<String> {
    operand.ok_or_else(|| Error::Usage(format!("{name} is missing")))
}
