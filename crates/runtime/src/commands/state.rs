//! `state`: what a container is, as JSON of the specification with runc's additions.

use super::{Global, operand, print};
use crate::error::Result;

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let record = global.store.load(&operand(parser, "ID")?)?;
    let status = record.status(&record.group()?);
    let mut value = serde_json::to_value(record.state(status)).unwrap_or_default();
    // As runc prints them: callers read `pid` and `rootfs` also of a stopped container.
    value["pid"] = record.state(status).pid.unwrap_or(0).into();
    value["rootfs"] = record.rootfs.to_string_lossy().into();
    value["created"] = record.created.clone().into();
    value["owner"] = "".into();
    print(&format!("{value:#}\n"))?;
    Ok(0)
}
