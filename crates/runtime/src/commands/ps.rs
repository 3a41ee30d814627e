//! `ps`: the processes of a container.

use std::{fs, os::unix::fs::MetadataExt};

use lexopt::prelude::*;

use super::{Global, next, print, required, text};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut json, mut id) = (false, None);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('f') | Long("format") => json = text(&mut parser)? == "json",
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let record = global.store.load(&required(id, "ID")?)?;
    let pids = record.group()?.processes();
    if json {
        print(&format!("{}\n", serde_json::Value::from(pids)))?;
        return Ok(0);
    }
    let mut table = format!("{:>8} {:>8} {:>8} CMD\n", "UID", "PID", "PPID");
    for pid in pids {
        let folder = format!("/proc/{pid}");
        let Ok(uid) = fs::metadata(&folder).map(|metadata| metadata.uid()) else { continue };
        let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        // The field after state, behind the name's last parenthesis (proc(5)).
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).unwrap_or("-");
        let command = fs::read_to_string(format!("{folder}/cmdline")).unwrap_or_default().replace('\0', " ");
        table.push_str(&format!("{uid:>8} {pid:>8} {parent:>8} {}\n", command.trim_end()));
    }
    print(&table)?;
    Ok(0)
}
