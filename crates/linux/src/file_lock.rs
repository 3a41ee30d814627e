//! Exclusive locks on files (flock(2)) that tell which one process may work on a folder.

use rustix::fd::AsFd;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::io;
use std::time::{Duration, Instant};

/// A process that was killed while it was starting another one keeps its locks until that one has called exec(3): longer than
/// that is somebody else's lock.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes the lock, which ends with the last descriptor of this open file. `false`: another process has it and keeps it.
pub fn take(file: impl AsFd) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if start.elapsed() > PATIENCE => return Ok(false),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(10)),
            Err(errno) => return Err(errno.into()),
        }
    }
}
