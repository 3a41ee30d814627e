//! From `linux.resources` of the specification to the limits of a cgroup.

use gantry_linux::cgroup::{
    BlockLimits, Cgroup, CpuLimits, DeviceAccess, DeviceKind, DeviceRule, Limits, MemoryLimits, Rate,
};

use crate::{
    error::{Error, Result},
    log,
    oci::{self, Resources, ThrottleDevice, WeightDevice, defaults},
};

/// The limits of a new container: those of the configuration, and the device rules that every container needs. What no rule
/// allows is denied, as with runc: a configuration that says nothing of devices does not mean all of the host's.
pub fn for_new(resources: Option<&Resources>) -> Result<Limits> {
    let nothing = Resources::default();
    let resources = resources.unwrap_or(&nothing);
    let mut limits = for_update(resources)?;
    let own = &resources.devices;
    if !own.first().is_some_and(is_about_everything) {
        let everything = DeviceRule {
            allow: false,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        };
        limits.devices.push(everything);
    }
    let denied = own.iter().rposition(|rule| !rule.allow).map_or(0, |last| last + 1);
    // What the last rules of the configuration allow is not written twice: on v1 each rule is a file opened.
    let added = defaults::runtime_device_rules();
    let added = added.iter().filter(|rule| !own[denied..].contains(rule));
    for rule in own.iter().chain(added) {
        limits.devices.push(device_rule(rule)?);
    }
    Ok(limits)
}

/// Whether a rule leaves nothing of what was before it.
fn is_about_everything(rule: &oci::DeviceRule) -> bool {
    device_rule(rule).is_ok_and(|rule| {
        rule.kind == DeviceKind::All
            && rule.major.is_none()
            && rule.minor.is_none()
            && rule.access == DeviceAccess::ALL
    })
}

/// Puts limits in force, and tells which this kernel cannot.
pub fn apply(group: &Cgroup, limits: &Limits, id: &str) -> Result<()> {
    let fail = |source| Error::Cgroup { id: id.to_owned(), source };
    for file in group.apply(limits).map_err(fail)? {
        log::warning(&format!("limit {file} of {id} is passed over: this kernel does not have it"));
    }
    Ok(())
}

