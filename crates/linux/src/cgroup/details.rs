//! What only `events` tells of a group: its CPUs and memory nodes, the kernel's own memory, stalls.

use std::collections::BTreeMap;

use super::{Cgroup, Version, stats};
use crate::{pseudo_file, scheduling::BitList};

/// One reading; what the host lacks is left out or zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// CPUs and memory nodes.
    pub cpuset: CpusetDetails,
    /// v1: CPU time in nanoseconds of each CPU, in user mode and in the kernel.
    pub per_cpu: Vec<(u64, u64)>,
    /// v1: memory and swap together.
    pub memory_and_swap: Counter,
    /// v1: the kernel's memory.
    pub kernel: Counter,
    /// v1: buffers of TCP.
    pub kernel_tcp: Counter,
    /// v2: stalls for want of CPU time, memory, devices (Documentation/accounting/psi.rst).
    pub cpu_pressure: Option<Pressure>,
    /// As above.
    pub memory_pressure: Option<Pressure>,
    /// As above.
    pub io_pressure: Option<Pressure>,
}

/// CPUs and memory nodes of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpusetDetails {
    /// The CPUs.
    pub cpus: Vec<u32>,
    /// The memory nodes.
    pub memory_nodes: Vec<u32>,
    /// The other files of cpuset(7), without `cpuset.`; 0 on v2, which has none of them.
    pub settings: BTreeMap<&'static str, i64>,
}

/// A v1 counter of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// In use.
    pub usage: u64,
    /// The most that was in use.
    pub max_usage: u64,
    /// Limit, as the kernel shows it.
    pub limit: u64,
    /// How often it was hit.
    pub failures: u64,
}

/// Stalls of some and of all tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stalls,
    /// All waited at once.
    pub full: Stalls,
}

/// Shares of time in percent, and a total.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stalls {
    /// Of the last 10 seconds.
    pub of_10_s: f64,
    /// Of the last minute.
    pub of_60_s: f64,
    /// Of the last five minutes.
    pub of_300_s: f64,
    /// Since it was made, in microseconds.
    pub total: u64,
}

/// Files of cpuset(7) with one number.
const CPUSET_SETTINGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

pub(super) fn read(group: &Cgroup) -> Details {
    let pressure = |name: &str| {
        let folder = group.unified()?;
        pressure(&pseudo_file::read_to_string(folder.path.join(name)).ok()?)
    };
    Details {
        cpuset: cpuset(group),
        per_cpu: per_cpu(&v1_file(group, "cpuacct", "cpuacct.usage_all").unwrap_or_default()),
        memory_and_swap: counter(group, "memory.memsw"),
        kernel: counter(group, "memory.kmem"),
        kernel_tcp: counter(group, "memory.kmem.tcp"),
        cpu_pressure: pressure("cpu.pressure"),
        memory_pressure: pressure("memory.pressure"),
        io_pressure: pressure("io.pressure"),
    }
}

fn v1_file(group: &Cgroup, controller: &str, name: &str) -> Option<String> {
    pseudo_file::read_to_string(group.v1(controller)?.path.join(name)).ok()
}

fn cpuset(group: &Cgroup) -> CpusetDetails {
    let place = group.folder_of("cpuset");
    let read = |name: &str| {
        place.and_then(|(folder, _)| pseudo_file::read_to_string(folder.join(name)).ok()).unwrap_or_default()
    };
    // On v2 a group without numbers of its own has those of its parent.
    let (cpus, nodes) = match place {
        Some((_, Version::V2)) => ("cpuset.cpus.effective", "cpuset.mems.effective"),
        _ => ("cpuset.cpus", "cpuset.mems"),
    };
    let setting = |name: &'static str| (name, read(&format!("cpuset.{name}")).trim().parse().unwrap_or(0));
    CpusetDetails {
        cpus: list(&read(cpus)),
        memory_nodes: list(&read(nodes)),
        settings: CPUSET_SETTINGS.into_iter().map(setting).collect(),
    }
}

/// Numbers of `0-2,4` (cpuset(7), "List format").
fn list(text: &str) -> Vec<u32> {
    BitList::parse(text.trim()).map(|list| list.numbers().collect()).unwrap_or_default()
}

/// Lines of `cpu user system` below a heading.
fn per_cpu(text: &str) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn counter(group: &Cgroup, prefix: &str) -> Counter {
    let number =
        |name: &str| stats::number(v1_file(group, "memory", &format!("{prefix}.{name}"))).unwrap_or(0);
    Counter {
        usage: number("usage_in_bytes"),
        max_usage: number("max_usage_in_bytes"),
        limit: number("limit_in_bytes"),
        failures: number("failcnt"),
    }
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; older kernels have no `full` for the CPU.
fn pressure(text: &str) -> Option<Pressure> {
    let stalls = |which: &str| {
        let mut stalls = Stalls::default();
        let line = text.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(' '))?;
        for (key, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stalls.of_10_s = value.parse().ok()?,
                "avg60" => stalls.of_60_s = value.parse().ok()?,
                "avg300" => stalls.of_300_s = value.parse().ok()?,
                "total" => stalls.total = value.parse().ok()?,
                _ => {}
            }
        }
        Some(stalls)
    };
    Some(Pressure { some: stalls("some")?, full: stalls("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_those_of_cpuset() {
        assert_eq!(list("0-2,4\n"), [0, 1, 2, 4]);
        assert_eq!(list("3\n"), [3]);
        assert_eq!(list("\n"), [0_u32; 0]);
    }

    #[test]
    fn time_of_each_cpu_is_read_below_the_heading() {
        assert_eq!(per_cpu("cpu user system\n0 1500 20\n1 7 0\n"), [(1500, 20), (7, 0)]);
    }

    #[test]
    fn stalls_are_read_with_and_without_full() {
        let read = pressure("some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n").unwrap();
        assert_eq!(read.some, Stalls { of_10_s: 1.5, of_60_s: 0.25, of_300_s: 0.0, total: 1234 });
        assert_eq!(read.full, Stalls::default());
        let both = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(pressure(both).unwrap().full.total, 9);
        // Pressure that is turned off answers with an error, or with nothing.
        assert_eq!(pressure(""), None);
    }
}
