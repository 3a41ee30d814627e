//! `linux.cgroupsPath` and `linux.resources`: what the kernel holds after `create`.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::config::mount_at;
use crate::lab::{self, Lab, Layout, skip};
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property(
        "linux/cgroupsPath/absolute",
        "the process is in the cgroup of an absolute path, in every hierarchy",
        absolute,
    ),
    property(
        "linux/cgroupsPath/relative",
        "a relative path is below a place that the runtime chooses",
        relative,
    ),
    property("linux/cgroupsPath/absent", "without a path the container has a cgroup of its own", absent),
    property("linux/cgroupsPath/deleted", "the cgroup goes with the container", deleted),
    property("linux/cgroupsPath/nested", "the cgroup goes although the container made more below it", nested),
    property("linux/cgroups/mount", "a mount of type cgroup shows the container's cgroup", mounted),
    property("linux/cgroups/mount/ro", "a read-only one cannot be written", mounted_ro),
    property("linux/resources/memory/limit", "the memory limit is set", memory_limit),
    property("linux/resources/memory/enforced", "a program above it is killed", memory_enforced),
    property("linux/resources/memory/reservation", "the soft limit is set", memory_reservation),
    property("linux/resources/memory/swap", "the limit of memory and swap is set", memory_swap),
    property("linux/resources/memory/swappiness", "swappiness is set (v1)", swappiness),
    property("linux/resources/memory/disableOOMKiller", "the killer is switched off (v1)", oom_killer),
    property("linux/resources/memory/unlimited", "-1 is no limit", memory_unlimited),
    property("linux/resources/cpu/shares", "shares, or the weight that corresponds, are set", cpu_shares),
    property("linux/resources/cpu/quota", "quota and period are set", cpu_quota),
    property("linux/resources/cpu/burst", "burst is set", cpu_burst),
    property("linux/resources/cpu/idle", "idle is set", cpu_idle),
    property("linux/resources/cpu/cpus", "the processors are restricted", cpus),
    property(
        "linux/resources/cpu/cpus/unknown",
        "processors that the machine does not have are refused",
        unknown_cpus,
    ),
    property("linux/resources/pids/limit", "the limit of processes is set", pids_limit),
    property("linux/resources/pids/enforced", "more threads than the limit cannot be", pids_enforced),
    property("linux/resources/blockIO/weight", "the weight is set", block_weight),
    property("linux/resources/blockIO/throttle", "rates of a device are set", block_throttle),
    property("linux/resources/network", "class and priorities are set (v1)", network),
    property("linux/resources/hugepageLimits", "limits of huge pages are set", huge_pages),
    property("linux/resources/unified", "files of v2 are set by name", unified),
    property("linux/resources/unified/on_v1", "`unified` on a machine of v1 is refused", unified_on_v1),
    property(
        "linux/resources/absent_controller",
        "a limit without its controller is refused",
        absent_controller,
    ),
    property("linux/resources/null", "empty resources are no limits", empty),
];

fn resources(bundle: &mut Bundle) -> &mut Value {
    &mut bundle.config["linux"]["resources"]
}

fn folder(lab: &Lab, bundle: &Bundle, controller: &str) -> PathBuf {
    lab.cgroup(controller, &bundle.id)
}

/// The text of a file of the container's cgroup: on v1, or on v2.
#[track_caller]
fn value(lab: &Lab, bundle: &Bundle, v1: (&str, &str), v2: &str) -> String {
    let path = match lab.layout {
        Layout::V1 => folder(lab, bundle, v1.0).join(v1.1),
        Layout::V2 => folder(lab, bundle, "").join(v2),
    };
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text.trim().to_owned()
}

/// The value that each layout is expected to hold.
#[track_caller]
fn assert_value(lab: &Lab, bundle: &Bundle, v1: (&str, &str, &str), v2: (&str, &str)) {
    let expected = if lab.layout == Layout::V1 { v1.2 } else { v2.1 };
    assert_eq!(value(lab, bundle, (v1.0, v1.1), v2.0), expected);
}

