//! Resource limits by their names.

use std::io;

use rustix::process::{Pid, Resource, Rlimit, prlimit, setrlimit};

/// A resource that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited(Resource);

impl Limited {
    /// By its name, such as `RLIMIT_NOFILE`.
    pub fn from_name(name: &str) -> Option<Limited> {
        Some(Limited(match name {
            "RLIMIT_AS" => Resource::As,
            "RLIMIT_CORE" => Resource::Core,
            "RLIMIT_CPU" => Resource::Cpu,
            "RLIMIT_DATA" => Resource::Data,
            "RLIMIT_FSIZE" => Resource::Fsize,
            "RLIMIT_LOCKS" => Resource::Locks,
            "RLIMIT_MEMLOCK" => Resource::Memlock,
            "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
            "RLIMIT_NICE" => Resource::Nice,
            "RLIMIT_NOFILE" => Resource::Nofile,
            "RLIMIT_NPROC" => Resource::Nproc,
            "RLIMIT_RSS" => Resource::Rss,
            "RLIMIT_RTPRIO" => Resource::Rtprio,
            "RLIMIT_RTTIME" => Resource::Rttime,
            "RLIMIT_SIGPENDING" => Resource::Sigpending,
            "RLIMIT_STACK" => Resource::Stack,
            _ => return None,
        }))
    }

    /// Sets both limits of the calling process; `u64::MAX` is infinity.
    pub fn set(self, soft: u64, hard: u64) -> io::Result<()> {
        Ok(setrlimit(self.0, bounds(soft, hard))?)
    }

    /// Sets both limits of another process.
    pub fn set_for(self, pid: i32, soft: u64, hard: u64) -> io::Result<()> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        prlimit(Some(pid), self.0, bounds(soft, hard))?;
        Ok(())
    }
}

fn bounds(soft: u64, hard: u64) -> Rlimit {
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    Rlimit { current: bound(soft), maximum: bound(hard) }
}
