//! The shape of a reading, that of `runc events`: what is zero is left out where runc leaves it out, "no limit" is what the kernel's own file
//! of that hierarchy would say.

use gantry_linux::cgroup::{BlockStats, Cgroup, Counter, Details, Pressure, Stalls, Stats, V1_UNLIMITED};
use serde_json::{Map, Value as Json, json};

use crate::resctrl;

/// What a container uses now.
pub fn read(group: &Cgroup, resctrl: Option<&resctrl::Group>) -> Json {
    let mut data = of(&group.stats(), &group.details());
    // Groups of resctrl are rare; without one there is nothing to tell.
    data["intel_rdt"] = resctrl.map_or_else(|| json!({}), |group| json!(group.readings()));
    data
}

fn of(stats: &Stats, details: &Details) -> Json {
    json!({
        "cpu": cpu(stats, details),
        "cpuset": cpuset(details),
        "memory": memory(stats, details),
        "pids": sparse([("current", stats.pids.current), ("limit", stats.pids.limit.unwrap_or(0))]),
        "blkio": block(stats, details),
        "hugetlb": huge_pages(stats),
        "network_interfaces": null,
    })
}

/// An object without its zeros.
fn sparse<const N: usize>(fields: [(&str, u64); N]) -> Map<String, Json> {
    fields
        .into_iter()
        .filter(|(_, value)| *value != 0)
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}

/// Adds a field unless it is empty.
fn put<T: serde::Serialize>(object: &mut Map<String, Json>, key: &str, list: &[T]) {
    if !list.is_empty() {
        object.insert(key.to_owned(), json!(list));
    }
}

fn put_pressure(object: &mut Map<String, Json>, pressure: Option<&Pressure>) {
    let stalls = |stalls: &Stalls| json!({ "avg10": stalls.of_10_s, "avg60": stalls.of_60_s, "avg300": stalls.of_300_s, "total": stalls.total });
    if let Some(pressure) = pressure {
        let both = json!({ "some": stalls(&pressure.some), "full": stalls(&pressure.full) });
        object.insert("psi".to_owned(), both);
    }
}

fn cpu(stats: &Stats, details: &Details) -> Json {
    let mut usage = sparse([("total", stats.cpu.usage)]);
    let (user, kernel): (Vec<u64>, Vec<u64>) = details.per_cpu.iter().copied().unzip();
    put(&mut usage, "percpu", &stats.cpu.per_cpu);
    put(&mut usage, "percpu_kernel", &kernel);
    put(&mut usage, "percpu_user", &user);
    usage.insert("kernel".to_owned(), json!(stats.cpu.system));
    usage.insert("user".to_owned(), json!(stats.cpu.user));
    let throttling = sparse([
        ("periods", stats.cpu.periods),
        ("throttledPeriods", stats.cpu.throttled_periods),
        ("throttledTime", stats.cpu.throttled),
    ]);
    let mut cpu =
        Map::from_iter([("usage".to_owned(), json!(usage)), ("throttling".to_owned(), json!(throttling))]);
    put_pressure(&mut cpu, details.cpu_pressure.as_ref());
    Json::Object(cpu)
}

