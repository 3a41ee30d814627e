//! `create`: makes a container that waits for `start`.

use std::{
    fs,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use gantry_linux::process::Child;
use lexopt::prelude::*;

use super::{Global, next, number, path, required};
use crate::{
    channel,
    error::{Act, Error, Result},
    inherited::Inherited,
    launch::{self, Created},
    notify, null,
    oci::Spec,
    plan::{Choices, Gate, Keyring, Stdio},
    start_socket,
    state::{Owner, absolute},
};

/// Whose options are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `create`: nobody stays with the container.
    Create,
    /// `run`: has options of its own.
    Run,
}

/// Options of `create`, shared with `run`.
#[derive(Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: PathBuf,
    /// Where the pid goes.
    pub pid_file: Option<PathBuf>,
    /// Where the terminal's master goes.
    pub console_socket: Option<PathBuf>,
    /// Where the pidfd goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Do not use pivot_root.
    pub no_pivot: bool,
    /// Descriptors kept beyond the third.
    pub preserve_fds: u16,
    /// Session keyring.
    pub keyring: Keyring,
    /// Return after the start.
    pub detach: bool,
    /// Do not delete at the end.
    pub keep: bool,
    /// Name of the container.
    pub id: String,
}

impl Options {
    /// Reads them.
    pub fn parse(command: Command, mut parser: lexopt::Parser) -> Result<Options> {
        let mut options = Options {
            bundle: PathBuf::from("."),
            pid_file: None,
            console_socket: None,
            pidfd_socket: None,
            no_pivot: false,
            preserve_fds: 0,
            keyring: Keyring::New,
            // Nobody stays with a created container.
            detach: command == Command::Create,
            keep: false,
            id: String::new(),
        };
        let mut id = None;
        while let Some(argument) = next(&mut parser)? {
            match argument {
                Short('b') | Long("bundle") => options.bundle = path(&mut parser)?,
                Long("pid-file") => options.pid_file = Some(path(&mut parser)?),
                Long("console-socket") => options.console_socket = Some(path(&mut parser)?),
                Long("no-pivot") => options.no_pivot = true,
                Long("no-new-keyring") => options.keyring = Keyring::Inherited,
                // A foreground run reaps its child only, and leaves orphans to the host's own reaper.
                Long("no-subreaper") if command == Command::Run => {}
                Long("pidfd-socket") => options.pidfd_socket = Some(path(&mut parser)?),
                Long("preserve-fds") => options.preserve_fds = number(&mut parser)?,
                Short('d') | Long("detach") if command == Command::Run => options.detach = true,
                Long("keep") if command == Command::Run => options.keep = true,
                Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
                other => return Err(Error::Usage(other.unexpected().to_string())),
            }
        }
        options.id = required(id, "ID")?;
        options.bundle = absolute(&options.bundle)?;
        Ok(options)
    }

    /// Standard descriptors of the program.
    pub fn stdio(&self, spec: &Spec) -> Result<Stdio> {
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        if terminal && (self.detach && self.console_socket.is_none()) {
            return Err(Error::Usage(
                "a container with a terminal needs --console-socket when nobody stays with it".into(),
            ));
        }
        if !terminal && self.console_socket.is_some() {
            return Err(Error::Usage("--console-socket is for containers with a terminal".into()));
        }
        if terminal {
            return Ok(Stdio::Terminal);
        }
        null::shield_stdio()?;
        Ok(Stdio::Inherit)
    }

    /// The rest of what a launch needs.
    pub fn choices(&self, global: &Global, spec: &Spec, gate: Gate) -> Result<Choices> {
        Ok(Choices {
            overlay: None,
            stdio: self.stdio(spec)?,
            gate,
            console_size: None,
            inherited: Inherited::take(self.preserve_fds)?,
            keyring: self.keyring,
            no_pivot: self.no_pivot,
            manager: global.manager,
        })
    }

    /// Writes the pid file and hands the terminal over; what is left of the terminal is for the caller.
    pub fn publish(&self, child: &Child, terminal: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
        if let Some(socket) = &self.pidfd_socket {
            send_pidfd(socket, child)?;
        }
        if let Some(file) = &self.pid_file {
            write_pid(file, child.pid)?;
        }
        match (&self.console_socket, terminal) {
            (Some(socket), Some(master)) => {
                hand_over(socket, master)?;
                Ok(None)
            }
            (_, terminal) => Ok(terminal),
        }
    }
}

/// Reads the configuration of the bundle, and adds what the runtime's caller wants of the container's start.
pub fn configuration(global: &Global, options: &Options) -> Result<Spec> {
    let mut spec = Spec::load(&options.bundle)?;
    if notify::of_caller().is_some() {
        notify::prepare(&global.store.folder(&options.id), &mut spec)?;
    }
    Ok(spec)
}

/// Sends the pidfd to whoever listens at a socket.
pub fn send_pidfd(socket: &Path, child: &Child) -> Result<()> {
    let words = || format!("send the pidfd to socket {}", socket.display());
    let connection = start_socket::connect_path(socket).act(words)?;
    channel::send(connection.as_fd(), b"pidfd", Some(child.pidfd.as_fd())).act(words)
}

/// Writes a pid file, whole or not at all. The folder may be anybody's, such as /tmp: no file and no link that is there already is
/// written to, and each process has a name of its own.
pub fn write_pid(file: &Path, pid: i32) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.{}", std::process::id()));
    // Of a process that was killed here.
    let _ = fs::remove_file(&temporary);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        // The failure that is being told matters more than one of the clean-up.
        let _ = fs::remove_file(&temporary);
    }
    written.act(|| format!("write pid file {}", file.display()))
}

/// Sends the master of a terminal to whoever listens at the console socket.
pub fn hand_over(socket: &Path, master: OwnedFd) -> Result<()> {
    let words = || format!("send the terminal to console socket {}", socket.display());
    let connection = start_socket::connect_path(socket).act(words)?;
    channel::send(connection.as_fd(), b"/dev/ptmx", Some(master.as_fd())).act(words)
}

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let options = Options::parse(Command::Create, parser)?;
    global.store.reserve(&options.id)?;
    let folder = global.store.folder(&options.id);
    let prepared = configuration(global, &options).and_then(|spec| {
        let listener =
            start_socket::listen(&folder).act(|| format!("create the start socket of {}", options.id))?;
        let choices = options.choices(global, &spec, Gate::Socket(listener))?;
        Ok((spec, choices))
    });
    let (spec, choices) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // The failure that is being told matters more than one of the clean-up.
            let _ = global.store.remove(&options.id);
            return Err(error);
        }
    };
    let request = launch::Request {
        store: &global.store,
        id: &options.id,
        bundle: &options.bundle,
        spec,
        owner: Owner::Caller,
        choices,
    };
    let mut created: Created = launch::create(request)?;
    match options.publish(&created.child, created.terminal.take()) {
        Ok(_) => Ok(0),
        Err(error) => {
            // As above.
            let _ = created.undo(&global.store);
            Err(error)
        }
    }
}
