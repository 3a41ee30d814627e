//! `linux.namespaces`: new ones, inherited ones, joined ones.

use serde_json::{Value, json};

use crate::bundle::{Bundle, parse};
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property(
        "linux/namespaces/new/pid",
        "a pid namespace is new, its first process has the number 1",
        new_pid,
    ),
    property(
        "linux/namespaces/new/others",
        "network, ipc, uts, mount and cgroup namespaces are new",
        new_others,
    ),
    property("linux/namespaces/new/user", "a user namespace is new", new_user),
    property("linux/namespaces/new/time", "a time namespace is new", new_time),
    property("linux/namespaces/inherited", "a namespace that is not listed is the runtime's", inherited),
    property(
        "linux/namespaces/network/loopback",
        "a new network namespace has a loopback link that is up, and no other",
        loopback,
    ),
    property("linux/namespaces/path/network", "a network namespace is joined by path", join_network),
    property("linux/namespaces/path/ipc", "an ipc namespace is joined by path", join_ipc),
    property("linux/namespaces/path/uts", "a uts namespace is joined by path", join_uts),
    property("linux/namespaces/path/pid", "a pid namespace is joined by path", join_pid),
    property("linux/namespaces/path/cgroup", "a cgroup namespace is joined by path", join_cgroup),
    property(
        "linux/namespaces/path/user",
        "a user namespace is joined by path, with the others of its container",
        join_user,
    ),
    property("linux/namespaces/path/time", "a time namespace is joined by path", join_time),
    property("linux/namespaces/path/missing", "a path that does not exist is refused", path_missing),
    property(
        "linux/namespaces/path/other_kind",
        "a path of a namespace of another kind is refused",
        other_kind,
    ),
    property("linux/namespaces/path/no_namespace", "a path that is no namespace is refused", no_namespace),
    property("linux/namespaces/twice", "a kind that is listed twice is refused", twice),
    property("linux/namespaces/unknown", "an unknown kind is refused", unknown),
    property("linux/timeOffsets", "a new time namespace has the offsets of `timeOffsets`", time_offsets),
    property(
        "linux/timeOffsets/without_namespace",
        "`timeOffsets` without a new time namespace is refused",
        offsets_alone,
    ),
    property(
        "linux/cgroup_namespace/view",
        "in a new cgroup namespace the container's cgroup is the root",
        cgroup_view,
    ),
];

fn of_host(kind: &str) -> Value {
    let text = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    text.rsplit_once('[').unwrap().1.trim_end_matches(']').parse::<u64>().unwrap().into()
}

fn new_pid(lab: &Lab) {
    let seen = lab.bundle().look();
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["ppid"], 0);
    assert_ne!(seen["namespaces"]["pid"], of_host("pid"));
}

fn new_others(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.namespace("cgroup", None).look();
    for kind in ["net", "ipc", "uts", "mnt", "cgroup"] {
        assert_ne!(seen["namespaces"][kind], of_host(kind), "{kind}");
    }
    for kind in ["user", "time"] {
        assert_eq!(seen["namespaces"][kind], of_host(kind), "{kind}");
    }
}

fn new_user(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.user_namespace(100_000).look();
    assert_ne!(seen["namespaces"]["user"], of_host("user"));
}

fn new_time(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.namespace("time", None).look();
    assert_ne!(seen["namespaces"]["time"], of_host("time"));
}

fn inherited(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config.as_object_mut().unwrap().remove("hostname");
    for kind in ["network", "ipc", "uts"] {
        bundle.without_namespace(kind);
    }
    let seen = bundle.look();
    for kind in ["net", "ipc", "uts", "cgroup", "user", "time"] {
        assert_eq!(seen["namespaces"][kind], of_host(kind), "{kind}");
    }
}

fn loopback(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.probe(&["read", "/proc/net/dev", "/proc/net/fib_trie"]).seen();
    // The kernel has routes to a link's addresses while it is up.
    let routes = seen["read"]["/proc/net/fib_trie"].as_str().unwrap_or_default();
    assert!(routes.contains("127.0.0.1"), "{seen}");
    let links: Vec<&str> = seen["read"]["/proc/net/dev"].as_str().unwrap().lines().skip(2).collect();
    // Kernels make links for tunnels in every namespace when those modules are there.
    assert!(links.iter().any(|line| line.trim_start().starts_with("lo:")), "{links:?}");
    assert!(!links.iter().any(|line| line.trim_start().starts_with("eth")), "{links:?}");
}

