//! Properties of a scope: what systemd must know of a container, so that it puts the same limits in force as the runtime.

use gantry_linux::{
    cgroup::{Hierarchies, Layout},
    dbus::Value,
    scheduling::BitList,
};

use crate::oci::{DeviceRule, Resources};

/// A property and its value.
pub type Property = (&'static str, Value);

/// As the calls of the manager take them, `a(sv)`.
pub fn array(list: Vec<Property>) -> Value {
    let pair = |(name, value)| Value::Struct(vec![Value::str(name), Value::variant(value)]);
    Value::Array("(sv)".into(), list.into_iter().map(pair).collect())
}

/// What every new scope has.
pub fn of_new(id: &str, slice: &str, pid: i32) -> Vec<Property> {
    let mut list = vec![
        ("Description", Value::str(format!("gantry container {id}"))),
        ("Slice", Value::str(slice)),
        // Below the scope the runtime and the container make their own groups.
        ("Delegate", Value::Bool(true)),
        ("PIDs", Value::Array("u".into(), vec![Value::U32(pid.cast_unsigned())])),
        // It ends with the container, not with the host's targets.
        ("DefaultDependencies", Value::Bool(false)),
    ];
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        list.push((accounting, Value::Bool(true)));
    }
    list
}

/// Limits in systemd's words.
pub fn of_resources(resources: Option<&Resources>) -> Vec<Property> {
    let unified = Hierarchies::detect().is_ok_and(|all| all.layout() == Layout::Unified);
    resources.map_or_else(Vec::new, |resources| limits(resources, unified))
}

