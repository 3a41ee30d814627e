//! `events`: what a container uses, as runc prints it: once with `--stats`, else again and again.

mod usage;

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use gantry_linux::cgroup::Cgroup;
use lexopt::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::{Global, next, print, required, text};
use crate::{
    error::{Act, Error, Result},
    state::Record,
};

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut once, mut id, mut interval) = (false, None, Duration::from_secs(5));
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Long("stats") => once = true,
            Long("interval") => {
                let value = text(&mut parser)?;
                interval = parse_duration(&value)
                    .ok_or_else(|| Error::Usage(format!("{value:?} is no duration such as 5s or 1m30s")))?;
            }
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    if interval.is_zero() {
        return Err(Error::Usage("--interval must be greater than 0".into()));
    }
    let record = global.store.load(&required(id, "ID")?)?;
    let group = record.group()?;
    let pidfd = gantry_linux::process::pidfd(record.pid);
    // The pidfd was opened before: it is the right process or none.
    let (Ok(pidfd), true) = (pidfd, record.is_alive()) else {
        return Err(Error::NotRunning { act: "watch", id: record.id });
    };
    if once {
        return tell_stats(&record, &group).map(|()| 0);
    }
    watch(&record, &group, pidfd.as_fd(), interval)
}

fn tell_stats(record: &Record, group: &Cgroup) -> Result<()> {
    let data = usage::read(group, record.resctrl.as_ref());
    let event = json!({ "type": "stats", "id": record.id, "data": data });
    print(&format!("{event}\n"))
}

/// Tells the use once in each interval, and memory kills when they happen, until the container ends.
fn watch(record: &Record, group: &Cgroup, pidfd: BorrowedFd<'_>, interval: Duration) -> Result<i32> {
    // Without one (no memory controller) there is nothing to be told.
    let kills = group.oom_watch().ok();
    let mut count = group.oom_kills();
    let mut due = Instant::now() + interval;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        if let Some(kills) = &kills {
            fds.push(PollFd::new(kills, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.act(|| format!("watch container {}", record.id))?,
        };
        let (ended, told) =
            (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|fd| !fd.revents().is_empty()));
        drop(fds);
        if let Some(kills) = kills.as_ref().filter(|_| told) {
            // What is in it does not matter: the count is read below.
            let _ = rustix::io::read(kills, &mut [0_u8; 4096][..]);
        }
        if told || ended {
            let now = if ended { group.oom_kills() } else { counted(group, count) };
            if now > count {
                count = now;
                print(&format!("{}\n", json!({ "type": "oom", "id": record.id })))?;
            }
        }
        if ended {
            return Ok(0);
        }
        if Instant::now() >= due {
            due = Instant::now() + interval;
            tell_stats(record, group)?;
        }
    }
}

/// The count of kills once it is more than before: v1 announces a kill a moment before it is counted.
fn counted(group: &Cgroup, before: u64) -> u64 {
    for _ in 0..50 {
        let now = group.oom_kills();
        if now > before {
            return now;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    before
}

/// A duration as Go writes it, `1m30s` or `500ms`; a plain number is seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let number: f64 = rest[..digits].parse().ok()?;
        let seconds = match &rest[digits..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "" if total.is_zero() => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in
            [("5s", 5000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("7", 7000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "5x", "-5s", "1s5", "1e9h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