/// The limits of an update: device rules stay as they are.
pub fn for_update(resources: &Resources) -> Result<Limits> {
    if let Some(page) = resources.hugepage_limits.iter().find(|page| !is_page_size(&page.page_size)) {
        return Err(Error::Config {
            field: "linux.resources.hugepageLimits".into(),
            problem: format!("{:?} is no page size such as 2MB", page.page_size),
        });
    }
    let mut limits = Limits {
        pids: resources.pids.map(|pids| pids.limit),
        huge_pages: resources
            .hugepage_limits
            .iter()
            .map(|page| (page.page_size.clone(), page.limit))
            .collect(),
        rdma: resources
            .rdma
            .iter()
            .map(|(name, rdma)| (name.clone(), rdma.hca_handles, rdma.hca_objects))
            .collect(),
        unified: resources.unified.clone(),
        ..Limits::default()
    };
    if let Some(memory) = &resources.memory {
        limits.memory = memory_limits(memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        limits.cpu = cpu_limits(cpu);
    }
    if let Some(block) = &resources.block_io {
        limits.block = block_limits(block);
    }
    if let Some(network) = &resources.network {
        limits.network_class = network.class_id;
        limits.network_priorities =
            network.priorities.iter().map(|priority| (priority.name.clone(), priority.priority)).collect();
    }
    Ok(limits)
}

/// A number with a unit, and so the middle of a file's name.
fn is_page_size(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < text.len() && ["KB", "MB", "GB"].contains(&unit)
}

fn memory_limits(memory: &oci::Memory) -> Result<MemoryLimits> {
    // Docker writes 0 for "not set".
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    if let (Some(limit), Some(swap)) = (set(memory.limit), set(memory.swap))
        && swap > 0
        && swap < limit
    {
        return Err(Error::Config {
            field: "linux.resources.memory.swap".into(),
            problem: format!(
                "{swap} is less than the memory limit {limit}; it limits memory and swap together"
            ),
        });
    }
    Ok(MemoryLimits {
        limit: set(memory.limit),
        reservation: set(memory.reservation),
        swap: set(memory.swap),
        kernel_tcp: set(memory.kernel_tcp),
        // u64::MAX is how some writers say "leave it".
        swappiness: memory.swappiness.filter(|value| *value <= 200),
        disable_oom_killer: memory.disable_oom_killer,
        use_hierarchy: memory.use_hierarchy,
        check_before_update: memory.check_before_update == Some(true),
    })
}

fn cpu_limits(cpu: &oci::Cpu) -> CpuLimits {
    CpuLimits {
        shares: cpu.shares,
        quota: cpu.quota,
        period: cpu.period,
        burst: cpu.burst,
        realtime_runtime: cpu.realtime_runtime.filter(|value| *value != 0),
        realtime_period: cpu.realtime_period.filter(|value| *value != 0),
        cpus: cpu.cpus.clone(),
        mems: cpu.mems.clone(),
        idle: cpu.idle,
    }
}

fn block_limits(block: &oci::BlockIo) -> BlockLimits {
    let rates = |list: &[ThrottleDevice]| {
        list.iter().map(|rate| Rate { major: rate.major, minor: rate.minor, rate: rate.rate }).collect()
    };
    let weights = |weight: fn(&WeightDevice) -> Option<u16>| -> Vec<Rate> {
        let rate = |device: &WeightDevice| {
            let rate = u64::from(weight(device).filter(|weight| *weight != 0)?);
            Some(Rate { major: device.major, minor: device.minor, rate })
        };
        block.weight_device.iter().filter_map(rate).collect()
    };
    BlockLimits {
        weight: block.weight,
        leaf_weight: block.leaf_weight,
        device_weights: weights(|device| device.weight),
        device_leaf_weights: weights(|device| device.leaf_weight),
        read_bytes: rates(&block.throttle_read_bps_device),
        write_bytes: rates(&block.throttle_write_bps_device),
        read_operations: rates(&block.throttle_read_iops_device),
        write_operations: rates(&block.throttle_write_iops_device),
    }
}

fn device_rule(rule: &oci::DeviceRule) -> Result<DeviceRule> {
    let fail = |problem: String| Error::Config { field: "linux.resources.devices".into(), problem };
    let kind = match rule.kind.as_deref() {
        None | Some("" | "a") => DeviceKind::All,
        Some("c" | "u") => DeviceKind::Char,
        Some("b") => DeviceKind::Block,
        Some(other) => return Err(fail(format!("unknown device type {other:?}"))),
    };
    // Absent or -1 is every number; the kernel's numbers have 32 bits.
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let access = match rule.access.as_deref() {
        None | Some("") => DeviceAccess::ALL,
        Some(text) => DeviceAccess::parse(text).ok_or_else(|| fail(format!("unknown access {text:?}")))?,
    };
    Ok(DeviceRule { allow: rule.allow, kind, major: number(rule.major), minor: number(rule.minor), access })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_below_memory_is_refused_with_a_reason() {
        let memory = oci::Memory { limit: Some(100), swap: Some(50), ..Default::default() };
        let resources = Resources { memory: Some(memory), ..Default::default() };
        assert!(for_new(Some(&resources)).unwrap_err().chain().contains("less than the memory limit"));
    }

    #[test]
    fn device_rules_end_with_those_that_every_container_needs() {
        let resources = Resources { devices: defaults::device_rules()[..1].to_vec(), ..Default::default() };
        let limits = for_new(Some(&resources)).unwrap();
        assert!(!limits.devices[0].allow);
        assert!(limits.devices.iter().any(|rule| rule.allow && rule.major == Some(136)));
        // Also of a configuration that says nothing.
        for resources in [None, Some(&Resources::default())] {
            let silent = for_new(resources).unwrap().devices;
            assert_eq!((silent.len(), silent[0].allow), (defaults::device_rules().len(), false));
        }
        // And of one that only allows.
        let allows = Resources { devices: defaults::device_rules()[3..4].to_vec(), ..Default::default() };
        let allows = for_new(Some(&allows)).unwrap().devices;
        assert_eq!((allows[0].kind, allows[0].allow), (DeviceKind::All, false));
        let privileged = Resources { devices: defaults::privileged_device_rules(), ..Default::default() };
        assert!(for_new(Some(&privileged)).unwrap().devices[0].allow);
    }

    #[test]
    fn rules_that_are_there_are_not_repeated_unless_they_were_taken_back() {
        let ours = defaults::device_rules();
        let written = |devices: Vec<oci::DeviceRule>| {
            for_new(Some(&Resources { devices, ..Default::default() })).unwrap().devices.len()
        };
        assert_eq!(written(ours.clone()), ours.len());
        let taken_back = [ours.as_slice(), &ours[..1]].concat();
        assert_eq!(written(taken_back.clone()), taken_back.len() + defaults::runtime_device_rules().len());
    }
}
