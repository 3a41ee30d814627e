//! `pause` and `resume`: freezing a container and letting it go on.

use super::{Global, operand};
use crate::{
    error::{Error, Result},
    oci::Status,
};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
}

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser, order: Order) -> Result<i32> {
    let id = operand(parser, "ID")?;
    let record = global.store.load(&id)?;
    let group = record.group()?;
    let (act, changed) = match (order, record.status(&group)) {
        (Order::Pause, Status::Running | Status::Created) => ("pause", group.freeze()),
        (Order::Resume, Status::Paused) => ("resume", group.thaw()),
        (order, status) => {
            let status = format!("{status:?}").to_lowercase();
            let act = if order == Order::Pause { "pause" } else { "resume" };
            return Err(Error::WrongState { act, id, status });
        }
    };
    changed.map_err(|source| Error::Cgroup { id: format!("{id} ({act})"), source })?;
    Ok(0)
}
