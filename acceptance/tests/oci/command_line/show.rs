//! `list`, `ps`, `events`, and runc's additions to `state`.

use serde_json::Value;

use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("command/list/table", "`list` is a table with a heading", list_table),
    property("command/list/json", "`list --format json` has a member for each container", list_json),
    property("command/list/quiet", "`list --quiet` prints names only", list_quiet),
    property("command/list/format", "an unknown format is refused", list_format),
    property("command/list/empty", "without containers `list --quiet` prints nothing", list_empty),
    property("command/ps/table", "`ps` is the table of ps(1) with the container's processes", ps_table),
    property("command/ps/json", "`ps --format json` is a list of pids", ps_json),
    property("command/ps/stopped", "`ps` of a container that does not exist is refused", ps_missing),
    property("command/events/stats", "`events --stats` prints the usage of memory, cpu and pids", stats),
    property(
        "command/events/shape",
        "a reading has every part that runc's has, and its word for no limit",
        shape,
    ),
    property(
        "command/events/missing",
        "`events` of a container that does not exist is refused",
        events_missing,
    ),
    property("command/state/additions", "`state` says rootfs, created and owner too", additions),
];

fn waiting(lab: &Lab) -> Bundle {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle
}

fn list_table(lab: &Lab) {
    let bundle = waiting(lab);
    let text = bundle.runtime(&["list"]).ok();
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(heading[..4], ["ID", "PID", "STATUS", "BUNDLE"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let path = bundle.path().to_string_lossy().into_owned();
    assert_eq!(row[..4], [bundle.id.as_str(), &bundle.pid().to_string(), "running", &path]);
}

fn list_json(lab: &Lab) {
    let bundle = waiting(lab);
    let list: Value = serde_json::from_str(&bundle.runtime(&["list", "--format", "json"]).ok()).unwrap();
    let entry = &list[0];
    assert_eq!(entry["id"], bundle.id);
    assert_eq!(entry["status"], "running");
    assert_eq!(entry["pid"].as_i64(), Some(bundle.pid()));
    assert!(
        entry["bundle"].is_string() && entry["created"].is_string() && entry["ociVersion"].is_string(),
        "{entry}"
    );
}

fn list_quiet(lab: &Lab) {
    let bundle = waiting(lab);
    assert_eq!(bundle.runtime(&["list", "-q"]).ok(), format!("{}\n", bundle.id));
}

fn list_format(lab: &Lab) {
    lab.bundle().runtime(&["list", "--format", "poem"]).refused();
}

fn list_empty(lab: &Lab) {
    assert_eq!(lab.bundle().runtime(&["list", "--quiet"]).ok(), "");
}

fn ps_table(lab: &Lab) {
    let bundle = waiting(lab);
    let text = bundle.runtime(&["ps", &bundle.id]).ok();
    assert!(text.lines().next().unwrap().contains("PID"), "{text}");
    assert!(text.contains("/probe wait") && text.contains(&bundle.pid().to_string()), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

fn ps_json(lab: &Lab) {
    let bundle = waiting(lab);
    let pids: Vec<i64> =
        serde_json::from_str(&bundle.runtime(&["ps", "--format", "json", &bundle.id]).ok()).unwrap();
    assert_eq!(pids, [bundle.pid()]);
}

fn ps_missing(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.runtime(&["ps", &bundle.id]).refused();
}

fn stats(lab: &Lab) {
    let bundle = waiting(lab);
    let text = bundle.runtime(&["events", "--stats", &bundle.id]).ok();
    let event: Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], bundle.id);
    let data = &event["data"];
    assert_eq!(data["pids"]["current"], 1, "{event}");
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{event}");
}

fn shape(lab: &Lab) {
    let bundle = waiting(lab);
    let event: Value =
        serde_json::from_str(&bundle.runtime(&["events", "--stats", &bundle.id]).ok()).unwrap();
    let data = &event["data"];
    for part in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(data.get(part).is_some(), "{part}: {data}");
    }
    for counter in ["usage", "swap", "kernel", "kernelTCP"] {
        let counter = &data["memory"][counter];
        assert!(counter["limit"].is_u64() && counter["failcnt"].is_u64(), "{data}");
    }
    let legacy = std::path::Path::new("/sys/fs/cgroup/memory").exists();
    // The largest multiple of a page on v1, the word `max` on v2.
    let unlimited = if legacy { 9_223_372_036_854_771_712 } else { u64::MAX };
    assert_eq!(data["memory"]["usage"]["limit"], unlimited, "{data}");
    for setting in
        ["cpu_exclusive", "mem_hardwall", "memory_pressure", "sched_load_balance", "sched_relax_domain_level"]
    {
        assert!(data["cpuset"][setting].is_i64() || data["cpuset"][setting].is_u64(), "{setting}: {data}");
    }
    if legacy {
        assert_eq!(data["cpuset"]["sched_load_balance"], 1, "{data}");
        assert!(!data["cpuset"]["cpus"].as_array().unwrap().is_empty(), "{data}");
        assert!(data["memory"]["kernel"]["usage"].as_u64().unwrap() > 0, "{data}");
        let each = data["cpu"]["usage"]["percpu_user"].as_array().unwrap();
        assert_eq!(each.len(), data["cpu"]["usage"]["percpu"].as_array().unwrap().len(), "{data}");
    }
}

fn events_missing(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.runtime(&["events", "--stats", &bundle.id]).refused();
}

fn additions(lab: &Lab) {
    let bundle = waiting(lab);
    let state = bundle.state();
    assert_eq!(state["rootfs"], bundle.root("").to_string_lossy().trim_end_matches('/'));
    let created = state["created"].as_str().unwrap();
    assert!(created.len() >= 20 && created.contains('T'), "{created}");
    assert!(state["owner"].is_string(), "{state}");
}
