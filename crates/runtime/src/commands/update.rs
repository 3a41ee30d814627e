//! `update`: changes the limits of a container.

use std::io::Read;

use lexopt::prelude::*;

use super::{Global, next, number, required, text};
use crate::{
    error::{Act, Error, Result},
    limits,
    oci::{BlockIo, Cpu, Memory, Pids, Resources},
};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let mut id = None;
    let mut resources = Resources::default();
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('r') | Long("resources") => resources = read(&text(&mut parser)?)?,
            Long("memory") => memory(&mut resources).limit = Some(number(&mut parser)?),
            Long("memory-reservation") => memory(&mut resources).reservation = Some(number(&mut parser)?),
            Long("memory-swap") => memory(&mut resources).swap = Some(number(&mut parser)?),
            Long("cpu-share" | "cpu-shares") => cpu(&mut resources).shares = Some(number(&mut parser)?),
            Long("cpu-quota") => cpu(&mut resources).quota = Some(number(&mut parser)?),
            Long("cpu-period") => cpu(&mut resources).period = Some(number(&mut parser)?),
            Long("cpu-burst") => cpu(&mut resources).burst = Some(number(&mut parser)?),
            Long("cpu-idle") => cpu(&mut resources).idle = Some(number(&mut parser)?),
            Long("cpuset-cpus") => cpu(&mut resources).cpus = Some(text(&mut parser)?),
            Long("cpuset-mems") => cpu(&mut resources).mems = Some(text(&mut parser)?),
            Long("pids-limit") => resources.pids = Some(Pids { limit: number(&mut parser)? }),
            Long("blkio-weight") => {
                let block = resources.block_io.get_or_insert_with(BlockIo::default);
                block.weight = Some(number(&mut parser)?);
            }
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let record = global.store.load(&required(id, "ID")?)?;
    let limits = limits::for_update(&resources)?;
    record.group()?.apply(&limits).map_err(|source| Error::Cgroup { id: record.id.clone(), source })?;
    Ok(0)
}

fn memory(resources: &mut Resources) -> &mut Memory {
    resources.memory.get_or_insert_with(Memory::default)
}

fn cpu(resources: &mut Resources) -> &mut Cpu {
    resources.cpu.get_or_insert_with(Cpu::default)
}

fn read(source: &str) -> Result<Resources> {
    let mut bytes = Vec::new();
    let words = || format!("read resources from {source}");
    if source == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).act(words)?;
    } else {
        bytes = std::fs::read(source).act(words)?;
    }
    serde_json::from_slice(&bytes).map_err(|error| Error::Usage(format!("{source}: {error}")))
}