fn has_file(controller: &str, file: &str) -> bool {
    // The root cgroup of v1 has the files of its children.
    Path::new("/sys/fs/cgroup").join(controller).join(file).exists()
}

fn only_v1(lab: &Lab) {
    if lab.layout == Layout::V2 {
        skip("v2 has no such file");
    }
}

fn absolute(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.look();
    let path = bundle.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    let mut checked = 0;
    for line in seen["cgroups"].as_array().unwrap() {
        let line = line.as_str().unwrap();
        let parts: Vec<&str> = line.splitn(3, ':').collect();
        // The hierarchy of a service manager, and the unified one beside controllers of v1, are not for limits.
        if parts[1].starts_with("name=") || (lab.layout == Layout::V1 && parts[1].is_empty()) {
            continue;
        }
        assert_eq!(parts[2], path, "{line}");
        checked += 1;
    }
    assert!(checked > 0);
}

fn relative(lab: &Lab) {
    let mut bundle = lab.bundle();
    let path = format!("{}/relative", lab::cgroup_parent().trim_start_matches('/'));
    bundle.config["linux"]["cgroupsPath"] = path.clone().into();
    let seen = bundle.look();
    let lines = seen["cgroups"].as_array().unwrap();
    let line = lines
        .iter()
        .map(|line| line.as_str().unwrap())
        .find(|line| line.contains(":pids:") || lab.layout == Layout::V2);
    assert!(line.unwrap().ends_with(&path), "{lines:?}");
}

fn absent(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    let seen = bundle.look();
    let lines = seen["cgroups"].as_array().unwrap();
    assert!(lines.iter().any(|line| line.as_str().unwrap().contains(&bundle.id)), "{lines:?}");
}

fn deleted(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    assert!(folder(lab, &bundle, "pids").exists());
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert!(!folder(lab, &bundle, "pids").exists());
    assert!(!folder(lab, &bundle, "memory").exists());
}

fn nested(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    let below = folder(lab, &bundle, "pids").join("a/b");
    fs::create_dir_all(&below).unwrap();
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert!(!folder(lab, &bundle, "pids").exists());
}

fn mounted(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/sys", "sysfs", "sysfs", &["ro"]).mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    *resources(&mut bundle) = json!({ "pids": { "limit": 77 } });
    let file = match lab.layout {
        Layout::V1 => "/sys/fs/cgroup/pids/pids.max".to_owned(),
        // Without a cgroup namespace the whole tree is shown.
        Layout::V2 => {
            bundle.namespace("cgroup", None);
            "/sys/fs/cgroup/pids.max".to_owned()
        }
    };
    let seen = bundle.probe(&["read", &file]).seen();
    assert_eq!(seen["read"][&file], "77");
}

fn mounted_ro(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.namespace("cgroup", None);
    bundle.mount("/sys", "sysfs", "sysfs", &["ro"]).mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["ro", "nosuid"],
    );
    let below =
        if lab.layout == Layout::V1 { "mkdir:/sys/fs/cgroup/pids/new" } else { "mkdir:/sys/fs/cgroup/new" };
    let seen = bundle.probe(&["look", "--", "try", below]).seen();
    assert_eq!(seen["try"][below], "EROFS");
    let options = mount_at(&seen["look"], "/sys/fs/cgroup")["options"].as_array().unwrap();
    assert!(options.contains(&"nosuid".into()), "{options:?}");
}

const MIB: u64 = 1 << 20;

fn memory_limit(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "limit": 64 * MIB } });
    bundle.create().ok();
    assert_value(lab, &bundle, ("memory", "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864"));
}

fn memory_enforced(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "limit": 32 * MIB } });
    let ended = bundle.probe(&["try", "memory:200"]).run();
    assert_eq!(ended.code, Some(137), "{ended:?}");
}

fn memory_reservation(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "limit": 64 * MIB, "reservation": 32 * MIB } });
    bundle.create().ok();
    assert_value(
        lab,
        &bundle,
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory.low", "33554432"),
    );
}

