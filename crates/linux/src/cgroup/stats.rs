//! What a group uses: CPU, memory, processes, block devices, the same shape on v1 and v2.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use super::{Cgroup, CgroupError, Version};
use crate::pseudo_file;

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
    /// Huge pages.
    pub huge_pages: Vec<HugePageStats>,
}

/// Use of huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugePageStats {
    /// `2MB`, `1GB`.
    pub size: String,
    /// In use.
    pub usage: u64,
    /// The most that was in use (v1).
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
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
    /// Swap in use (v2; for v1 see [`super::Details::memory_and_swap`]).
    pub swap_usage: u64,
    /// Its limit (v2); u64::MAX without one.
    pub swap_limit: u64,
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

/// v1 announces them on an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, 10), v2 by a change of memory.events.
pub(super) fn oom_watch(group: &Cgroup) -> Result<OwnedFd, CgroupError> {
    let missing = CgroupError::NoController { setting: "memory kills".into(), controller: "memory".into() };
    let (folder, version) = group.folder_of("memory").ok_or(missing)?;
    let fail = |path: &Path, source: io::Error| CgroupError::Read { path: path.to_owned(), source };
    if version == Version::V1 {
        let control = folder.join("memory.oom_control");
        let file = std::fs::File::open(&control).map_err(|source| fail(&control, source))?;
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        let event = rustix::event::eventfd(0, flags).map_err(|error| fail(&control, error.into()))?;
        let text = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
        super::write(&folder.join("cgroup.event_control"), &text)?;
        return Ok(event);
    }
    use rustix::fs::inotify;
    let events = folder.join("memory.events");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(|error| fail(&events, error.into()))?;
    inotify::add_watch(&watch, &events, inotify::WatchFlags::MODIFY)
        .map_err(|error| fail(&events, error.into()))?;
    Ok(watch)
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
        huge_pages: huge_pages(group),
    }
}

pub(super) fn number(text: Option<String>) -> Option<u64> {
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
pub const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

fn memory_v1(group: &Cgroup) -> MemoryStats {
    let file = |name: &str| group.file("memory", name, name);
    let limit = number(file("memory.limit_in_bytes")).unwrap_or(u64::MAX);
    MemoryStats {
        usage: number(file("memory.usage_in_bytes")).unwrap_or(0),
        max_usage: number(file("memory.max_usage_in_bytes")).unwrap_or(0),
        limit: if limit >= V1_UNLIMITED { u64::MAX } else { limit },
        failures: number(file("memory.failcnt")).unwrap_or(0),
        swap_usage: 0,
        swap_limit: 0,
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
        swap_usage: number(file("memory.swap.current")).unwrap_or(0),
        // Without the file the kernel has no swap to give.
        swap_limit: file("memory.swap.max").map_or(0, |text| text.trim().parse().unwrap_or(u64::MAX)),
        detail: flat(&file("memory.stat").unwrap_or_default()),
        v2: true,
    }
}

/// Sizes are found by the names of the files: those of the pages that the kernel knows.
fn huge_pages(group: &Cgroup) -> Vec<HugePageStats> {
    let Some((folder, version)) = group.folder_of("hugetlb") else { return Vec::new() };
    let suffix = if version == Version::V1 { ".usage_in_bytes" } else { ".current" };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> =
        entries.filter_map(|entry| size(entry.file_name().into_string().ok()?)).collect();
    sizes.sort();
    let read = |size: &str, file: &str| {
        number(pseudo_file::read_to_string(folder.join(format!("hugetlb.{size}.{file}"))).ok()).unwrap_or(0)
    };
    let stats = |size: String| match version {
        Version::V1 => HugePageStats {
            usage: read(&size, "usage_in_bytes"),
            max_usage: read(&size, "max_usage_in_bytes"),
            failures: read(&size, "failcnt"),
            size,
        },
        Version::V2 => {
            let events = pseudo_file::read_to_string(folder.join(format!("hugetlb.{size}.events")));
            let failures = flat(&events.unwrap_or_default()).get("max").copied().unwrap_or(0);
            HugePageStats { usage: read(&size, "current"), max_usage: 0, failures, size }
        }
    };
    sizes.into_iter().map(stats).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn block_v1(group: &Cgroup) -> Vec<BlockStats> {
    let mut devices: BTreeMap<(u64, u64), BlockStats> = BTreeMap::new();
    for (file, bytes) in [("blkio.throttle.io_service_bytes", true), ("blkio.throttle.io_serviced", false)] {
        // With those of groups that the container has made below its own.
        let recursive = format!("{file}_recursive");
        let text = group.file("blkio", &recursive, &recursive).or_else(|| group.file("blkio", file, file));
        let text = text.unwrap_or_default();
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
