//! `list`: all containers of one root.

use lexopt::prelude::*;

use super::{Global, next, print, text};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut json, mut quiet) = (false, false);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('f') | Long("format") => json = text(&mut parser)? == "json",
            Short('q') | Long("quiet") => quiet = true,
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let mut rows = Vec::new();
    for record in global.store.list() {
        let status = record.status(&record.group()?);
        rows.push((record.state(status), record));
    }
    if quiet {
        let names: String = rows.iter().map(|(state, _)| format!("{}\n", state.id)).collect();
        print(&names)?;
    } else if json {
        let values: Vec<serde_json::Value> = rows
            .iter()
            .map(|(state, record)| {
                let mut value = serde_json::to_value(state).unwrap_or_default();
                value["pid"] = state.pid.unwrap_or(0).into();
                value["rootfs"] = record.rootfs.to_string_lossy().into();
                value["created"] = record.created.clone().into();
                value
            })
            .collect();
        print(&format!("{}\n", serde_json::Value::from(values)))?;
    } else {
        let mut table = format!("{:<24} {:<8} {:<10} {:<32} CREATED\n", "ID", "PID", "STATUS", "BUNDLE");
        for (state, record) in rows {
            let status = format!("{:?}", state.status).to_lowercase();
            table.push_str(&format!(
                "{:<24} {:<8} {:<10} {:<32} {}\n",
                state.id,
                state.pid.unwrap_or(0),
                status,
                state.bundle.display(),
                record.created
            ));
        }
        print(&table)?;
    }
    Ok(0)
}
