//! `events`: what a container uses, as runc prints it: once with `--stats`, else again and again.

use std::time::{Duration, Instant};

use gantry_linux::cgroup::{BlockStats, Stats};
use lexopt::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value as Json, json};

use super::{Global, next, number, print, required, text};
use crate::error::{Act, Error, Result};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut once, mut id, mut interval) = (false, None, 5_u64);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Long("stats") => once = true,
            Long("interval") => {
                let value = text(&mut parser)?;
                let seconds = value.trim_end_matches('s');
                interval = seconds
                    .parse()
                    .map_err(|_| Error::Usage(format!("{value:?} is not a number of seconds")))?;
            }
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            Long("rate") => drop(number::<u64>(&mut parser)?),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let record = global.store.load(&required(id, "ID")?)?;
    let group = record.group()?;
    let pidfd = gantry_linux::process::pidfd(record.pid).act(|| format!("watch container {}", record.id))?;
    let mut kills = group.oom_kills();
    loop {
        if !record.is_alive() {
            return Ok(0);
        }
        let event = json!({ "type": "stats", "id": record.id, "data": data(&group.stats()) });
        print(&format!("{event}\n"))?;
        if once {
            return Ok(0);
        }
        let deadline = Instant::now() + Duration::from_secs(interval.max(1));
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        // The end of the container ends the wait.
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).act(|| "wait".to_owned())?;
        let now = group.oom_kills();
        if now > kills {
            kills = now;
            print(&format!("{}\n", json!({ "type": "oom", "id": record.id })))?;
        }
    }
}

fn data(stats: &Stats) -> Json {
    let entries = |value: fn(&BlockStats) -> (u64, u64)| -> Vec<Json> {
        stats
            .block
            .iter()
            .flat_map(|device| {
                let (read, write) = value(device);
                [("Read", read), ("Write", write)].map(|(op, value)| {
                    json!({ "major": device.major, "minor": device.minor, "op": op, "value": value })
                })
            })
            .collect()
    };
    json!({
        "cpu": {
            "usage": {
                "total": stats.cpu.usage,
                "percpu": stats.cpu.per_cpu,
                "kernel": stats.cpu.system,
                "user": stats.cpu.user,
            },
            "throttling": {
                "periods": stats.cpu.periods,
                "throttledPeriods": stats.cpu.throttled_periods,
                "throttledTime": stats.cpu.throttled,
            },
        },
        "memory": {
            "usage": {
                "limit": stats.memory.limit,
                "usage": stats.memory.usage,
                "max": stats.memory.max_usage,
                "failcnt": stats.memory.failures,
            },
            "raw": stats.memory.detail,
        },
        "pids": { "current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": entries(|device| (device.read_bytes, device.write_bytes)),
            "ioServicedRecursive": entries(|device| (device.reads, device.writes)),
        },
    })
}
