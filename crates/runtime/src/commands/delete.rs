//! `delete`: takes away what is left of a container.

use std::os::fd::AsFd;

use gantry_linux::process;
use lexopt::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Global, kill, next, required};
use crate::{
    error::{Act, Error, Result},
    launch,
    oci::Status,
    state::Record,
};

/// Seconds that a killed process may take to end.
const PATIENCE: i64 = 10;

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut force, mut id) = (false, None);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('f') | Long("force") => force = true,
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let id = required(id, "ID")?;
    let record = match global.store.load(&id) {
        Err(Error::NoContainer(_)) => {
            // A folder without a state is what a create or a delete left that was killed half way, as with runc.
            global.store.remove(&id)?;
            return if force { Ok(0) } else { Err(Error::NoContainer(id)) };
        }
        other => other?,
    };
    let group = record.group()?;
    match record.status(&group) {
        Status::Stopped => {}
        // Its maker finds the folder gone, and gives up.
        Status::Creating if force => {}
        Status::Created => end(&record)?,
        _ if force => end(&record)?,
        status => {
            let status = format!("{status:?}").to_lowercase();
            return Err(Error::NotStopped { id, status });
        }
    }
    launch::delete(&global.store, &record, &group)?;
    Ok(0)
}

fn end(record: &Record) -> Result<()> {
    let pidfd = process::pidfd(record.pid);
    match kill::send(record, libc::SIGKILL, false) {
        // It has ended by itself.
        Err(Error::NotRunning { .. }) => return Ok(()),
        other => other?,
    }
    let Ok(pidfd) = pidfd else { return Ok(()) };
    let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let ready = poll(&mut fds, Some(&patience)).act(|| format!("wait for the end of {}", record.id))?;
    if ready == 0 {
        return Err(Error::WrongState {
            act: "delete",
            id: record.id.clone(),
            status: format!("not dead {PATIENCE} s after SIGKILL"),
        });
    }
    Ok(())
}