fn memory_swap(lab: &Lab) {
    if lab.layout == Layout::V1 && !has_file("memory", "memory.memsw.limit_in_bytes") {
        skip("this kernel does not count swap");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "limit": 64 * MIB, "swap": 96 * MIB } });
    bundle.create().ok();
    assert_value(
        lab,
        &bundle,
        ("memory", "memory.memsw.limit_in_bytes", "100663296"),
        ("memory.swap.max", "33554432"),
    );
}

fn swappiness(lab: &Lab) {
    only_v1(lab);
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "swappiness": 17 } });
    bundle.create().ok();
    assert_eq!(value(lab, &bundle, ("memory", "memory.swappiness"), ""), "17");
}

fn oom_killer(lab: &Lab) {
    only_v1(lab);
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "disableOOMKiller": true } });
    bundle.create().ok();
    assert!(value(lab, &bundle, ("memory", "memory.oom_control"), "").contains("oom_kill_disable 1"));
}

fn memory_unlimited(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": { "limit": -1 }, "pids": { "limit": -1 } });
    bundle.create().ok();
    assert_value(lab, &bundle, ("pids", "pids.max", "max"), ("pids.max", "max"));
    // The largest number of pages that the kernel can count.
    assert_value(
        lab,
        &bundle,
        ("memory", "memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    );
}

fn cpu_shares(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "cpu": { "shares": 2048 } });
    bundle.create().ok();
    match lab.layout {
        Layout::V1 => assert_eq!(value(lab, &bundle, ("cpu", "cpu.shares"), ""), "2048"),
        // 1 + ((2048 - 2) * 9999) / 262142 was runc's formula until 1.3; newer ones map 1024 to 100.
        Layout::V2 => assert_ne!(value(lab, &bundle, ("", ""), "cpu.weight"), "100"),
    }
}

fn cpu_quota(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "cpu": { "quota": 40_000, "period": 80_000 } });
    bundle.create().ok();
    assert_value(lab, &bundle, ("cpu", "cpu.cfs_quota_us", "40000"), ("cpu.max", "40000 80000"));
    assert_value(lab, &bundle, ("cpu", "cpu.cfs_period_us", "80000"), ("cpu.max", "40000 80000"));
}

fn cpu_burst(lab: &Lab) {
    if lab.layout == Layout::V1 && !has_file("cpu", "cpu.cfs_burst_us") {
        skip("this kernel has no burst");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "cpu": { "quota": 40_000, "period": 80_000, "burst": 20_000 } });
    bundle.create().ok();
    assert_value(lab, &bundle, ("cpu", "cpu.cfs_burst_us", "20000"), ("cpu.max.burst", "20000"));
}

fn cpu_idle(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "cpu": { "idle": 1 } });
    bundle.create().ok();
    assert_value(lab, &bundle, ("cpu", "cpu.idle", "1"), ("cpu.idle", "1"));
}

fn cpus(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    assert_eq!(bundle.look()["cpus"], "0");
    bundle.create().ok();
    assert_value(lab, &bundle, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    assert_value(lab, &bundle, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0"));
}

fn unknown_cpus(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "cpu": { "cpus": "5000" } });
    bundle.create().refused();
}

fn pids_limit(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "pids": { "limit": 55 } });
    bundle.create().ok();
    assert_value(lab, &bundle, ("pids", "pids.max", "55"), ("pids.max", "55"));
}

fn pids_enforced(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "pids": { "limit": 20 } });
    let seen = bundle.probe(&["try", "threads:10", "threads:30"]).seen();
    assert_eq!(seen["try"]["threads:10"], "ok");
    assert_eq!(seen["try"]["threads:30"], "EAGAIN");
}

fn block_weight(lab: &Lab) {
    let has = ["blkio.weight", "blkio.bfq.weight"].iter().any(|file| has_file("blkio", file));
    if lab.layout == Layout::V1 && !has {
        skip("this kernel has no scheduler with weights");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "blockIO": { "weight": 300 } });
    bundle.create().ok();
    let of_v1 = if has_file("blkio", "blkio.bfq.weight") { "blkio.bfq.weight" } else { "blkio.weight" };
    assert!(value(lab, &bundle, ("blkio", of_v1), "io.bfq.weight").contains("300"));
}

