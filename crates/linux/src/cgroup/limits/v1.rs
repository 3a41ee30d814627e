//! Limits as files of the v1 controllers.

use super::{Absence, Limits, List, Setting, pids_text, set};

impl Limits {
    /// The settings for v1 hierarchies.
    pub fn v1(&self) -> Vec<Setting> {
        let mut list = List::default();
        self.memory_v1(&mut list);
        self.cpu_v1(&mut list);
        list.put("cpuset", "cpuset.cpus", set(&self.cpu.cpus));
        list.put("cpuset", "cpuset.mems", set(&self.cpu.mems));
        list.put("pids", "pids.max", self.pids.and_then(pids_text));
        self.block_v1(&mut list);
        for (size, bytes) in &self.huge_pages {
            list.put("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), Some(bytes));
            list.add(Absence::Fine, "hugetlb", format!("hugetlb.{size}.rsvd.limit_in_bytes"), Some(bytes));
        }
        list.put("net_cls", "net_cls.classid", self.network_class);
        for (interface, priority) in &self.network_priorities {
            list.put("net_prio", "net_prio.ifpriomap", Some(format!("{interface} {priority}")));
        }
        list.rdma(self);
        list.0
    }

    fn memory_v1(&self, list: &mut List) {
        let memory = &self.memory;
        let hierarchy = memory.use_hierarchy.map(u8::from);
        list.add(Absence::Fine, "memory", "memory.use_hierarchy", hierarchy);
        // Memory and swap together may not be less than memory alone: when the limit is lifted, so is theirs, first.
        let lift_first = memory.limit.is_some_and(|limit| limit < 0);
        if lift_first {
            let absence = if memory.swap.is_some() { Absence::Told } else { Absence::Fine };
            list.add(absence, "memory", "memory.memsw.limit_in_bytes", memory.swap.or(Some(-1)));
        }
        list.put("memory", "memory.limit_in_bytes", memory.limit);
        if !lift_first {
            list.put_optional("memory", "memory.memsw.limit_in_bytes", memory.swap);
        }
        list.put("memory", "memory.soft_limit_in_bytes", memory.reservation);
        list.put_optional("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp);
        list.put("memory", "memory.swappiness", memory.swappiness);
        list.put("memory", "memory.oom_control", memory.disable_oom_killer.filter(|off| *off).map(u8::from));
    }

    fn cpu_v1(&self, list: &mut List) {
        let cpu = &self.cpu;
        // The kernel refuses a weight for an idle group.
        list.put("cpu", "cpu.shares", set(&cpu.shares).filter(|_| cpu.idle != Some(1)));
        list.put("cpu", "cpu.cfs_period_us", set(&cpu.period));
        list.put("cpu", "cpu.cfs_quota_us", set(&cpu.quota));
        list.put_optional("cpu", "cpu.cfs_burst_us", cpu.burst);
        list.put("cpu", "cpu.rt_period_us", cpu.realtime_period);
        list.put("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime);
        list.put_optional("cpu", "cpu.idle", cpu.idle);
    }

    fn block_v1(&self, list: &mut List) {
        let block = &self.block;
        let either = |bfq, plain, value: String| Some([(bfq, value.clone()), (plain, value)]);
        if let Some(weight) = set(&block.weight) {
            list.put_either("blkio", either("blkio.bfq.weight", "blkio.weight", weight.to_string()));
        }
        list.put_optional("blkio", "blkio.leaf_weight", set(&block.leaf_weight));
        for rate in &block.device_weights {
            let value = format!("{}:{} {}", rate.major, rate.minor, rate.rate);
            list.put_either("blkio", either("blkio.bfq.weight_device", "blkio.weight_device", value));
        }
        for rate in &block.device_leaf_weights {
            let value = format!("{}:{} {}", rate.major, rate.minor, rate.rate);
            list.put_optional("blkio", "blkio.leaf_weight_device", Some(value));
        }
        let rates = [
            ("blkio.throttle.read_bps_device", &block.read_bytes),
            ("blkio.throttle.write_bps_device", &block.write_bytes),
            ("blkio.throttle.read_iops_device", &block.read_operations),
            ("blkio.throttle.write_iops_device", &block.write_operations),
        ];
        for (file, rates) in rates {
            for rate in rates {
                list.put("blkio", file, Some(format!("{}:{} {}", rate.major, rate.minor, rate.rate)));
            }
        }
    }
}
