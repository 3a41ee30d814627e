//! `kill`: sends a signal to a container's first process, or to all of them.

use std::os::fd::AsFd;

use gantry_linux::{
    namespace::{self, Namespaces},
    process, signal,
};
use lexopt::prelude::*;

use super::{Global, next, required};
use crate::{
    error::{Act, Error, Result},
    oci::Status,
    state::Record,
};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut all, mut id, mut signal) = (false, None, None);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('a') | Long("all") => all = true,
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            Value(value) if signal.is_none() => signal = Some(value.to_string_lossy().into_owned()),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let id = required(id, "ID")?;
    let text = signal.unwrap_or_else(|| "TERM".to_owned());
    // 0 is none, and asks only whether there is somebody (kill(2)).
    let number = if text == "0" { Some(0) } else { signal::parse(&text) };
    let signal = number.ok_or_else(|| Error::Usage(format!("unknown signal {text:?}")))?;
    let record = global.store.load(&id)?;
    send(&record, signal, all)?;
    Ok(0)
}

/// Sends a signal.
pub fn send(record: &Record, signal: i32, all: bool) -> Result<()> {
    let group = record.group()?;
    let pidfd = process::pidfd(record.pid);
    let status = record.status(&group);
    let words = || format!("send signal {signal} to container {}", record.id);
    if all {
        if signal == libc::SIGKILL {
            return group.kill_all().map_err(|source| Error::Cgroup { id: record.id.clone(), source });
        }
        for pid in group.processes() {
            if let Ok(pidfd) = process::pidfd(pid) {
                // It may have ended since the list was read.
                let _ = process::signal(pidfd.as_fd(), signal);
            }
        }
        return Ok(());
    }
    let (Ok(pidfd), Status::Running | Status::Created | Status::Paused) = (pidfd, status) else {
        return Err(Error::NotRunning { act: "kill", id: record.id.clone() });
    };
    // Without a pid namespace of its own the kernel does not take the others along.
    let own = namespace::inode(record.pid, Namespaces::PID).ok();
    if signal == libc::SIGKILL
        && own == namespace::inode(std::process::id().cast_signed(), Namespaces::PID).ok()
    {
        // It may have been moved to another group.
        process::signal(pidfd.as_fd(), signal).act(words)?;
        return group.kill_all().map_err(|source| Error::Cgroup { id: record.id.clone(), source });
    }
    process::signal(pidfd.as_fd(), signal).act(words)?;
    if signal == libc::SIGKILL && status == Status::Paused {
        // A frozen process of v1 dies only when it is thawed.
        group.thaw().map_err(|source| Error::Cgroup { id: record.id.clone(), source })?;
    }
    Ok(())
}
