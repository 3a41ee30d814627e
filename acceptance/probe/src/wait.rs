//! Awaiting signals: the life of a container that others look at from outside.

use gantry_linux::process::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::process::ExitCode;

// signal(7), x86-64.
const HUP: i32 = 1;
const INT: i32 = 2;
const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;

/// Blocks the signals, tells that it is ready, and prints a line for each signal until one ends it.
pub fn wait(ready: impl Fn()) -> ExitCode {
    let signals = match SignalFd::new(&[HUP, INT, USR1, USR2, TERM]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("oci-probe: take signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    ready();
    loop {
        // Only an interruption can make this fail, and then it is asked again.
        let _ = poll(&mut [PollFd::new(&signals.as_fd(), PollFlags::IN)], None);
        match signals.next() {
            Ok(Some(USR1)) => return ExitCode::SUCCESS,
            Ok(Some(TERM)) => return ExitCode::from(143),
            Ok(Some(number)) => println!("{{\"signal\":{number}}}"),
            Ok(None) => {}
            Err(error) => {
                eprintln!("oci-probe: await signals: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}
