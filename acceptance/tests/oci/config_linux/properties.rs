//! `sysctl`, `personality`, `intelRdt`, `mountLabel`, `memoryPolicy`, `netDevices`.

use serde_json::json;

use crate::lab::{Lab, skip};
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("linux/sysctl/network", "parameters of a new network namespace are set", network),
    property("linux/sysctl/ipc", "parameters of a new ipc namespace are set", ipc),
    property(
        "linux/sysctl/host_network",
        "net.* in the runtime's network namespace is refused",
        host_network,
    ),
    property("linux/sysctl/host_ipc", "parameters of the runtime's ipc namespace are refused", host_ipc),
    property("linux/sysctl/global", "a parameter of the whole machine is refused", global),
    property("linux/sysctl/unknown", "a parameter that does not exist is refused", unknown),
    property("linux/personality", "`domain` LINUX32 is set", personality),
    property("linux/personality/unknown", "an unknown domain is refused", unknown_personality),
    property("linux/intelRdt", "`intelRdt` on a machine without resctrl is refused", intel_rdt),
    property(
        "linux/mountLabel",
        "`mountLabel` on a machine without SELinux is refused or has no effect",
        mount_label,
    ),
    property("linux/memoryPolicy/unknown", "an unknown memory policy is refused", unknown_memory_policy),
    property("linux/netDevices/missing", "a network device that does not exist is refused", missing_device),
    property(
        "linux/netDevices/host_network",
        "`netDevices` without a new network namespace is refused",
        device_of_host,
    ),
];

fn network(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "net.core.somaxconn": "256" });
    let paths = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/core/somaxconn"];
    let seen = bundle.probe(&[&["read"], &paths[..]].concat()).seen();
    assert_eq!(seen["read"][paths[0]], "1");
    assert_eq!(seen["read"][paths[1]], "256");
}

fn ipc(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["sysctl"] = json!({ "kernel.shmmni": "1234", "fs.mqueue.msg_max": "17" });
    let paths = ["/proc/sys/kernel/shmmni", "/proc/sys/fs/mqueue/msg_max"];
    let seen = bundle.probe(&[&["read"], &paths[..]].concat()).seen();
    assert_eq!(seen["read"][paths[0]], "1234");
    assert_eq!(seen["read"][paths[1]], "17");
}

fn host_network(lab: &Lab) {
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let mut bundle = lab.bundle();
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": before.trim() });
    bundle.without_namespace("network").create().refused();
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
}

fn host_ipc(lab: &Lab) {
    let before = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let mut bundle = lab.bundle();
    bundle.config["linux"]["sysctl"] = json!({ "kernel.shmmni": before.trim() });
    bundle.without_namespace("ipc").create().refused();
}

fn global(lab: &Lab) {
    let before = std::fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    let mut bundle = lab.bundle();
    bundle.config["linux"]["sysctl"] = json!({ "vm.swappiness": before.trim() });
    bundle.create().refused();
}

fn unknown(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.gty_none": "1" });
    bundle.create().refused();
}

fn personality(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    // PER_LINUX32 is 8 (personality(2)).
    assert_eq!(bundle.look()["personality"], "00000008");
}

fn unknown_personality(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["personality"] = json!({ "domain": "LINUX128" });
    bundle.create().refused();
}

fn intel_rdt(lab: &Lab) {
    if std::fs::read_to_string("/proc/mounts").unwrap().contains(" resctrl ") {
        skip("this machine has resctrl");
    }
    let mut bundle = lab.bundle();
    bundle.config["linux"]["intelRdt"] = json!({ "closID": "gty", "l3CacheSchema": "L3:0=f" });
    bundle.create().refused();
}

fn mount_label(lab: &Lab) {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip("this kernel has SELinux, and no policy is loaded for the test");
    }
    let mut bundle = lab.bundle();
    bundle.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0".into();
    bundle.probe(&["look"]);
    let ended = bundle.run();
    if ended.code == Some(0) {
        assert!(!ended.out.contains("context="), "{}", ended.out);
    } else {
        ended.refused();
    }
}

fn unknown_memory_policy(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_LUCK", "nodes": "0" });
    bundle.create().refused();
}

fn missing_device(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["netDevices"] = json!({ "gty-none": { "name": "eth0" } });
    bundle.create().refused();
}

fn device_of_host(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["netDevices"] = json!({ "lo": {} });
    bundle.without_namespace("network").create().refused();
}
