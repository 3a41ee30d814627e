//! Limits without regard to the version, and the files that they are written to on v1 and on v2.

use std::collections::BTreeMap;

use super::DeviceRule;

/// Everything that can be limited; what is none stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory.
    pub memory: MemoryLimits,
    /// CPU.
    pub cpu: CpuLimits,
    /// Number of processes; 0 or less is no limit.
    pub pids: Option<i64>,
    /// Block devices.
    pub block: BlockLimits,
    /// Page size (`2MB`) and bytes.
    pub huge_pages: Vec<(String, u64)>,
    /// Class of net_cls (v1).
    pub network_class: Option<u32>,
    /// Interface and priority of net_prio (v1).
    pub network_priorities: Vec<(String, u32)>,
    /// Device, HCA handles, HCA objects.
    pub rdma: Vec<(String, Option<u32>, Option<u32>)>,
    /// Files of v2, as they are.
    pub unified: BTreeMap<String, String>,
    /// Device rules in order; none leaves the devices alone.
    pub devices: Vec<DeviceRule>,
}

/// Memory limits in bytes; -1 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Soft limit.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    /// TCP buffers (v1).
    pub kernel_tcp: Option<i64>,
    /// 0 to 100 (v1).
    pub swappiness: Option<u64>,
    /// Pause instead of killing (v1).
    pub disable_oom_killer: Option<bool>,
}

/// CPU limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuLimits {
    /// Weight, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds in a period; 0 or less is no limit.
    pub quota: Option<i64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// Real-time microseconds in a period (v1).
    pub realtime_runtime: Option<i64>,
    /// Real-time period (v1).
    pub realtime_period: Option<u64>,
    /// CPUs.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub mems: Option<String>,
    /// 1 for idle.
    pub idle: Option<i64>,
}

/// A rate of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// In a second; 0 is no limit.
    pub rate: u64,
}

/// Limits of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// Weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Weights by device, in place of the rate.
    pub device_weights: Vec<Rate>,
    /// Bytes read.
    pub read_bytes: Vec<Rate>,
    /// Bytes written.
    pub write_bytes: Vec<Rate>,
    /// Reads.
    pub read_operations: Vec<Rate>,
    /// Writes.
    pub write_operations: Vec<Rate>,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Controller that has the file.
    pub controller: &'static str,
    /// The file.
    pub file: String,
    /// The value.
    pub value: String,
    /// Whether a kernel without the file is fine.
    pub optional: bool,
}

#[derive(Default)]
struct List(Vec<Setting>);

impl List {
    fn put(&mut self, controller: &'static str, file: impl Into<String>, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.push(Setting { controller, file: file.into(), value: value.to_string(), optional: false });
        }
    }

    fn put_optional(
        &mut self,
        controller: &'static str,
        file: impl Into<String>,
        value: Option<impl ToString>,
    ) {
        if let Some(value) = value {
            self.0.push(Setting { controller, file: file.into(), value: value.to_string(), optional: true });
        }
    }
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn pids_text(limit: i64) -> String {
    if limit <= 0 { "max".to_owned() } else { limit.to_string() }
}

