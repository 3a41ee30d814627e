//! Hooks: programs that run at points of a container's life, with its state on their standard input.

use std::{
    io::{self, Seek, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use gantry_linux::process;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, OFlags},
};

use crate::{
    error::{Error, Result},
    oci::{Hook, Hooks, State},
};

/// Refuses hooks that could never run.
pub fn check(hooks: &Hooks) -> Result<()> {
    let points = [
        ("hooks.prestart", &hooks.prestart),
        ("hooks.createRuntime", &hooks.create_runtime),
        ("hooks.createContainer", &hooks.create_container),
        ("hooks.startContainer", &hooks.start_container),
        ("hooks.poststart", &hooks.poststart),
        ("hooks.poststop", &hooks.poststop),
    ];
    for (field, hook) in points.iter().flat_map(|(field, hooks)| hooks.iter().map(move |hook| (*field, hook)))
    {
        let refuse = |problem: String| Error::Config { field: field.to_owned(), problem };
        if !hook.path.is_absolute() {
            return Err(refuse(format!("{:?} is not an absolute path", hook.path)));
        }
        if hook.timeout == Some(0) {
            return Err(refuse(format!("{}: the timeout must be greater than zero", hook.path.display())));
        }
    }
    Ok(())
}

/// Runs hooks in order; the first that fails ends it.
pub fn run(point: &'static str, hooks: &[Hook], state: &State) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(point, hook, state))
}

/// Runs all hooks although some fail, as the specification wants it for poststop; returns the failures.
pub fn run_all(point: &'static str, hooks: &[Hook], state: &State) -> Vec<Error> {
    hooks.iter().filter_map(|hook| run_one(point, hook, state).err()).collect()
}

fn run_one(point: &'static str, hook: &Hook, state: &State) -> Result<()> {
    let fail = |problem: String| Error::Hook { point, path: hook.path.clone(), problem };
    let failed = |error: io::Error| fail(error.to_string());
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(args);
    }
    let env = hook.env.iter().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(env).stdout(Stdio::null()).stderr(Stdio::piped());
    command.stdin(state_file(state).map_err(failed)?);
    let mut child = process::with_fresh_signals(&mut command).spawn().map_err(failed)?;
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds)));
    let mut stderr = Vec::new();
    let ended = attend(&mut child, deadline, &mut stderr);
    if !matches!(ended, Ok(Some(_))) {
        // It is our child and not reaped yet, so the kill hits the right process.
        let _ = child.kill();
        let _ = child.wait();
    }
    let stderr = String::from_utf8_lossy(&stderr);
    let with_words = |text: String| match stderr.trim() {
        "" => text,
        words => format!("{text}: {words}"),
    };
    match ended.map_err(failed)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(fail(with_words(status.to_string()))),
        None => {
            let seconds = hook.timeout.unwrap_or_default();
            Err(fail(with_words(format!("did not end within {seconds} s"))))
        }
    }
}

/// The state as a file: a hook may read it or not, and nobody waits for it.
fn state_file(state: &State) -> io::Result<Stdio> {
    let fd = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&serde_json::to_vec(state)?)?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

/// As much of a hook's standard error as is shown.
const SHOWN: usize = 4096;

/// Waits for the end, and takes what the hook writes meanwhile; none at the deadline. What processes write that the hook
/// leaves behind is not waited for.
fn attend(
    child: &mut Child,
    deadline: Option<Instant>,
    shown: &mut Vec<u8>,
) -> io::Result<Option<ExitStatus>> {
    let pidfd = process::pidfd(child.id().cast_signed())?;
    let mut stderr = child.stderr.take().map(OwnedFd::from);
    if let Some(stderr) = &stderr {
        rustix::fs::fcntl_setfl(stderr, OFlags::NONBLOCK)?;
    }
    loop {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        fds.extend(stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ended = !fds[0].revents().is_empty();
        let open = stderr.as_ref().is_some_and(|stderr| take_words(stderr, shown));
        if !open {
            stderr = None;
        }
        if ended {
            return child.wait().map(Some);
        }
    }
}

/// Reads what is there; false at the end.
fn take_words(stderr: &OwnedFd, shown: &mut Vec<u8>) -> bool {
    let mut buffer = [0_u8; SHOWN];
    loop {
        match rustix::io::read(stderr, &mut buffer) {
            Ok(0) => return false,
            // More is read, so that the hook is not held up, and dropped.
            Ok(length) => shown.extend(&buffer[..length.min(SHOWN - shown.len())]),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
}
