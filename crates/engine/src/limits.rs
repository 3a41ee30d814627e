//! Limits of resources: from Docker's numbers to those of an OCI configuration, checked.

use crate::error::{Result, parameter};
use gantry_model::container::{Resources, ThrottleDevice, Ulimit};
use gantry_runtime::oci;
use rustix::fs::FileType;

/// Less memory than this cannot even hold a start (Docker refuses it too).
const LEAST_MEMORY: i64 = 6 << 20;
/// Microseconds of one CPU period by default.
const PERIOD: i64 = 100_000;

/// What this host has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Available {
    /// How many CPUs.
    pub cpus: i64,
    /// Which CPUs, `0-3`; empty: unknown.
    pub cpu_list: String,
    /// Which memory nodes, `0`; empty: unknown.
    pub memory_nodes: String,
}

impl Available {
    /// Asks the kernel.
    pub fn of_this_host() -> Self {
        let list = |kind: &str| {
            let path = format!("/sys/devices/system/{kind}/online");
            // A kernel without NUMA has no such file, and refuses by itself.
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpus: i64::try_from(cpus).unwrap_or(i64::MAX),
            cpu_list: list("cpu"),
            memory_nodes: list("node"),
        }
    }
}

/// Refuses contradictory or impossible limits.
pub(crate) fn check(r: &Resources, available: &Available) -> Result<()> {
    let cpus = available.cpus;
    if r.memory < 0 || (r.memory > 0 && r.memory < LEAST_MEMORY) {
        return Err(parameter("Minimum memory limit allowed is 6MB"));
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return Err(parameter("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return Err(parameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if r.memory > 0 && r.memory_reservation > r.memory {
        return Err(parameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if r.memory_swappiness.is_some_and(|s| !(-1..=100).contains(&s)) {
        return Err(parameter(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            r.memory_swappiness.unwrap_or_default()
        )));
    }
    if r.nano_cpus < 0 || r.nano_cpus > cpus * 1_000_000_000 {
        return Err(parameter(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if r.nano_cpus > 0 && (r.cpu_quota > 0 || r.cpu_period > 0) {
        return Err(parameter("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set"));
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return Err(parameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return Err(parameter("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if r.blkio_weight != 0 && !(10..=1000).contains(&r.blkio_weight) {
        return Err(parameter("Range of blkio weight is from 10 to 1000"));
    }
    if !r.device_requests.is_empty() {
        return Err(parameter("could not select device driver: this engine has none for GPUs"));
    }
    cpuset(("cpuset cpus", "CPUs"), &r.cpuset_cpus, &available.cpu_list)?;
    cpuset(("cpuset mems", "memory nodes"), &r.cpuset_mems, &available.memory_nodes)
}

/// Checks a list such as `0-2,4` against what there is; `names` are those of the field and of what it lists.
fn cpuset(names: (&str, &str), text: &str, available: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let Some(wanted) = ranges(text) else {
        return Err(parameter(format!("Invalid value {text} for {}: invalid format: {text}", names.0)));
    };
    let has = ranges(available).unwrap_or_default();
    let there =
        |(from, to): &(u32, u32)| (*from..=*to).all(|n| has.iter().any(|(a, b)| (a..=b).contains(&&n)));
    if has.is_empty() || wanted.iter().all(there) {
        return Ok(());
    }
    Err(parameter(format!(
        "Requested {} are not available - requested {text}, available: {available}",
        names.1
    )))
}

/// `0-2,4` as ranges.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    // More than any kernel has: a range up to it is gone through one by one.
    const MOST: u32 = 8192;
    let one = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to && to <= MOST).then_some((from, to))
    };
    text.split(',').map(one).collect()
}

/// The limits as OCI writes them, without device rules.
pub(crate) fn to_oci(r: &Resources) -> Result<oci::Resources> {
    let some = |n: i64| (n != 0).then_some(n);
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let memory = oci::Memory {
        limit: some(r.memory),
        reservation: some(r.memory_reservation),
        swap: swap(r),
        swappiness: r.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        disable_oom_killer: r.oom_kill_disable.filter(|on| *on),
        ..oci::Memory::default()
    };
    let (mut quota, mut period) = (some(r.cpu_quota), positive(r.cpu_period));
    if r.nano_cpus > 0 {
        period = positive(PERIOD);
        // At least 1 ms in each period, the least that the kernel takes.
        quota = Some((r.nano_cpus * PERIOD / 1_000_000_000).max(1_000));
    }
    let text = |s: &String| (!s.is_empty()).then(|| s.clone());
    let cpu = oci::Cpu {
        shares: positive(r.cpu_shares),
        quota,
        period,
        realtime_runtime: some(r.cpu_realtime_runtime),
        realtime_period: positive(r.cpu_realtime_period),
        cpus: text(&r.cpuset_cpus),
        mems: text(&r.cpuset_mems),
        ..oci::Cpu::default()
    };
    let pids = r.pids_limit.filter(|n| *n != 0).map(|limit| oci::Pids { limit });
    Ok(oci::Resources {
        memory: (memory != oci::Memory::default()).then_some(memory),
        cpu: (cpu != oci::Cpu::default()).then_some(cpu),
        pids,
        block_io: block_io(r)?,
        ..oci::Resources::default()
    })
}

/// Memory and swap together: twice the memory unless said otherwise.
pub(crate) fn swap(r: &Resources) -> Option<i64> {
    match (r.memory, r.memory_swap) {
        (memory, 0) if memory > 0 => Some(memory.saturating_mul(2)),
        (_, 0) => None,
        (_, swap) => Some(swap),
    }
}

fn block_io(r: &Resources) -> Result<Option<oci::BlockIo>> {
    let throttle = |list: &[ThrottleDevice]| {
        list.iter()
            .map(|d| {
                let (major, minor) = device_number(&d.path, FileType::BlockDevice)?;
                Ok(oci::ThrottleDevice { major, minor, rate: d.rate })
            })
            .collect::<Result<Vec<_>>>()
    };
    let weights = r
        .blkio_weight_device
        .iter()
        .map(|d| {
            let (major, minor) = device_number(&d.path, FileType::BlockDevice)?;
            Ok(oci::WeightDevice { major, minor, weight: Some(d.weight), leaf_weight: None })
        })
        .collect::<Result<Vec<_>>>()?;
    let limits = oci::BlockIo {
        weight: (r.blkio_weight != 0).then_some(r.blkio_weight),
        weight_device: weights,
        throttle_read_bps_device: throttle(&r.blkio_device_read_bps)?,
        throttle_write_bps_device: throttle(&r.blkio_device_write_bps)?,
        throttle_read_iops_device: throttle(&r.blkio_device_read_iops)?,
        throttle_write_iops_device: throttle(&r.blkio_device_write_iops)?,
        ..oci::BlockIo::default()
    };
    Ok((limits != oci::BlockIo::default()).then_some(limits))
}

/// Major and minor number of a device node on the host.
fn device_number(path: &str, wanted: FileType) -> Result<(i64, i64)> {
    let stat = rustix::fs::stat(path)
        .map_err(|error| parameter(format!("error gathering device information of {path:?}: {error}")))?;
    if FileType::from_raw_mode(stat.st_mode) != wanted {
        return Err(parameter(format!("{path:?} is not a block device")));
    }
    Ok((i64::from(rustix::fs::major(stat.st_rdev)), i64::from(rustix::fs::minor(stat.st_rdev))))
}

/// Limits of processes as OCI writes them; the container's over the defaults.
pub(crate) fn rlimits(own: &[Ulimit], defaults: &[Ulimit]) -> Result<Vec<oci::Rlimit>> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let inherited = defaults.iter().filter(|d| !own.iter().any(|o| o.name == d.name));
    own.iter()
        .chain(inherited)
        .map(|limit| {
            if !NAMES.contains(&limit.name.as_str()) {
                return Err(parameter(format!("invalid ulimit type: {}", limit.name)));
            }
            let number = |n: i64| if n < 0 { u64::MAX } else { n.unsigned_abs() };
            let (soft, hard) = (number(limit.soft), number(limit.hard));
            if soft > hard {
                return Err(parameter(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    limit.soft, limit.hard
                )));
            }
            Ok(oci::Rlimit { kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()), soft, hard })
        })
        .collect()
}

/// The limits of `old` with what `new` sets, for `docker update`.
pub(crate) fn updated(old: &Resources, new: &Resources) -> Resources {
    let mut merged = old.clone();
    let take = |mine: &mut i64, other: i64| {
        if other != 0 {
            *mine = other;
        }
    };
    take(&mut merged.cpu_shares, new.cpu_shares);
    take(&mut merged.memory, new.memory);
    take(&mut merged.memory_swap, new.memory_swap);
    take(&mut merged.memory_reservation, new.memory_reservation);
    take(&mut merged.cpu_period, new.cpu_period);
    take(&mut merged.cpu_quota, new.cpu_quota);
    take(&mut merged.cpu_realtime_period, new.cpu_realtime_period);
    take(&mut merged.cpu_realtime_runtime, new.cpu_realtime_runtime);
    if new.nano_cpus != 0 {
        merged.nano_cpus = new.nano_cpus;
        (merged.cpu_period, merged.cpu_quota) = (0, 0);
    } else if new.cpu_quota != 0 || new.cpu_period != 0 {
        merged.nano_cpus = 0;
    }
    if new.blkio_weight != 0 {
        merged.blkio_weight = new.blkio_weight;
    }
    for (mine, other) in
        [(&mut merged.cpuset_cpus, &new.cpuset_cpus), (&mut merged.cpuset_mems, &new.cpuset_mems)]
    {
        if !other.is_empty() {
            mine.clone_from(other);
        }
    }
    merged.pids_limit = new.pids_limit.or(merged.pids_limit);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_cpus() -> Available {
        Available { cpus: 2, cpu_list: "0-1".to_owned(), memory_nodes: "0".to_owned() }
    }

    #[test]
    fn cpus_and_memory_nodes_that_are_not_there_are_named() {
        let refusal = |cpus: &str, nodes: &str| {
            let r = Resources {
                cpuset_cpus: cpus.to_owned(),
                cpuset_mems: nodes.to_owned(),
                ..Resources::default()
            };
            check(&r, &two_cpus()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refusal("0-1", "0"), "");
        assert_eq!(refusal("1,7", ""), "Requested CPUs are not available - requested 1,7, available: 0-1");
        assert_eq!(refusal("", "1"), "Requested memory nodes are not available - requested 1, available: 0");
        assert_eq!(
            refusal("0-4294967295", ""),
            "Invalid value 0-4294967295 for cpuset cpus: invalid format: 0-4294967295"
        );
        // Without a list of the kernel's there is nothing to compare with.
        let r = Resources { cpuset_mems: "1".to_owned(), ..Resources::default() };
        assert!(check(&r, &Available { memory_nodes: String::new(), ..two_cpus() }).is_ok());
    }

    #[test]
    fn dockers_numbers_become_ocis() {
        let r = Resources {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: Some(7),
            ..Resources::default()
        };
        check(&r, &two_cpus()).unwrap();
        let oci = to_oci(&r).unwrap();
        assert_eq!(oci.memory.as_ref().unwrap().swap, Some(128 << 20));
        let cpu = oci.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
        assert_eq!(oci.pids.unwrap().limit, 7);
        assert_eq!(to_oci(&Resources::default()).unwrap(), oci::Resources::default());
    }

    #[test]
    fn impossible_limits_are_refused() {
        let bad = [
            Resources { memory: 1024, ..Resources::default() },
            Resources { memory: 64 << 20, memory_swap: 1 << 20, ..Resources::default() },
            Resources { nano_cpus: 3_000_000_000, ..Resources::default() },
            Resources { cpuset_cpus: "1-0".to_owned(), ..Resources::default() },
            Resources { cpu_period: 1, ..Resources::default() },
        ];
        for r in bad {
            assert!(check(&r, &two_cpus()).is_err(), "{r:?}");
        }
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let old = Resources { memory: 64 << 20, cpu_quota: 5000, cpu_period: 10_000, ..Resources::default() };
        let new = Resources { nano_cpus: 500_000_000, ..Resources::default() };
        let merged = updated(&old, &new);
        assert_eq!((merged.memory, merged.nano_cpus, merged.cpu_quota), (64 << 20, 500_000_000, 0));
    }

    #[test]
    fn ulimits_are_named_and_ordered() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
        let set =
            rlimits(&[limit("nofile", 10, 20)], &[limit("nofile", 1, 1), limit("core", -1, -1)]).unwrap();
        assert_eq!(set.len(), 2);
        assert_eq!((set[0].kind.as_str(), set[0].soft), ("RLIMIT_NOFILE", 10));
        assert_eq!(set[1].hard, u64::MAX);
        assert!(rlimits(&[limit("wings", 1, 1)], &[]).is_err());
        assert!(rlimits(&[limit("nofile", 2, 1)], &[]).is_err());
    }
}
