//! Statistics of a running container at one moment, as its cgroups and its network namespace report them.

use jiff::Timestamp;
use std::collections::BTreeMap;

/// A container's use of resources at one moment.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// When it was read; the epoch when the container does not run.
    pub read: Timestamp,
    /// CPU.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes now.
    pub pids: u64,
    /// Processes allowed; none: no limit.
    pub pids_limit: Option<u64>,
    /// Block I/O.
    pub blkio: Vec<BlkioEntry>,
    /// Network interfaces by name.
    pub networks: BTreeMap<String, InterfaceStats>,
}

/// CPU time, all in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct CpuStats {
    /// Used by the container.
    pub total: u64,
    /// Of it in user mode.
    pub user: u64,
    /// Of it in the kernel.
    pub system: u64,
    /// Used by the whole host since boot.
    pub host: u64,
    /// CPUs of the host.
    pub online: u32,
    /// By CPU (cgroup v1 only).
    pub per_cpu: Vec<u64>,
    /// Enforcement periods.
    pub periods: u64,
    /// Periods in which it was throttled.
    pub throttled_periods: u64,
    /// Time for which it was throttled.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default)]
pub struct MemoryStats {
    /// Used now.
    pub usage: u64,
    /// Most used (cgroup v1 only).
    pub max_usage: u64,
    /// Limit, or the host's memory.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The kernel's own counters.
    pub counters: BTreeMap<String, u64>,
}

/// I/O on one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Counters of one network interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Not sent and dropped.
    pub tx_dropped: u64,
}

/// The counters of all interfaces but the loopback in the text of `/proc/PID/net/dev`.
pub(crate) fn interfaces(text: &str) -> BTreeMap<String, InterfaceStats> {
    let mut found = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let n: Vec<u64> = numbers.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
        if name.trim() == "lo" || n.len() < 12 {
            continue;
        }
        let stats = InterfaceStats {
            rx_bytes: n[0],
            rx_packets: n[1],
            rx_errors: n[2],
            rx_dropped: n[3],
            tx_bytes: n[8],
            tx_packets: n[9],
            tx_errors: n[10],
            tx_dropped: n[11],
        };
        found.insert(name.trim().to_owned(), stats);
    }
    found
}

/// The host's CPU time since boot in the text of `/proc/stat`, in nanoseconds (idle time included, as Docker counts it).
pub(crate) fn host_cpu(text: &str, ticks_per_second: u64) -> u64 {
    let line = text.lines().next().unwrap_or_default();
    let ticks: u64 = line.split_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks.saturating_mul(1_000_000_000 / ticks_per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read_without_the_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
            face |bytes    packets errs drop fifo frame compressed multicast|bytes\n\
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n\
            eth0:     200       2    3    4    0     0          0         0      500       6    7    8    0     0       0          0\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 1);
        let eth0 = all["eth0"];
        assert_eq!((eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped), (200, 2, 3, 4));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (500, 6, 7, 8));
    }

    #[test]
    fn host_cpu_is_in_nanoseconds() {
        assert_eq!(host_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1", 100), 28 * 10_000_000);
    }
}