impl Limits {
    /// The settings for v1 hierarchies.
    pub fn v1(&self) -> Vec<Setting> {
        let mut list = List::default();
        let memory = &self.memory;
        // Memory and swap together may not be less than memory alone: when the limit is lifted, so is theirs, first.
        let lift_first = memory.limit.is_some_and(|limit| limit < 0);
        if lift_first {
            list.put_optional("memory", "memory.memsw.limit_in_bytes", memory.swap.or(Some(-1)));
        }
        list.put("memory", "memory.limit_in_bytes", memory.limit);
        if !lift_first {
            list.put_optional("memory", "memory.memsw.limit_in_bytes", memory.swap);
        }
        list.put("memory", "memory.soft_limit_in_bytes", memory.reservation);
        list.put_optional("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp);
        list.put("memory", "memory.swappiness", memory.swappiness);
        list.put("memory", "memory.oom_control", memory.disable_oom_killer.filter(|off| *off).map(|_| 1));
        let cpu = &self.cpu;
        list.put("cpu", "cpu.shares", cpu.shares.filter(|shares| *shares != 0));
        list.put("cpu", "cpu.cfs_period_us", cpu.period.filter(|period| *period != 0));
        list.put("cpu", "cpu.cfs_quota_us", cpu.quota.filter(|quota| *quota != 0));
        list.put_optional("cpu", "cpu.cfs_burst_us", cpu.burst);
        list.put("cpu", "cpu.rt_period_us", cpu.realtime_period);
        list.put("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime);
        list.put_optional("cpu", "cpu.idle", cpu.idle);
        list.put("cpuset", "cpuset.cpus", cpu.cpus.clone().filter(|cpus| !cpus.is_empty()));
        list.put("cpuset", "cpuset.mems", cpu.mems.clone().filter(|mems| !mems.is_empty()));
        list.put("pids", "pids.max", self.pids.map(pids_text));
        self.block_v1(&mut list);
        for (size, bytes) in &self.huge_pages {
            list.put("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), Some(bytes));
        }
        list.put("net_cls", "net_cls.classid", self.network_class);
        for (interface, priority) in &self.network_priorities {
            list.put("net_prio", "net_prio.ifpriomap", Some(format!("{interface} {priority}")));
        }
        self.rdma_settings(&mut list);
        list.0
    }

    fn block_v1(&self, list: &mut List) {
        let block = &self.block;
        list.put_optional("blkio", "blkio.weight", block.weight.filter(|weight| *weight != 0));
        list.put_optional("blkio", "blkio.bfq.weight", block.weight.filter(|weight| *weight != 0));
        let rates = [
            ("blkio.bfq.weight_device", &block.device_weights, true),
            ("blkio.throttle.read_bps_device", &block.read_bytes, false),
            ("blkio.throttle.write_bps_device", &block.write_bytes, false),
            ("blkio.throttle.read_iops_device", &block.read_operations, false),
            ("blkio.throttle.write_iops_device", &block.write_operations, false),
        ];
        for (file, rates, optional) in rates {
            for rate in rates {
                let value = format!("{}:{} {}", rate.major, rate.minor, rate.rate);
                list.0.push(Setting { controller: "blkio", file: file.to_owned(), value, optional });
            }
        }
    }

    fn rdma_settings(&self, list: &mut List) {
        for (device, handles, objects) in &self.rdma {
            let part = |name: &str, value: &Option<u32>| {
                value.map(|value| format!(" {name}={value}")).unwrap_or_default()
            };
            let value = format!("{device}{}{}", part("hca_handle", handles), part("hca_object", objects));
            list.put("rdma", "rdma.max", Some(value));
        }
    }

    /// The settings for the unified hierarchy.
    pub fn v2(&self) -> Vec<Setting> {
        let mut list = List::default();
        let memory = &self.memory;
        list.put("memory", "memory.max", memory.limit.map(max_or));
        list.put_optional("memory", "memory.swap.max", memory.swap.map(|swap| swap_v2(swap, memory.limit)));
        list.put("memory", "memory.low", memory.reservation.map(max_or));
        let cpu = &self.cpu;
        list.put("cpu", "cpu.weight", cpu.shares.filter(|shares| *shares != 0).map(weight_of_shares));
        if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period != 0) {
            let quota =
                cpu.quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            let period = cpu.period.filter(|period| *period != 0).unwrap_or(100_000);
            list.put("cpu", "cpu.max", Some(format!("{quota} {period}")));
        }
        list.put_optional("cpu", "cpu.max.burst", cpu.burst);
        list.put_optional("cpu", "cpu.idle", cpu.idle);
        list.put("cpuset", "cpuset.cpus", cpu.cpus.clone().filter(|cpus| !cpus.is_empty()));
        list.put("cpuset", "cpuset.mems", cpu.mems.clone().filter(|mems| !mems.is_empty()));
        list.put("pids", "pids.max", self.pids.map(pids_text));
        self.block_v2(&mut list);
        for (size, bytes) in &self.huge_pages {
            list.put("hugetlb", format!("hugetlb.{size}.max"), Some(bytes));
        }
        self.rdma_settings(&mut list);
        list.0.extend(self.unified_settings());
        list.0
    }

    /// Files given as they are.
    pub(super) fn unified_settings(&self) -> Vec<Setting> {
        let setting = |(file, value): (&String, &String)| Setting {
            controller: "",
            // One file of the folder, never a path.
            file: file.replace('/', "_"),
            value: value.clone(),
            optional: false,
        };
        self.unified.iter().map(setting).collect()
    }

    fn block_v2(&self, list: &mut List) {
        let block = &self.block;
        let weight = block.weight.filter(|weight| *weight != 0);
        list.put_optional("io", "io.bfq.weight", weight);
        list.put_optional("io", "io.weight", weight.map(weight_of_block));
        for rate in &block.device_weights {
            list.put_optional(
                "io",
                "io.bfq.weight",
                Some(format!("{}:{} {}", rate.major, rate.minor, rate.rate)),
            );
        }
        let rates = [
            ("rbps", &block.read_bytes),
            ("wbps", &block.write_bytes),
            ("riops", &block.read_operations),
            ("wiops", &block.write_operations),
        ];
        for (word, rates) in rates {
            for rate in rates {
                let limit = if rate.rate == 0 { "max".to_owned() } else { rate.rate.to_string() };
                list.put("io", "io.max", Some(format!("{}:{} {word}={limit}", rate.major, rate.minor)));
            }
        }
    }
}

/// v2 limits swap alone, the specification memory and swap together.
fn swap_v2(swap: i64, limit: Option<i64>) -> String {
    match limit {
        _ if swap < 0 => "max".to_owned(),
        Some(limit) if limit > 0 => (swap - limit).max(0).to_string(),
        _ => swap.to_string(),
    }
}

/// Shares 2..=262144 onto weights 1..=10000, linearly, as runc and crun do.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

/// Weights 10..=1000 of blkio onto 1..=10000 of io, as runc and crun do.
fn weight_of_block(weight: u16) -> u64 {
    let weight = u64::from(weight.clamp(10, 1000));
    1 + (weight - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            memory: MemoryLimits { limit: Some(100), swap: Some(150), ..MemoryLimits::default() },
            cpu: CpuLimits {
                shares: Some(1024),
                quota: Some(50_000),
                period: Some(100_000),
                ..CpuLimits::default()
            },
            pids: Some(0),
            ..Limits::default()
        }
    }

    fn pairs(settings: &[Setting]) -> Vec<(&str, &str)> {
        settings.iter().map(|setting| (setting.file.as_str(), setting.value.as_str())).collect()
    }

    #[test]
    fn v1_and_v2_say_the_same_in_their_own_words() {
        assert_eq!(
            pairs(&limits().v1()),
            [
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "150"),
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("pids.max", "max"),
            ]
        );
        assert_eq!(
            pairs(&limits().v2()),
            [
                ("memory.max", "100"),
                ("memory.swap.max", "50"),
                ("cpu.weight", "39"),
                ("cpu.max", "50000 100000"),
                ("pids.max", "max"),
            ]
        );
    }

    #[test]
    fn lifting_a_limit_lifts_swap_first() {
        let mut limits = Limits::default();
        limits.memory.limit = Some(-1);
        assert_eq!(
            pairs(&limits.v1()),
            [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")]
        );
    }
}
