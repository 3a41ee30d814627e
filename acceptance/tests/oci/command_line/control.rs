//! `pause`, `resume`, `kill`, `delete`, `update`.

use std::fs;

use serde_json::json;

use crate::bundle::{Bundle, await_value};
use crate::lab::{Lab, Layout};
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("command/pause", "`pause` freezes every process, the status is paused", pause),
    property("command/pause/stopped", "a stopped container cannot be paused", pause_stopped),
    property("command/pause/twice", "a paused container cannot be paused", pause_twice),
    property("command/resume", "`resume` lets them go on", resume),
    property("command/resume/running", "a running container cannot be resumed", resume_running),
    property("command/kill/paused", "a paused container is killed by KILL", kill_paused),
    property("command/kill/all", "`kill --all` reaches every process", kill_all),
    property(
        "command/kill/without_pid_namespace",
        "KILL ends all processes of a container without a pid namespace",
        kill_host_pid,
    ),
    property("command/delete/force", "`delete --force` ends and deletes a running container", delete_force),
    property(
        "command/delete/force_missing",
        "`delete --force` of what does not exist succeeds",
        force_missing,
    ),
    property("command/delete/created", "a created container is deleted", delete_created),
    property("command/update/options", "`update` changes limits by options", update_options),
    property("command/update/resources", "`update --resources` reads them from a file", update_file),
    property("command/update/stdin", "`update --resources -` reads them from standard input", update_stdin),
    property("command/update/others_stay", "limits that are not named stay", update_keeps),
    property("command/update/bad", "resources that are not JSON are refused", update_bad),
];

fn waiting(lab: &Lab) -> Bundle {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle
}

fn pause(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    bundle.runtime(&["kill", &bundle.id, "HUP"]).ok();
    let frozen = match lab.layout {
        Layout::V1 => lab.cgroup("freezer", &bundle.id).join("freezer.state"),
        Layout::V2 => lab.cgroup("", &bundle.id).join("cgroup.freeze"),
    };
    let text = fs::read_to_string(frozen).unwrap();
    assert!(matches!(text.trim(), "FROZEN" | "1"), "{text}");
    assert!(!bundle.printed().contains("signal"), "it runs");
}

fn pause_stopped(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.end();
    bundle.runtime(&["pause", &bundle.id]).refused();
}

fn pause_twice(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["pause", &bundle.id]).ok();
    bundle.runtime(&["pause", &bundle.id]).refused();
    assert_eq!(bundle.state()["status"], "paused");
}

fn resume(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["pause", &bundle.id]).ok();
    bundle.runtime(&["kill", &bundle.id, "HUP"]).ok();
    bundle.runtime(&["resume", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "running");
    await_value("the signal", || bundle.printed().contains("\"signal\":1").then_some(()));
}

fn resume_running(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["resume", &bundle.id]).refused();
    assert_eq!(bundle.state()["status"], "running");
}

fn kill_paused(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["pause", &bundle.id]).ok();
    bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_status("stopped");
}

fn kill_all(lab: &Lab) {
    let bundle = waiting(lab);
    let file = bundle.beside("pid").to_string_lossy().into_owned();
    bundle.exec(&["--detach", "--pid-file", &file], &["/probe", "wait"]).ok();
    let pid: i32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let pidfd = gantry_linux::process::pidfd(pid).unwrap();
    bundle.runtime(&["kill", "--all", &bundle.id, "KILL"]).ok();
    crate::receiver::await_readable(&pidfd, "the end of the other process");
    bundle.await_status("stopped");
}

fn kill_host_pid(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.without_namespace("pid");
    bundle.config["process"]["args"] =
        json!(["/bin/busybox", "sh", "-c", "/bin/busybox sleep 600 & echo {\\\"ready\\\":$!}; wait"]);
    bundle.started();
    let seen = await_value("the shell", || {
        serde_json::from_str::<serde_json::Value>(bundle.printed().lines().next()?).ok()
    });
    // Without a pid namespace the number is the host's.
    let pid = i32::try_from(seen["ready"].as_i64().unwrap()).unwrap();
    let pidfd = gantry_linux::process::pidfd(pid).unwrap();
    bundle.end();
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
    crate::receiver::await_readable(&pidfd, "the end of the other process");
}

fn delete_force(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
    assert!(bundle.state().is_null());
    assert!(!lab.cgroup("pids", &bundle.id).exists());
}

fn force_missing(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
}

fn delete_created(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["wait"]).create().ok();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert!(bundle.state().is_null());
}

fn limit(lab: &Lab, bundle: &Bundle, v1: (&str, &str), v2: &str) -> String {
    let path = match lab.layout {
        Layout::V1 => lab.cgroup(v1.0, &bundle.id).join(v1.1),
        Layout::V2 => lab.cgroup("", &bundle.id).join(v2),
    };
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        .trim()
        .to_owned()
}

fn memory(lab: &Lab, bundle: &Bundle) -> String {
    limit(lab, bundle, ("memory", "memory.limit_in_bytes"), "memory.max")
}

fn pids(lab: &Lab, bundle: &Bundle) -> String {
    limit(lab, bundle, ("pids", "pids.max"), "pids.max")
}

fn update_options(lab: &Lab) {
    let bundle = waiting(lab);
    let options =
        ["--memory", "67108864", "--pids-limit", "44", "--cpu-quota", "30000", "--cpu-period", "60000"];
    bundle.runtime(&[&["update"], &options[..], &[&bundle.id]].concat()).ok();
    assert_eq!(memory(lab, &bundle), "67108864");
    assert_eq!(pids(lab, &bundle), "44");
    let quota = limit(lab, &bundle, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(matches!(quota.as_str(), "30000" | "30000 60000"), "{quota}");
}

fn update_file(lab: &Lab) {
    let bundle = waiting(lab);
    let file = bundle.beside("resources.json");
    fs::write(&file, json!({ "memory": { "limit": 50_331_648 }, "pids": { "limit": 33 } }).to_string())
        .unwrap();
    bundle.runtime(&["update", "--resources", &file.to_string_lossy(), &bundle.id]).ok();
    assert_eq!(memory(lab, &bundle), "50331648");
    assert_eq!(pids(lab, &bundle), "33");
}

fn update_stdin(lab: &Lab) {
    let bundle = waiting(lab);
    let file = bundle.beside("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 22 } }).to_string()).unwrap();
    let mut command = bundle.command(&["update", "-r", "-", &bundle.id]);
    bundle.finish(command.stdin(fs::File::open(file).unwrap())).ok();
    assert_eq!(pids(lab, &bundle), "22");
}

fn update_keeps(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["resources"] =
        json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 55 } });
    bundle.waiting(&[]);
    bundle.runtime(&["update", "--pids-limit", "66", &bundle.id]).ok();
    assert_eq!(memory(lab, &bundle), "67108864");
    assert_eq!(pids(lab, &bundle), "66");
}

fn update_bad(lab: &Lab) {
    let bundle = waiting(lab);
    let file = bundle.beside("resources.json");
    fs::write(&file, "{ \"memory\": ").unwrap();
    bundle.runtime(&["update", "-r", &file.to_string_lossy(), &bundle.id]).refused();
}