fn cpuset(details: &Details) -> Json {
    let mut shown = Map::new();
    put(&mut shown, "cpus", &details.cpuset.cpus);
    put(&mut shown, "mems", &details.cpuset.memory_nodes);
    shown.extend(details.cpuset.settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    Json::Object(shown)
}

fn memory(stats: &Stats, details: &Details) -> Json {
    let memory = &stats.memory;
    let usage = Counter {
        usage: memory.usage,
        max_usage: memory.max_usage,
        limit: if memory.v2 { memory.limit } else { memory.limit.min(V1_UNLIMITED) },
        failures: memory.failures,
    };
    let swap = if memory.v2 {
        // Memory and swap together, as v1 has it and runc shows it for both.
        Counter {
            usage: memory.swap_usage + memory.usage,
            limit: if memory.swap_limit == u64::MAX {
                u64::MAX
            } else {
                memory.swap_limit.saturating_add(memory.limit)
            },
            ..Counter::default()
        }
    } else {
        details.memory_and_swap
    };
    let mut shown =
        sparse([("cache", memory.detail.get("cache").or(memory.detail.get("file")).copied().unwrap_or(0))]);
    let counters =
        [("usage", &usage), ("swap", &swap), ("kernel", &details.kernel), ("kernelTCP", &details.kernel_tcp)];
    shown.extend(counters.map(|(name, value)| (name.to_owned(), counter(value))));
    if !memory.detail.is_empty() {
        shown.insert("raw".to_owned(), json!(memory.detail));
    }
    put_pressure(&mut shown, details.memory_pressure.as_ref());
    Json::Object(shown)
}

fn counter(value: &Counter) -> Json {
    let mut shown = sparse([("usage", value.usage), ("max", value.max_usage)]);
    shown.insert("limit".to_owned(), json!(value.limit));
    shown.insert("failcnt".to_owned(), json!(value.failures));
    Json::Object(shown)
}

fn block(stats: &Stats, details: &Details) -> Json {
    let entries = |value: fn(&BlockStats) -> (u64, u64)| -> Vec<Json> {
        let of_device = |device: &BlockStats| {
            let (read, write) = value(device);
            [("Read", read), ("Write", write)].map(|(op, value)| {
                let mut entry = sparse([("major", device.major), ("minor", device.minor), ("value", value)]);
                entry.insert("op".to_owned(), json!(op));
                Json::Object(entry)
            })
        };
        stats.block.iter().flat_map(of_device).collect()
    };
    let mut shown = Map::new();
    put(&mut shown, "ioServiceBytesRecursive", &entries(|device| (device.read_bytes, device.write_bytes)));
    put(&mut shown, "ioServicedRecursive", &entries(|device| (device.reads, device.writes)));
    put_pressure(&mut shown, details.io_pressure.as_ref());
    Json::Object(shown)
}

fn huge_pages(stats: &Stats) -> Json {
    let page = |page: &gantry_linux::cgroup::HugePageStats| {
        let mut shown = sparse([("usage", page.usage), ("max", page.max_usage)]);
        shown.insert("failcnt".to_owned(), json!(page.failures));
        (page.size.clone(), Json::Object(shown))
    };
    Json::Object(stats.huge_pages.iter().map(page).collect())
}

#[cfg(test)]
mod tests {
    use gantry_linux::cgroup::MemoryStats;

    use super::*;

    #[test]
    fn no_limit_is_what_the_hierarchy_says() {
        let unlimited = |v2: bool| {
            let memory = MemoryStats { limit: u64::MAX, swap_limit: u64::MAX, v2, ..MemoryStats::default() };
            of(&Stats { memory, ..Stats::default() }, &Details::default())
        };
        assert_eq!(unlimited(false)["memory"]["usage"]["limit"], 9_223_372_036_854_771_712_u64);
        assert_eq!(unlimited(true)["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(unlimited(true)["memory"]["swap"]["limit"], u64::MAX);
    }

    #[test]
    fn swap_of_v2_is_told_with_memory() {
        let memory = MemoryStats {
            usage: 10,
            limit: 100,
            swap_usage: 5,
            swap_limit: 50,
            v2: true,
            ..MemoryStats::default()
        };
        let shown = of(&Stats { memory, ..Stats::default() }, &Details::default());
        assert_eq!(shown["memory"]["swap"], json!({ "usage": 15, "limit": 150, "failcnt": 0 }));
    }

    #[test]
    fn what_is_zero_is_left_out_where_runc_does() {
        let shown = of(&Stats::default(), &Details::default());
        assert_eq!(shown["pids"], json!({}));
        assert_eq!(shown["blkio"], json!({}));
        assert_eq!(shown["cpu"], json!({ "usage": { "kernel": 0, "user": 0 }, "throttling": {} }));
    }
}
