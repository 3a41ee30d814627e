//! Facts about this machine, as `version` and `info` show them.

use std::path::Path;

/// What does not change while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub hostname: String,
    /// Kernel.
    pub kernel: String,
    /// `x86_64`.
    pub machine: String,
    /// Name of the distribution.
    pub distribution: String,
    /// Version of the distribution.
    pub distribution_version: String,
    /// Processors.
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    /// 1 or 2.
    pub cgroup_version: u8,
}

impl Host {
    /// Looks.
    pub fn observe() -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| os_release(&release, name);
        Self {
            hostname: text(uname.nodename()),
            kernel: text(uname.release()),
            machine: text(uname.machine()),
            distribution: field("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            distribution_version: field("VERSION_ID").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            // Only a pure v2 host has the controllers' list at the root of the hierarchy.
            cgroup_version: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 },
        }
    }

    /// The machine in Go's words: `amd64`, `arm64`.
    pub fn go_arch(&self) -> &str {
        match self.machine.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "armv7l" | "armv6l" => "arm",
            "i686" | "i386" => "386",
            other => other,
        }
    }
}

/// Value of a field in os-release(5).
fn os_release(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned())
}

/// `MemTotal` of /proc/meminfo in bytes.
fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Open descriptors and threads of this process.
pub fn own_use() -> (i64, i64) {
    let count = |path: &str| {
        std::fs::read_dir(path).map_or(-1, |entries| i64::try_from(entries.count()).unwrap_or(-1))
    };
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Whether packets are forwarded between interfaces.
pub fn forwarding() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// Whether a v1 or v2 controller is there.
pub fn has_controller(name: &str) -> bool {
    let v1 = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let in_v1 = v1.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(name) && words.next_back() == Some("1")
    });
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    in_v1 || v2.split_whitespace().any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_their_files() {
        let release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\nID=debian\n";
        assert_eq!(os_release(release, "PRETTY_NAME").as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(os_release(release, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_release(release, "VERSION"), None);
        assert_eq!(memory("MemTotal:       1024 kB\nMemFree: 1 kB\n"), 1 << 20);
        let host = Host::observe();
        assert!(host.cpus > 0 && host.memory > 0 && !host.kernel.is_empty());
    }
}