/// Numbers of a block device of this machine that can be limited.
fn some_disk() -> Option<(u64, u64)> {
    let entries = fs::read_dir("/sys/block").ok()?;
    entries.flatten().find_map(|entry| {
        let text = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn block_throttle(lab: &Lab) {
    let Some((major, minor)) = some_disk() else { skip("this machine has no block device") };
    if lab.layout == Layout::V1 && !has_file("blkio", "blkio.throttle.read_bps_device") {
        skip("this kernel does not limit block devices");
    }
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "blockIO": {
        "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
        "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
    } });
    bundle.create().ok();
    match lab.layout {
        Layout::V1 => {
            for (file, rate) in
                [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 100), ("write_iops", 200)]
            {
                let seen = value(lab, &bundle, ("blkio", &format!("blkio.throttle.{file}_device")), "");
                assert_eq!(seen, format!("{major}:{minor} {rate}"));
            }
        }
        Layout::V2 => {
            let seen = value(lab, &bundle, ("", ""), "io.max");
            assert_eq!(seen, format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200"));
        }
    }
}

fn network(lab: &Lab) {
    only_v1(lab);
    if !Path::new("/sys/fs/cgroup/net_cls").exists() {
        skip("this machine does not mount net_cls and net_prio");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) =
        json!({ "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 5 }] } });
    bundle.create().ok();
    assert_eq!(value(lab, &bundle, ("net_cls", "net_cls.classid"), ""), "1048577");
    assert!(value(lab, &bundle, ("net_prio", "net_prio.ifpriomap"), "").contains("lo 5"));
}

/// The unified hierarchy beside those of v1 (a hybrid layout), or alone.
fn unified_folder(lab: &Lab) -> &'static Path {
    Path::new(if lab.layout == Layout::V1 { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" })
}

fn huge_pages(lab: &Lab) {
    let in_unified = fs::read_to_string(unified_folder(lab).join("cgroup.controllers")).unwrap_or_default();
    let on_v1 = Path::new("/sys/fs/cgroup/hugetlb").exists();
    if !on_v1 && !in_unified.contains("hugetlb") {
        skip("this machine has no controller of huge pages");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] });
    bundle.create().ok();
    let path = bundle.config["linux"]["cgroupsPath"].as_str().unwrap().trim_start_matches('/');
    let file = match on_v1 {
        true => folder(lab, &bundle, "hugetlb").join("hugetlb.2MB.limit_in_bytes"),
        false => unified_folder(lab).join(path).join("hugetlb.2MB.max"),
    };
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "4194304");
}

fn unified(lab: &Lab) {
    if lab.layout == Layout::V1 {
        skip("this machine has cgroups of v1");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "unified": { "memory.high": "50331648", "pids.max": "66" } });
    bundle.create().ok();
    assert_eq!(value(lab, &bundle, ("", ""), "memory.high"), "50331648");
    assert_eq!(value(lab, &bundle, ("", ""), "pids.max"), "66");
}

fn unified_on_v1(lab: &Lab) {
    only_v1(lab);
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "unified": { "memory.high": "50331648" } });
    bundle.create().refused();
}

fn absent_controller(lab: &Lab) {
    if lab.layout == Layout::V2 || Path::new("/sys/fs/cgroup/net_cls").exists() {
        skip("this machine has the controller net_cls, or it is of no use (v2)");
    }
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "network": { "classID": 1_048_577 } });
    bundle.create().refused();
}

fn empty(lab: &Lab) {
    let mut bundle = lab.bundle();
    *resources(&mut bundle) = json!({ "memory": {}, "cpu": {}, "blockIO": {}, "network": {}, "devices": [] });
    bundle.create().ok();
    assert_value(lab, &bundle, ("pids", "pids.max", "max"), ("pids.max", "max"));
}
