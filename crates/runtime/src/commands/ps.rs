//! `ps`: the processes of a container, by the host's ps(1) with the caller's options, or by /proc where there is none.

use std::{fs, io, os::unix::fs::MetadataExt, process::Command};

use gantry_linux::process;
use lexopt::prelude::*;

use super::{Global, list::Format, next, print, required, text};
use crate::error::{Act, Error, Result};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut format, mut id, mut options) = (Format::Table, None, Vec::new());
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('f') | Long("format") => format = Format::parse(&text(&mut parser)?)?,
            Value(value) => {
                id = Some(value.to_string_lossy().into_owned());
                let rest = parser.raw_args().map_err(|error| Error::Usage(error.to_string()))?;
                options = rest.collect();
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let record = global.store.load(&required(id, "ID")?)?;
    let pids = record.group()?.processes();
    if format == Format::Json {
        print(&format!("{}\n", serde_json::Value::from(pids)))?;
        return Ok(0);
    }
    let ordinary = options.is_empty();
    let mut command = Command::new("ps");
    if ordinary {
        command.arg("-ef");
    } else {
        command.args(&options);
    }
    let table = match process::with_fresh_signals(&mut command).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && ordinary => own_table(&pids),
        output => {
            let output = output.act(|| "run ps".to_owned())?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Error::Usage(format!("ps: {}: {said}", output.status)));
            }
            rows_of(&String::from_utf8_lossy(&output.stdout), &pids)?
        }
    };
    print(&table)?;
    Ok(0)
}

/// The title, and the lines whose column PID names a process of the container.
fn rows_of(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::Usage("ps: its options leave out the column PID".into()))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok([title].into_iter().chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

fn own_table(pids: &[i32]) -> String {
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
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let table = "UID   PID  CMD\nroot    1  init\nroot   12  sleep 1\n";
        assert_eq!(rows_of(table, &[12]).unwrap(), "UID   PID  CMD\nroot   12  sleep 1\n");
        assert!(rows_of("USER CMD\n", &[12]).is_err());
        assert!(own_table(&[std::process::id().cast_signed()]).lines().count() == 2);
    }
}
