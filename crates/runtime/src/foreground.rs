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
    event::{PollFd, PollFlags, poll},
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
    let ended =
        watch(child, signals, relay.as_ref(), notify).act(|| format!("watch process {}", child.pid))?;
    ended.ok_or(Error::ChildGone { during: "its run", how: "it was reaped by another".into() })
}

fn watch(
    child: &Child,
    signals: &SignalFd,
    relay: Option<&Relay>,
    mut notify: Option<Notify>,
) -> io::Result<Option<Ended>> {
    let mut input_open = relay.is_some();
    let mut output_open = relay.is_some();
    let mut ended = false;
    loop {
        if ended && !output_open {
            return process::wait(child.pid, Waiting::Block);
        }
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        let pid_flags = if ended { PollFlags::empty() } else { PollFlags::IN };
        fds.push(PollFd::new(&child.pidfd, pid_flags));
        let stdin = rustix::stdio::stdin();
        if let Some(relay) = relay {
            fds.push(PollFd::new(
                &relay.master,
                if output_open { PollFlags::IN } else { PollFlags::empty() },
            ));
            if input_open && !ended {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        let notify_at = fds.len();
        if let Some(notify) = &notify {
            fds.push(PollFd::new(notify, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            while let Some(signal) = signals.next()? {
                pass_on(signal, child, relay);
            }
        }
        ended |= ready[1];
        if ready.get(notify_at) == Some(&true) {
            notify = notify.filter(|notify| !notify.hear().unwrap_or(true));
        }
        if let Some(relay) = relay {
            if ready[2] {
                output_open = copy(relay.master.as_fd(), rustix::stdio::stdout());
            }
            if notify_at > 3 && ready[3] {
                input_open = copy(stdin, relay.master.as_fd());
            }
        }
    }
}

fn pass_on(signal: i32, child: &Child, relay: Option<&Relay>) {
    match relay {
        // The terminal tells its foreground process of its new size itself.
        Some(relay) if signal == libc::SIGWINCH => relay.follow_size(),
        // It may have ended meanwhile.
        _ => drop(process::signal(child.pidfd.as_fd(), signal)),
    }
}

/// Copies once; false at the end of the source, which for a terminal's master is an error.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0_u8; 16 * 1024];
    let Ok(length @ 1..) = rustix::io::read(from, &mut buffer) else { return false };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Our own terminal, raw while it is joined to the container's.
struct Relay {
    master: OwnedFd,
    before: Option<Termios>,
}

impl Relay {
    fn new(master: OwnedFd) -> io::Result<Relay> {
        let stdin = rustix::stdio::stdin();
        let before = termios::isatty(stdin).then(|| termios::tcgetattr(stdin)).transpose()?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        let relay = Relay { master, before };
        relay.follow_size();
        Ok(relay)
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
