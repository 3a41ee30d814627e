//! `gantry-runtime init`: a first process for containers whose program does not reap: passes signals on, reaps, exits with the program's code.
//!
//! It runs inside any image and assumes nothing of it, not even /proc.

use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command};

use gantry_linux::process::{self, SignalFd};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, WaitOptions},
};

use crate::{error::Error, program};

/// Runs the command and returns its exit code.
pub fn run(mut args: Vec<OsString>) -> i32 {
    if args.first().is_some_and(|arg| arg == "--") {
        args.remove(0);
    }
    let Some(program) = args.first().cloned() else {
        eprintln!("usage: gantry-runtime init [--] COMMAND [ARGUMENT...]");
        return 125;
    };
    // Every signal but those that the kernel sends because of a fault of this process itself.
    let taken: Vec<i32> = (1..=64)
        .filter(|signal| {
            ![
                libc::SIGKILL,
                libc::SIGSTOP,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGABRT,
                libc::SIGSYS,
                32,
                33,
            ]
            .contains(signal)
        })
        .collect();
    let outcome = SignalFd::new(&taken).and_then(|signals| {
        let mut command = Command::new(&program);
        command.args(&args[1..]).process_group(0);
        let child = process::with_fresh_signals(&mut command).spawn();
        Ok((signals, child?.id()))
    });
    match outcome {
        Ok((signals, child)) => {
            take_terminal(child);
            attend(&signals, child).unwrap_or_else(|error| {
                eprintln!("gantry-runtime init: wait for {}: {error}", program.to_string_lossy());
                125
            })
        }
        Err(error) => {
            let error: Error = program::refused(&program.to_string_lossy(), &error);
            eprintln!("gantry-runtime init: {}", error.chain());
            error.exit_code()
        }
    }
}

/// Gives the terminal, if there is one, to the program's process group, so that its keys reach it.
fn take_terminal(child: u32) {
    let stdin = rustix::stdio::stdin();
    if let (true, Some(group)) = (rustix::termios::isatty(stdin), Pid::from_raw(child.cast_signed())) {
        // SIGTTOU is blocked here, so a background process may do this; without a terminal of ours it fails harmlessly.
        let _ = rustix::termios::tcsetpgrp(stdin, group);
    }
}

fn attend(signals: &SignalFd, child: u32) -> io::Result<i32> {
    let child = child.cast_signed();
    loop {
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(signal) = signals.next()? {
            if signal == libc::SIGCHLD {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            } else {
                // The program may have ended just now.
                let _ = process::signal_group(child, signal);
            }
        }
    }
}

/// Reaps everything that has ended; the exit code when the program is among it.
fn reap(child: i32) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                code = code.or(status.exit_status()).or(signal);
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(code)
}
