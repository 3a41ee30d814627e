//! Limits without regard to the version; `v1` and `v2` say which files they are written to.

mod v1;
mod v2;

pub use v2::weight_of_shares;

use std::collections::BTreeMap;

use super::DeviceRule;

/// Everything that can be limited; what is none stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory.
    pub memory: MemoryLimits,
    /// CPU.
    pub cpu: CpuLimits,
    /// Number of processes; less than 0 is no limit, 0 changes nothing.
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
    /// Account for the groups below (v1, where kernels before 5.11 let choose).
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what is in use.
    pub check_before_update: bool,
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
    /// Weight against the groups below (v1).
    pub leaf_weight: Option<u16>,
    /// Weights by device, in place of the rate.
    pub device_weights: Vec<Rate>,
    /// The same against the groups below (v1).
    pub device_leaf_weights: Vec<Rate>,
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
    pub controller: String,
    /// The file; with others that other kernels have in its place, and the value for each.
    pub choices: Vec<(String, String)>,
    /// What a kernel without the file means.
    pub absence: Absence,
}

/// What it means that a kernel lacks a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// The limit cannot be put in force.
    Error,
    /// It is passed over, and the caller is told.
    Told,
    /// Nothing: the file only says more exactly what another one says.
    Fine,
}

#[derive(Default)]
struct List(Vec<Setting>);

impl List {
    fn add(
        &mut self,
        absence: Absence,
        controller: &str,
        file: impl Into<String>,
        value: Option<impl ToString>,
    ) {
        if let Some(value) = value {
            self.0.push(Setting {
                controller: controller.to_owned(),
                choices: vec![(file.into(), value.to_string())],
                absence,
            });
        }
    }

    fn put(&mut self, controller: &str, file: impl Into<String>, value: Option<impl ToString>) {
        self.add(Absence::Error, controller, file, value);
    }

    fn put_optional(&mut self, controller: &str, file: impl Into<String>, value: Option<impl ToString>) {
        self.add(Absence::Told, controller, file, value);
    }

    /// The first of these files that the kernel has.
    fn put_either(&mut self, controller: &str, choices: Option<[(&str, String); 2]>) {
        if let Some(choices) = choices {
            self.0.push(Setting {
                controller: controller.to_owned(),
                choices: choices.into_iter().map(|(file, value)| (file.to_owned(), value)).collect(),
                absence: Absence::Told,
            });
        }
    }

    fn rdma(&mut self, limits: &Limits) {
        for (device, handles, objects) in &limits.rdma {
            let part = |name: &str, value: &Option<u32>| {
                value.map(|value| format!(" {name}={value}")).unwrap_or_default()
            };
            let value = format!("{device}{}{}", part("hca_handle", handles), part("hca_object", objects));
            self.put("rdma", "rdma.max", Some(value));
        }
    }
}

/// What is in force already, as far as a new value depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// memory.max of v2.
    pub memory_max: Option<i64>,
    /// First word of cpu.max of v2.
    pub cpu_max: Option<String>,
}

fn pids_text(limit: i64) -> Option<String> {
    match limit {
        0 => None,
        ..0 => Some("max".to_owned()),
        limit => Some(limit.to_string()),
    }
}

fn set<T: Clone + Default + PartialEq>(value: &Option<T>) -> Option<T> {
    value.clone().filter(|value| *value != T::default())
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
            pids: Some(-1),
            ..Limits::default()
        }
    }

    fn pairs(settings: &[Setting]) -> Vec<(&str, &str)> {
        settings
            .iter()
            .flat_map(|setting| setting.choices.iter().map(|(file, value)| (file.as_str(), value.as_str())))
            .collect()
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
            pairs(&limits().v2(&InForce::default())),
            [
                ("memory.max", "100"),
                ("memory.swap.max", "50"),
                ("cpu.weight", "100"),
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
        assert_eq!(
            pairs(&limits.v2(&InForce::default())),
            [("memory.max", "max"), ("memory.swap.max", "max")]
        );
    }

    #[test]
    fn an_update_of_one_value_keeps_what_it_depends_on() {
        let mut limits = Limits::default();
        limits.memory.swap = Some(300);
        limits.cpu.period = Some(50_000);
        let in_force = InForce { memory_max: Some(200), cpu_max: Some("7000".into()) };
        assert_eq!(pairs(&limits.v2(&in_force)), [("memory.swap.max", "100"), ("cpu.max", "7000 50000")]);
        let quota = CpuLimits { quota: Some(9000), ..CpuLimits::default() };
        let limits = Limits { cpu: quota, ..Limits::default() };
        assert_eq!(pairs(&limits.v2(&in_force)), [("cpu.max", "9000")]);
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        let cpu = CpuLimits { shares: Some(512), idle: Some(1), ..CpuLimits::default() };
        let limits = Limits { cpu, ..Limits::default() };
        assert_eq!(pairs(&limits.v1()), [("cpu.idle", "1")]);
        assert_eq!(pairs(&limits.v2(&InForce::default())), [("cpu.idle", "1")]);
    }

    #[test]
    fn block_weights_take_whichever_file_the_kernel_has() {
        let block = BlockLimits { weight: Some(500), ..BlockLimits::default() };
        let limits = Limits { block, pids: Some(0), ..Limits::default() };
        assert_eq!(pairs(&limits.v1()), [("blkio.bfq.weight", "500"), ("blkio.weight", "500")]);
        assert_eq!(pairs(&limits.v2(&InForce::default())), [("io.bfq.weight", "500"), ("io.weight", "4950")]);
    }
}