/// Joins one namespace of a waiting container, and compares.
fn join(lab: &Lab, kind: &str, file: &str, prepare: fn(&mut Bundle)) {
    let mut first = lab.bundle();
    prepare(&mut first);
    let waiting = first.waiting(&["look"]);
    let path = format!("/proc/{}/ns/{file}", first.pid());
    let mut second = lab.bundle();
    second.config.as_object_mut().unwrap().remove("hostname");
    second.namespace(kind, Some(&path));
    let seen = second.look();
    assert_eq!(seen["namespaces"][file], waiting["look"]["namespaces"][file]);
    assert_ne!(seen["namespaces"]["mnt"], waiting["look"]["namespaces"]["mnt"]);
    // The one that was joined is still what it was.
    assert_eq!(first.state()["status"], "running");
}

fn join_network(lab: &Lab) {
    join(lab, "network", "net", |_| {});
}

fn join_ipc(lab: &Lab) {
    join(lab, "ipc", "ipc", |_| {});
}

fn join_uts(lab: &Lab) {
    join(lab, "uts", "uts", |_| {});
}

fn join_pid(lab: &Lab) {
    join(lab, "pid", "pid", |_| {});
}

fn join_cgroup(lab: &Lab) {
    join(lab, "cgroup", "cgroup", |first| {
        first.namespace("cgroup", None);
    });
}

fn join_time(lab: &Lab) {
    join(lab, "time", "time", |first| {
        first.namespace("time", None);
    });
}

fn join_user(lab: &Lab) {
    let mut first = lab.bundle();
    let waiting = first.user_namespace(100_000).waiting(&["look"]);
    let folder = format!("/proc/{}/ns", first.pid());
    let mut second = lab.bundle();
    second.config.as_object_mut().unwrap().remove("hostname");
    for place in ["", "proc", "sys", "dev", "tmp", "etc"] {
        std::os::unix::fs::chown(second.root(place), Some(100_000), Some(100_000)).unwrap();
    }
    for (kind, file) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        second.namespace(kind, Some(&format!("{folder}/{file}")));
    }
    let seen = second.look();
    for file in ["user", "net", "ipc", "uts"] {
        assert_eq!(seen["namespaces"][file], waiting["look"]["namespaces"][file], "{file}");
    }
    assert_eq!(seen["uid"], 0);
    assert_eq!(seen["uidMap"], waiting["look"]["uidMap"]);
}

fn path_missing(lab: &Lab) {
    let mut bundle = lab.bundle();
    let complaint = bundle.namespace("network", Some("/no/such/namespace")).create().refused();
    assert!(complaint.contains("/no/such/namespace"), "{complaint}");
}

fn other_kind(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config.as_object_mut().unwrap().remove("hostname");
    bundle.namespace("uts", Some("/proc/self/ns/net")).create().refused();
    assert!(bundle.state().is_null());
}

fn no_namespace(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.namespace("network", Some("/etc/hostname")).create().refused();
}

fn twice(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" }));
    bundle.create().refused();
}

fn unknown(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.namespace("luck", None).create().refused();
}

fn time_offsets(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.namespace("time", None);
    bundle.config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 3600, "nanosecs": 0 }, "boottime": { "secs": 7200, "nanosecs": 500 } });
    let offsets = bundle.look()["timeOffsets"].as_str().unwrap().to_owned();
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "3600", "0", "boottime", "7200", "500"]);
}

fn offsets_alone(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 3600, "nanosecs": 0 } });
    bundle.create().refused();
}

fn cgroup_view(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.namespace("cgroup", None).probe(&["look"]);
    let seen = parse(&bundle.run().ok());
    let lines = seen["look"]["cgroups"].as_array().unwrap();
    let of_pids = lines.iter().map(|line| line.as_str().unwrap()).find(|line| line.contains(":pids:"));
    let line = of_pids
        .or_else(|| lines.iter().map(|line| line.as_str().unwrap()).find(|line| line.starts_with("0::")));
    assert!(line.unwrap().ends_with(":/"), "{lines:?}");
}