fn limits(resources: &Resources, unified: bool) -> Vec<Property> {
    let mut list = Vec::new();
    let memory = resources.memory.clone().unwrap_or_default();
    // systemd's infinity is the largest number.
    let bytes = |value: i64| Value::U64(u64::try_from(value).unwrap_or(u64::MAX));
    if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
        list.push((if unified { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
    }
    if unified {
        if let Some(low) = memory.reservation.filter(|low| *low != 0) {
            list.push(("MemoryLow", bytes(low)));
        }
        if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
            let alone = if swap < 0 { swap } else { (swap - memory.limit.unwrap_or(0).max(0)).max(0) };
            list.push(("MemorySwapMax", bytes(alone)));
        }
    }
    if let Some(pids) = resources.pids.map(|pids| pids.limit).filter(|limit| *limit != 0) {
        list.push(("TasksMax", bytes(pids)));
    }
    cpu(resources, unified, &mut list);
    if !resources.devices.is_empty() {
        list.extend(devices(&resources.devices));
    }
    list
}

fn cpu(resources: &Resources, unified: bool, list: &mut Vec<Property>) {
    let cpu = resources.cpu.clone().unwrap_or_default();
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        list.push(if unified {
            ("CPUWeight", Value::U64(gantry_linux::cgroup::weight_of_shares(shares)))
        } else {
            ("CPUShares", Value::U64(shares))
        });
    }
    let period = cpu.period.filter(|period| *period != 0);
    if let Some(period) = period {
        list.push(("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        let per_second = match u64::try_from(quota) {
            // Rounded up to 10 ms in a second, the least that systemd keeps apart.
            Ok(quota) => {
                (quota.saturating_mul(1_000_000) / period.unwrap_or(100_000)).next_multiple_of(10_000)
            }
            Err(_) => u64::MAX,
        };
        list.push(("CPUQuotaPerSecUSec", Value::U64(per_second)));
    }
    for (name, set) in [("AllowedCPUs", cpu.cpus), ("AllowedMemoryNodes", cpu.mems)] {
        // Only on v2 does systemd have them.
        if let Some(bits) = set.filter(|_| unified).and_then(|text| BitList::parse(&text)) {
            let bytes = bits.bytes().map(Value::Byte).collect();
            list.push((name, Value::Array("y".into(), bytes)));
        }
    }
}

/// Device rules as names of /dev/char and /dev/block; what systemd has no word for only the runtime's own rules allow.
fn devices(rules: &[DeviceRule]) -> Vec<Property> {
    let everything = |rule: &&DeviceRule| {
        rule.kind.as_deref().is_none_or(|kind| kind.is_empty() || kind == "a")
            && rule.major.is_none_or(|number| number < 0)
            && rule.minor.is_none_or(|number| number < 0)
    };
    let last = rules.iter().rposition(|rule| everything(&rule));
    if last.is_none_or(|at| rules[at].allow) {
        return vec![
            ("DevicePolicy", Value::str("auto")),
            ("DeviceAllow", Value::Array("(ss)".into(), Vec::new())),
        ];
    }
    let rest = &rules[last.map_or(0, |at| at + 1)..];
    let allowed = rest.iter().filter(|rule| rule.allow).filter_map(|rule| {
        let name = device_name(rule)?;
        let access = rule.access.clone().unwrap_or_else(|| "rwm".to_owned());
        Some(Value::Struct(vec![Value::str(name), Value::str(access)]))
    });
    vec![
        ("DevicePolicy", Value::str("strict")),
        ("DeviceAllow", Value::Array("(ss)".into(), allowed.collect())),
    ]
}

fn device_name(rule: &DeviceRule) -> Option<String> {
    let kind = match rule.kind.as_deref()? {
        "c" | "u" => "char",
        "b" => "block",
        _ => return None,
    };
    let number = |number: Option<i64>| number.filter(|number| *number >= 0);
    match (number(rule.major), number(rule.minor)) {
        (None, None) => Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => driver(kind, major, &std::fs::read_to_string("/proc/devices").ok()?),
        (None, Some(_)) => None,
    }
}

/// `char-pts` for the driver of a major number (proc(5), /proc/devices).
fn driver(kind: &str, major: i64, table: &str) -> Option<String> {
    let mut section = "";
    for line in table.lines() {
        match line {
            "Character devices:" => section = "char",
            "Block devices:" => section = "block",
            line => {
                if let Some((number, name)) = line.trim().split_once(' ')
                    && section == kind
                    && number.parse() == Ok(major)
                {
                    return Some(format!("{kind}-{}", name.trim()));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str, unified: bool) -> Vec<Property> {
        limits(&serde_json::from_str(text).unwrap(), unified)
    }

    #[test]
    fn limits_are_said_in_the_words_of_each_hierarchy() {
        let text = r#"{"memory":{"limit":100,"swap":150,"reservation":50},"pids":{"limit":-1},
            "cpu":{"shares":1024,"quota":50001,"period":100000,"cpus":"0-1,9"}}"#;
        let v1 = given(text, false);
        assert_eq!(v1[0], ("MemoryLimit", Value::U64(100)));
        assert!(
            v1.contains(&("TasksMax", Value::U64(u64::MAX))) && v1.contains(&("CPUShares", Value::U64(1024)))
        );
        let v2 = given(text, true);
        for property in [
            ("MemoryMax", Value::U64(100)),
            ("MemoryLow", Value::U64(50)),
            ("MemorySwapMax", Value::U64(50)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
            ("CPUQuotaPerSecUSec", Value::U64(510_000)),
            ("AllowedCPUs", Value::Array("y".into(), vec![Value::Byte(3), Value::Byte(2)])),
        ] {
            assert!(v2.contains(&property), "{property:?} in {v2:?}");
        }
    }

    #[test]
    fn device_rules_behind_a_denial_of_everything_are_a_list() {
        let text = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
            {"allow":true,"type":"b","access":"m"}]}"#;
        let allowed = |name: &str, access: &str| Value::Struct(vec![Value::str(name), Value::str(access)]);
        assert_eq!(
            given(text, true),
            [
                ("DevicePolicy", Value::str("strict")),
                (
                    "DeviceAllow",
                    Value::Array(
                        "(ss)".into(),
                        vec![allowed("/dev/char/1:3", "rw"), allowed("block-*", "m")]
                    )
                ),
            ]
        );
        assert_eq!(given(r#"{"devices":[{"allow":true}]}"#, true)[0].1, Value::str("auto"));
        let table = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        assert_eq!(driver("char", 136, table).as_deref(), Some("char-pts"));
        assert_eq!(driver("block", 1, table), None);
    }
}
