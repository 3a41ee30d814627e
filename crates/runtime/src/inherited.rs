//! Descriptors beyond the standard ones that a program inherits: sockets of activation, then those of `--preserve-fds`.

use std::{fs, io};

use crate::error::{Error, Result};

/// How many there are, from descriptor 3 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Sockets by which whoever started the runtime activates the container (sd_listen_fds(3)).
    sockets: u16,
    /// Others.
    others: u16,
}

impl Inherited {
    /// What this process was given, with so many behind the sockets; each must be open.
    pub fn take(others: u16) -> Result<Inherited> {
        let inherited = Inherited { sockets: activation(), others };
        for number in 3..3 + inherited.count() {
            if !is_open(number) {
                return Err(Error::Usage(format!(
                    "descriptor {number} is to be preserved (--preserve-fds {others}), but it is not open"
                )));
            }
        }
        Ok(inherited)
    }

    /// How many descriptors there are after the third.
    pub fn count(self) -> i32 {
        i32::from(self.sockets) + i32::from(self.others)
    }

    /// What the program is told of the sockets; the process that calls this becomes the program.
    pub fn tell(self, env: &mut Vec<String>) {
        if self.sockets > 0 {
            env.push(format!("LISTEN_FDS={}", self.sockets));
            env.push(format!("LISTEN_PID={}", std::process::id()));
            if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
                env.push(format!("LISTEN_FDNAMES={names}"));
            }
        }
    }
}

/// LISTEN_FDS, when LISTEN_PID says that it is meant for this process.
fn activation() -> u16 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| ours).and_then(|count| u16::try_from(count).ok()).unwrap_or(0)
}

/// A descriptor that this program has opened closes at an exec and so was not inherited.
fn is_open(number: i32) -> bool {
    let info: io::Result<String> = fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
    let flags = info.ok().and_then(|text| {
        let octal = text.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        i32::from_str_radix(&octal, 8).ok()
    });
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC == 0)
}
