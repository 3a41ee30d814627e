//! What a group uses: CPU, memory, processes, block devices, the same shape on v1 and v2.

use std::collections::BTreeMap;

use super::{Cgroup, Version};

/// One reading; a controller that the host lacks reads as zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes.
    pub pids: PidsStats,
    /// Block devices.
    pub block: Vec<BlockStats>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// All.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// By CPU (v1).
    pub per_cpu: Vec<u64>,
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Periods in which it was throttled.
    pub throttled_periods: u64,
    /// Time for which it was throttled.
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage: u64,
    /// The most that was in use.
    pub max_usage: u64,
    /// Limit; u64::MAX without one.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// memory.stat.
    pub detail: BTreeMap<String, u64>,
    /// Which hierarchy `detail` comes from.
    pub v2: bool,
}

/// Number of processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// Limit; none without one.
    pub limit: Option<u64>,
}

/// Totals of one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockStats {
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

pub(super) fn oom_kills(group: &Cgroup) -> u64 {
    let text = group.file("memory", "memory.oom_control", "memory.events").unwrap_or_default();
    flat(&text).get("oom_kill").copied().unwrap_or(0)
}

pub(super) fn read_stats(group: &Cgroup) -> Stats {
    let v2 = group.folders().iter().all(|folder| folder.version == Version::V2);
    Stats {
        cpu: if v2 { cpu_v2(group) } else { cpu_v1(group) },
        memory: if v2 { memory_v2(group) } else { memory_v1(group) },
        pids: PidsStats {
            current: number(group.file("pids", "pids.current", "pids.current")).unwrap_or(0),
            limit: number(group.file("pids", "pids.max", "pids.max")),
        },
        block: if v2 { block_v2(group) } else { block_v1(group) },
    }
}

fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

/// Lines of `key value`.
fn flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn cpu_v1(group: &Cgroup) -> CpuStats {
    let file = |controller: &str, name: &str| group.file(controller, name, name);
    let throttling = flat(&file("cpu", "cpu.stat").unwrap_or_default());
    let get = |key: &str| throttling.get(key).copied().unwrap_or(0);
    let per_cpu = file("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
    CpuStats {
        usage: number(file("cpuacct", "cpuacct.usage")).unwrap_or(0),
        user: number(file("cpuacct", "cpuacct.usage_user")).unwrap_or(0),
        system: number(file("cpuacct", "cpuacct.usage_sys")).unwrap_or(0),
        per_cpu: per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_time"),
    }
}

fn cpu_v2(group: &Cgroup) -> CpuStats {
    let stat = flat(&group.file("cpu", "", "cpu.stat").unwrap_or_default());
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    CpuStats {
        usage: get("usage_usec") * 1000,
        user: get("user_usec") * 1000,
        system: get("system_usec") * 1000,
        per_cpu: Vec::new(),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_usec") * 1000,
    }
}

/// v1 shows "no limit" as the largest page-aligned number.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

fn memory_v1(group: &Cgroup) -> MemoryStats {
    let file = |name: &str| group.file("memory", name, name);
    let limit = number(file("memory.limit_in_bytes")).unwrap_or(u64::MAX);
    MemoryStats {
        usage: number(file("memory.usage_in_bytes")).unwrap_or(0),
        max_usage: number(file("memory.max_usage_in_bytes")).unwrap_or(0),
        limit: if limit >= V1_UNLIMITED { u64::MAX } else { limit },
        failures: number(file("memory.failcnt")).unwrap_or(0),
        detail: flat(&file("memory.stat").unwrap_or_default()),
        v2: false,
    }
}

fn memory_v2(group: &Cgroup) -> MemoryStats {
    let file = |name: &str| group.file("memory", name, name);
    let events = flat(&file("memory.events").unwrap_or_default());
    MemoryStats {
        usage: number(file("memory.current")).unwrap_or(0),
        max_usage: number(file("memory.peak")).unwrap_or(0),
        limit: number(file("memory.max")).unwrap_or(u64::MAX),
        failures: events.get("max").copied().unwrap_or(0),
        detail: flat(&file("memory.stat").unwrap_or_default()),
        v2: true,
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn block_v1(group: &Cgroup) -> Vec<BlockStats> {
    let mut devices: BTreeMap<(u64, u64), BlockStats> = BTreeMap::new();
    for (file, bytes) in [("blkio.throttle.io_service_bytes", true), ("blkio.throttle.io_serviced", false)] {
        let text = group.file("blkio", file, file).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(key), Some(what), Some(value)) =
                (words.next().and_then(device), words.next(), words.next())
            else {
                continue;
            };
            let value = value.parse().unwrap_or(0);
            let entry =
                devices.entry(key).or_insert(BlockStats { major: key.0, minor: key.1, ..Default::default() });
            match (what, bytes) {
                ("Read", true) => entry.read_bytes = value,
                ("Write", true) => entry.write_bytes = value,
                ("Read", false) => entry.reads = value,
                ("Write", false) => entry.writes = value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

fn block_v2(group: &Cgroup) -> Vec<BlockStats> {
    let text = group.file("io", "", "io.stat").unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = device(words.next()?)?;
        let mut entry = BlockStats { major, minor, ..BlockStats::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "rios" => entry.reads = value,
                "wios" => entry.writes = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(line).collect()
}
