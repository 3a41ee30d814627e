//! `state`: what a container is, as JSON of the specification with runc's additions.

use super::{Global, operand, print};
use crate::{error::Result, state::Record};

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let record = global.store.load(&operand(parser, "ID")?)?;
    print(&format!("{:#}\n", document(global, &record)?))?;
    Ok(0)
}

/// The state with what runc adds. Callers read `pid` and `rootfs` also of a stopped container.
pub fn document(global: &Global, record: &Record) -> Result<serde_json::Value> {
    let status = record.status(&record.group()?);
    let state = record.state(status);
    let pid = state.pid.unwrap_or(0);
    let mut value = serde_json::to_value(state).unwrap_or_default();
    value["pid"] = pid.into();
    value["rootfs"] = record.rootfs.to_string_lossy().into();
    value["created"] = record.created.clone().into();
    value["owner"] = global.store.owner(&record.id).into();
    Ok(value)
}
