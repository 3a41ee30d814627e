//! The monitor's ends of a container's standard streams.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use gantry_linux::terminal;
use rustix::{
    fs::OFlags,
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use super::frame::FrameKind;
use crate::{error, error::Act, null, plan::Stdio};

/// Input that waits beyond this makes clients wait too.
const INPUT_LIMIT: usize = 64 * 1024;

/// What the monitor writes to the container.
#[derive(Debug, Default)]
pub struct Input {
    fd: Option<OwnedFd>,
    waiting: Vec<u8>,
    closing: bool,
    terminal: bool,
}

impl Input {
    /// Takes data; without an open input it is dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.fd.is_some() && !self.closing {
            self.waiting.extend_from_slice(bytes);
            self.flush();
        }
    }

    /// Ends the input after what waits. A terminal has no end of input of its own.
    pub fn close(&mut self) {
        if !self.terminal {
            self.closing = true;
            self.flush();
        }
    }

    /// Writes what waits, as far as it goes.
    pub fn flush(&mut self) {
        while let (Some(fd), false) = (&self.fd, self.waiting.is_empty()) {
            match rustix::io::write(fd, &self.waiting) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody reads any more.
                Err(_) => {
                    self.fd = None;
                    self.waiting.clear();
                }
            }
        }
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
            if self.closing {
                self.fd = None;
            }
        }
    }

    /// The descriptor, when something waits to be written.
    pub fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// Whether clients must wait.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= INPUT_LIMIT
    }
}

/// What the monitor reads from the container.
#[derive(Debug)]
pub struct Output {
    /// The descriptor.
    pub fd: OwnedFd,
    /// Which stream.
    pub kind: FrameKind,
    /// Nothing more will come.
    pub ended: bool,
}

/// The result of one read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Data(usize),
    /// Nothing just now.
    Nothing,
    /// The end.
    End,
}

impl Output {
    /// Reads once.
    pub fn read(&self, buffer: &mut [u8]) -> Read {
        match rustix::io::read(&self.fd, buffer) {
            Ok(0) => Read::End,
            Ok(length) => Read::Data(length),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            // EIO is how the master of a terminal says that the last slave was closed.
            Err(_) => Read::End,
        }
    }
}

/// Both sides of the streams.
#[derive(Debug)]
pub struct Streams {
    /// To the container.
    pub input: Input,
    /// From the container.
    pub outputs: Vec<Output>,
    /// The terminal, for its size.
    pub terminal: Option<OwnedFd>,
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

impl Streams {
    /// Streams without a terminal, and the container's ends of them.
    pub fn pipes(open_stdin: bool) -> error::Result<(Streams, Stdio)> {
        let words = || "create pipes".to_owned();
        let (stdin, writer) = if open_stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).act(words)?;
            nonblocking(&writer).act(words)?;
            (reader, Some(writer))
        } else {
            (null::open(OFlags::RDONLY)?, None)
        };
        let (stdout_reader, stdout) = pipe_with(PipeFlags::CLOEXEC).act(words)?;
        let (stderr_reader, stderr) = pipe_with(PipeFlags::CLOEXEC).act(words)?;
        nonblocking(&stdout_reader).act(words)?;
        nonblocking(&stderr_reader).act(words)?;
        let outputs = vec![
            Output { fd: stdout_reader, kind: FrameKind::Stdout, ended: false },
            Output { fd: stderr_reader, kind: FrameKind::Stderr, ended: false },
        ];
        let input = Input { fd: writer, ..Input::default() };
        Ok((Streams { input, outputs, terminal: None }, Stdio::Given([stdin, stdout, stderr])))
    }

    /// Streams that a terminal will be joined to.
    pub fn without_pipes() -> Streams {
        Streams { input: Input::default(), outputs: Vec::new(), terminal: None }
    }

    /// Joins the master of the container's terminal.
    pub fn join_terminal(&mut self, master: OwnedFd, open_stdin: bool) -> io::Result<()> {
        nonblocking(&master)?;
        if open_stdin {
            self.input = Input { fd: Some(master.try_clone()?), terminal: true, ..Input::default() };
        }
        self.outputs = vec![Output { fd: master.try_clone()?, kind: FrameKind::Stdout, ended: false }];
        self.terminal = Some(master);
        Ok(())
    }

    /// Changes the terminal's size, if there is a terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            // A terminal that is gone has no size.
            let _ = terminal::resize(terminal, rows, columns);
        }
    }
}
