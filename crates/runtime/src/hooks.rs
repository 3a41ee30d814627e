//! Hooks: programs that run at points of a container's life, with its state on their standard input.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use gantry_linux::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    error::{Error, Result},
    oci::{Hook, State},
};

/// Runs hooks in order; the first that fails ends it.
pub fn run(point: &'static str, hooks: &[Hook], state: &State) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(point, hook, state))
}

/// Runs all hooks although some fail, as the specification wants it for poststart and poststop; returns the failures.
pub fn run_all(point: &'static str, hooks: &[Hook], state: &State) -> Vec<Error> {
    hooks.iter().filter_map(|hook| run_one(point, hook, state).err()).collect()
}

fn run_one(point: &'static str, hook: &Hook, state: &State) -> Result<()> {
    let fail = |problem: String| Error::Hook { point, path: hook.path.clone(), problem };
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(args);
    }
    let env = hook.env.iter().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(env).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child =
        process::with_fresh_signals(&mut command).spawn().map_err(|error| fail(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input.
        let _ = stdin.write_all(&serde_json::to_vec(state).unwrap_or_default());
    }
    if let Some(seconds) = hook.timeout {
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
        if !ends_before(child.id(), deadline) {
            // It is our child and not reaped yet, so the kill hits the right process.
            let _ = child.kill();
            let _ = child.wait();
            return Err(fail(format!("did not end within {seconds} s")));
        }
    }
    let mut stderr = String::new();
    if let Some(pipe) = child.stderr.take() {
        // What cannot be read is not shown.
        let _ = pipe.take(4096).read_to_string(&mut stderr);
    }
    let status = child.wait().map_err(|error| fail(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let stderr = stderr.trim();
    Err(fail(if stderr.is_empty() { status.to_string() } else { format!("{status}: {stderr}") }))
}

fn ends_before(pid: u32, deadline: Instant) -> bool {
    let Ok(pidfd) = process::pidfd(pid.cast_signed()) else { return true };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            _ => return true,
        }
    }
}
