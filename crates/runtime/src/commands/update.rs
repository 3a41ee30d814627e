//! `update`: changes the limits of a container.

use std::{io::Read, str::FromStr};

use lexopt::prelude::*;

use super::{Global, next, number, required, text};
use crate::{
    error::{Act, Error, Result},
    limits,
    oci::{self, BlockIo, Cpu, IntelRdt, Memory, Pids, Resources},
};

/// What is to be changed.
#[derive(Default)]
struct Changes {
    resources: Resources,
    rdt: IntelRdt,
    from_file: bool,
    id: Option<String>,
}

fn parse(mut parser: lexopt::Parser) -> Result<Changes> {
    let mut changes = Changes::default();
    let mut file = None;
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('r') | Long("resources") => file = Some(text(&mut parser)?),
            Long("l3-cache-schema") => changes.rdt.l3_cache_schema = Some(text(&mut parser)?),
            Long("mem-bw-schema") => changes.rdt.mem_bw_schema = Some(text(&mut parser)?),
            Value(value) if changes.id.is_none() => {
                changes.id = Some(value.to_string_lossy().into_owned());
            }
            Long(name) => {
                let name = name.to_owned();
                if !resource(&mut changes.resources, &name, &mut parser)? {
                    return Err(Error::Usage(format!("invalid option '--{name}'")));
                }
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    if let Some(file) = file {
        // As with runc, all other options are ignored then.
        changes.resources = read(&file)?;
        changes.from_file = true;
    }
    Ok(changes)
}

/// One option that limits a resource; false when there is no such option.
fn resource(resources: &mut Resources, name: &str, parser: &mut lexopt::Parser) -> Result<bool> {
    match name {
        "memory" => memory(resources).limit = Some(bytes(parser)?),
        "memory-reservation" => memory(resources).reservation = Some(bytes(parser)?),
        "memory-swap" => memory(resources).swap = Some(bytes(parser)?),
        // The kernel's own limit for itself is gone; runc takes these and does nothing.
        "kernel-memory" | "kernel-memory-tcp" => drop(text(parser)?),
        "cpu-share" | "cpu-shares" => cpu(resources).shares = Some(number(parser)?),
        "cpu-quota" => cpu(resources).quota = Some(number(parser)?),
        "cpu-period" => cpu(resources).period = Some(number(parser)?),
        "cpu-burst" => cpu(resources).burst = Some(number(parser)?),
        "cpu-idle" => cpu(resources).idle = Some(number(parser)?),
        "cpu-rt-runtime" => cpu(resources).realtime_runtime = Some(number(parser)?),
        "cpu-rt-period" => cpu(resources).realtime_period = Some(number(parser)?),
        "cpuset-cpus" => cpu(resources).cpus = Some(text(parser)?),
        "cpuset-mems" => cpu(resources).mems = Some(text(parser)?),
        "pids-limit" => resources.pids = Some(Pids { limit: number(parser)? }),
        "blkio-weight" => {
            resources.block_io.get_or_insert_with(BlockIo::default).weight = Some(number(parser)?);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let changes = parse(parser)?;
    let record = global.store.load(&required(changes.id, "ID")?)?;
    if !record.is_alive() {
        return Err(Error::NotRunning { act: "update", id: record.id });
    }
    if let Some(scope) = &record.scope {
        scope.update(&changes.resources)?;
    }
    if changes.rdt != IntelRdt::default() && !changes.from_file {
        let group = record.resctrl.as_ref().ok_or_else(|| Error::Config {
            field: "linux.intelRdt".into(),
            problem: format!("container {} was made without it", record.id),
        })?;
        group.change(&changes.rdt)?;
    }
    let limits = limits::for_update(&changes.resources)?;
    limits::apply(&record.group()?, &limits, &record.id)?;
    Ok(0)
}

fn memory(resources: &mut Resources) -> &mut Memory {
    resources.memory.get_or_insert_with(Memory::default)
}

fn cpu(resources: &mut Resources) -> &mut Cpu {
    resources.cpu.get_or_insert_with(Cpu::default)
}

/// A number of bytes, with a unit or without.
fn bytes(parser: &mut lexopt::Parser) -> Result<i64> {
    let value = text(parser)?;
    parse_bytes(&value).ok_or_else(|| Error::Usage(format!("{value:?} is no number of bytes such as 512m")))
}

/// `512m`, `1.5GiB`, `1073741824`, `-1`; units are powers of 1024.
fn parse_bytes(text: &str) -> Option<i64> {
    if let Ok(plain) = i64::from_str(text) {
        return (plain >= -1).then_some(plain);
    }
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower[digits.len()..].trim_end_matches('b').trim_end_matches('i');
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == unit)?;
    let number = f64::from_str(digits.trim()).ok().filter(|number| *number >= 0.0 && number.is_finite())?;
    let value = number * 1024_f64.powi(i32::try_from(power).ok()?);
    // Beyond this the number would not be exact any more.
    (value < (1_u64 << 53) as f64 * 1024.0).then_some(value as i64)
}

fn read(source: &str) -> Result<Resources> {
    let mut bytes = Vec::new();
    let words = || format!("read resources from {source}");
    if source == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).act(words)?;
    } else {
        bytes = std::fs::read(source).act(words)?;
    }
    // A list would be read as the members in order.
    let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
        .and_then(|_| oci::parse::<Resources>(&bytes));
    parsed.map_err(|error| Error::Usage(format!("{source}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_units_that_docker_and_runc_take() {
        for (text, bytes) in
            [("4096", 4096), ("-1", -1), ("512m", 512 << 20), ("1.5GiB", 3 << 29), ("2KB", 2048), ("7b", 7)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "m", "-2", "-1k", "1x", "nan", "inf", "1e400"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
