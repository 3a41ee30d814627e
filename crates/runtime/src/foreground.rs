//! Staying with a process in the foreground: signals go to it, its terminal is joined to ours, its end is ours.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use gantry_linux::{
    process::{self, Child, Ended, SignalFd, Waiting},
    terminal,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{self, OptionalActions, Termios},
};

use crate::{
    error::{Act, Error, Result},
    notify::Notify,
};

/// Signals that are not passed on: those that cannot be taken, those that the kernel sends because of a fault of this
/// process itself, those of job control and of its own children and sockets, and the two of the C library.
const OWN: [i32; 17] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGURG,
    32,
    33,
];

/// Takes the signals over; to be called before the process is started, so that none is lost.
pub fn take_signals() -> Result<SignalFd> {
    let passed_on: Vec<i32> = (1..=64).filter(|signal| !OWN.contains(signal)).collect();
    SignalFd::new(&passed_on).act(|| "take signals over".to_owned())
}

/// Stays until the process has ended.
pub fn stay(
    child: &Child,
    signals: &SignalFd,
    master: Option<OwnedFd>,
    notify: Option<Notify>,
) -> Result<Ended> {
    let relay = master.map(Relay::new).transpose().act(|| "set the terminal up".to_owned())?;
    let ended = watch(child, signals, relay, notify).act(|| format!("watch process {}", child.pid))?;
    ended.ok_or(Error::ChildGone { during: "its run", how: "it was reaped by another".into() })
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Signal,
    End,
    Notified,
    /// The terminal, ours or the container's.
    Terminal,
}

fn watch(
    child: &Child,
    signals: &SignalFd,
    mut relay: Option<Relay>,
    mut notify: Option<Notify>,
) -> io::Result<Option<Ended>> {
    let mut ended = false;
    loop {
        if ended && relay.as_ref().is_none_or(Relay::is_drained) {
            return process::wait(child.pid, Waiting::Block);
        }
        for event in wait(child, signals, ended, relay.as_ref(), notify.as_ref())? {
            match (event, &mut relay) {
                (Event::Signal, relay) => {
                    while let Some(signal) = signals.next()? {
                        pass_on(signal, child, relay.as_ref());
                    }
                }
                (Event::End, relay) => {
                    ended = true;
                    if let Some(relay) = relay {
                        relay.close_input();
                    }
                }
                (Event::Notified, _) => notify = notify.filter(|notify| !notify.hear().unwrap_or(true)),
                (Event::Terminal, Some(relay)) => relay.go_on(),
                (Event::Terminal, None) => {}
            }
        }
    }
}

/// Waits until something happens.
fn wait(
    child: &Child,
    signals: &SignalFd,
    ended: bool,
    relay: Option<&Relay>,
    notify: Option<&Notify>,
) -> io::Result<Vec<Event>> {
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let mut fds = vec![(Event::Signal, PollFd::new(signals, PollFlags::IN))];
    if !ended {
        fds.push((Event::End, PollFd::new(&child.pidfd, PollFlags::IN)));
    }
    if let Some(notify) = notify {
        fds.push((Event::Notified, PollFd::new(notify, PollFlags::IN)));
    }
    if let Some(relay) = relay {
        let mut of_master = PollFlags::empty();
        of_master.set(PollFlags::IN, relay.output.wants());
        of_master.set(PollFlags::OUT, relay.input.has());
        // A master that nothing is wanted of would still tell that the other side has gone, again and again.
        if !of_master.is_empty() {
            fds.push((Event::Terminal, PollFd::new(&relay.master, of_master)));
        }
        if relay.input.wants() {
            fds.push((Event::Terminal, PollFd::new(&stdin, PollFlags::IN)));
        }
        if relay.output.has() {
            fds.push((Event::Terminal, PollFd::new(&stdout, PollFlags::OUT)));
        }
    }
    let (events, mut fds): (Vec<Event>, Vec<PollFd<'_>>) = fds.into_iter().unzip();
    match poll(&mut fds, None) {
        Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
        other => other?,
    };
    Ok(events
        .into_iter()
        .zip(&fds)
        .filter(|(_, fd)| !fd.revents().is_empty())
        .map(|(event, _)| event)
        .collect())
}

fn pass_on(signal: i32, child: &Child, relay: Option<&Relay>) {
    match relay {
        // The terminal tells its foreground process of its new size itself.
        Some(relay) if signal == libc::SIGWINCH => relay.follow_size(),
        // It may have ended meanwhile.
        _ => drop(process::signal(child.pidfd.as_fd(), signal)),
    }
}

/// One direction between our terminal and the container's: what was read and is not written yet, and whether more may come.
struct Stream {
    waiting: Vec<u8>,
    open: bool,
}

impl Stream {
    fn new() -> Stream {
        Stream { waiting: Vec::new(), open: true }
    }

    /// Whether there is something to write.
    fn has(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether something is to be read.
    fn wants(&self) -> bool {
        self.open && self.waiting.is_empty()
    }

    /// Reads once. The end of a terminal's master is an error.
    fn read(&mut self, from: BorrowedFd<'_>) {
        let mut buffer = [0_u8; 16 * 1024];
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => self.open = false,
            Ok(length) => self.waiting.extend(&buffer[..length]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.open = false,
        }
    }

    /// Writes once, no more than a pipe that has room takes at once (PIPE_BUF of pipe(7)).
    fn write(&mut self, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let next = &self.waiting[..self.waiting.len().min(4096)];
        match rustix::io::write(to, next) {
            Ok(written) => {
                self.waiting.drain(..written);
                Ok(())
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether it can be read or written at once; the end counts.
fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&now)).is_ok_and(|count| count > 0)
}

/// Our own terminal, raw while it is joined to the container's.
///
/// Neither direction waits for the other: a program that does not read its input until its output was taken must not hold up
/// both.
struct Relay {
    master: OwnedFd,
    before: Option<Termios>,
    input: Stream,
    output: Stream,
}

impl Relay {
    fn new(master: OwnedFd) -> io::Result<Relay> {
        // This process is the only one that has the master open.
        rustix::io::ioctl_fionbio(&master, true)?;
        let stdin = rustix::stdio::stdin();
        let before = termios::isatty(stdin).then(|| termios::tcgetattr(stdin)).transpose()?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        let relay = Relay { master, before, input: Stream::new(), output: Stream::new() };
        relay.follow_size();
        Ok(relay)
    }

    /// Moves what can be moved.
    fn go_on(&mut self) {
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        if self.output.wants() && is_ready(self.master.as_fd(), PollFlags::IN) {
            self.output.read(self.master.as_fd());
        }
        if self.output.has() && is_ready(stdout, PollFlags::OUT) && self.output.write(stdout).is_err() {
            // Nobody takes it any more. The program is not to hang for that: what it prints is dropped.
            self.output.waiting.clear();
        }
        if self.input.wants() && is_ready(stdin, PollFlags::IN) {
            self.input.read(stdin);
        }
        if self.input.has() && self.input.write(self.master.as_fd()).is_err() {
            self.close_input();
        }
    }

    fn close_input(&mut self) {
        self.input.open = false;
        self.input.waiting.clear();
    }

    /// Whether everything that was printed has been passed on.
    fn is_drained(&self) -> bool {
        !self.output.open && !self.output.has()
    }

    fn follow_size(&self) {
        if let Ok(size) = termios::tcgetwinsize(rustix::stdio::stdin()) {
            // A terminal that is gone has no size.
            let _ = terminal::resize(&self.master, size.ws_row, size.ws_col);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nobody to tell when the terminal is gone.
            let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
