//! `start`: lets a created container run its program.

use std::fs;

use gantry_linux::process;

use super::{Global, operand};
use crate::{
    channel::ToInit,
    error::{Act, Error, Result},
    launch,
    notify::Notify,
    oci::{Spec, Status},
    start_socket,
    state::{Owner, START_SOCKET},
};

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let id = operand(parser, "ID")?;
    let held = global.store.hold(&id)?;
    let mut record = held.load()?;
    let status = record.status(&record.group()?);
    if status != Status::Created {
        let status = format!("{status:?}").to_lowercase();
        return Err(Error::WrongState { act: "start", id, status });
    }
    if record.owner == Owner::Monitor {
        return Err(Error::WrongState { act: "start", id, status: "started by its monitor only".into() });
    }
    let folder = held.folder();
    let channel = start_socket::connect(&folder).act(|| format!("reach the first process of {id}"))?;
    let spec = Spec::load(&folder);
    let notify = Notify::listen(&folder)?;
    let pidfd = process::pidfd(record.pid);
    // Before the order, so that nothing has been started when the disk is full; the socket tells how far a start came that was
    // killed.
    record.started = true;
    held.save(&record)?;
    channel.tell(ToInit::Start).act(|| format!("start container {id}"))?;
    launch::outcome(&channel, None)?;
    // It has served its purpose; delete removes it too.
    let _ = fs::remove_file(folder.join(START_SOCKET));
    if let Ok(spec) = spec {
        launch::run_poststart(&spec, &record.state(Status::Running)).inspect_err(|_| {
            // A program that has ended by itself needs no killing.
            let _ = super::kill::send(&record, libc::SIGKILL, false);
        })?;
    }
    if let (Some(notify), Ok(pidfd)) = (notify, pidfd) {
        notify.await_ready(record.pid, pidfd)?;
    }
    Ok(0)
}
