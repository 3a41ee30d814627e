//! Signals as `docker kill --signal` takes them.

use crate::error::{Result, parameter};

pub(crate) use gantry_linux::signal::{KILL, TERM};

/// Parses `9`, `KILL`, `SIGKILL`, `sigrtmin+3`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    gantry_linux::signal::parse(text).ok_or_else(|| parameter(format!("invalid signal: {text}")))
}
