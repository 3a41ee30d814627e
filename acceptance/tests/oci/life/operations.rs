//! create, start, kill, delete, state: what each does, and what it refuses.

use serde_json::json;
use std::fs;

use crate::bundle::{await_value, says_missing};
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("runtime/create/status", "a container is created after `create`", created),
    property("runtime/create/does_not_run", "the program does not run before `start`", does_not_run),
    property(
        "runtime/create/id_taken",
        "an id that is in use is refused, and the container stays as it is",
        id_taken,
    ),
    property("runtime/create/id_bad", "an id that is no name is refused", id_bad),
    property(
        "runtime/create/failure_leaves_nothing",
        "a creation that fails leaves neither state nor cgroup",
        leaves_nothing,
    ),
    property(
        "runtime/create/later_changes",
        "changes of config.json after `create` have no effect",
        later_changes,
    ),
    property("runtime/start", "`start` runs the program, the status is running", start),
    property("runtime/start/twice", "a running container cannot be started", start_twice),
    property("runtime/start/stopped", "a stopped container cannot be started", start_stopped),
    property("runtime/start/missing", "a container that does not exist cannot be started", start_missing),
    property("runtime/state/members", "the state has ociVersion, id, status, pid and bundle", members),
    property("runtime/state/pid", "`pid` is the process as the runtime's namespace numbers it", pid),
    property("runtime/state/stopped", "a container whose program has ended is stopped", stopped),
    property(
        "runtime/state/missing",
        "the state of a container that does not exist is refused",
        state_missing,
    ),
    property("runtime/kill/running", "a signal reaches the program", kill_running),
    property("runtime/kill/created", "a created container can be killed", kill_created),
    property("runtime/kill/stopped", "a stopped container cannot be killed", kill_stopped),
    property("runtime/kill/missing", "a container that does not exist cannot be killed", kill_missing),
    property("runtime/kill/unknown_signal", "an unknown signal is refused", unknown_signal),
    property("runtime/kill/no_effect", "a refused operation has no effect on the container", no_effect),
    property("runtime/delete/stopped", "a stopped container is deleted, its id is free again", delete),
    property("runtime/delete/running", "a running container cannot be deleted", delete_running),
    property("runtime/delete/missing", "a container that does not exist cannot be deleted", delete_missing),
    property("runtime/delete/only_its_own", "what the container did not make is left", only_its_own),
    property("runtime/two_containers", "two containers of one bundle live side by side", two_containers),
    property(
        "runtime/exit_of_first_process",
        "the end of the first process ends the others of its pid namespace",
        ends_others,
    ),
];

fn created(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["wait"]).create().ok();
    assert_eq!(bundle.state()["status"], "created");
}

fn does_not_run(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["try", "create:/ran", "--", "wait"]).create().ok();
    assert!(!bundle.root("/ran").exists());
    bundle.runtime(&["start", &bundle.id]).ok();
    await_value("the program to run", || bundle.root("/ran").exists().then_some(()));
}

fn id_taken(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    let pid = bundle.pid();
    bundle.runtime(&["create", &bundle.id]).refused();
    assert_eq!((bundle.state()["status"].clone(), bundle.pid()), (json!("running"), pid));
}

fn id_bad(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.save();
    for id in ["../outside", "a/b", "with space", ".."] {
        bundle.runtime(&["create", id]).refused();
    }
}

fn leaves_nothing(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "bind", "/no/such/source", &["bind"]).create().refused();
    assert!(bundle.state().is_null());
    for controller in ["pids", "memory", "devices"] {
        assert!(!lab.cgroup(controller, &bundle.id).exists(), "{controller}");
    }
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    assert_eq!(bundle.look()["pid"], 1, "the same id works now");
}

fn later_changes(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["look", "--", "wait"]).create().ok();
    let before = bundle.config.clone();
    bundle.config["process"]["args"] = json!(["/bin/busybox", "false"]);
    bundle.config["hostname"] = "changed".into();
    bundle.save();
    bundle.runtime(&["start", &bundle.id]).ok();
    let line = await_value("the probe's line", || bundle.printed().lines().next().map(str::to_owned));
    let seen = crate::bundle::parse(&line);
    assert_eq!(seen["look"]["args"], before["process"]["args"]);
    assert_eq!(seen["look"]["hostname"], "gty");
}

fn start(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    assert_eq!(bundle.state()["status"], "running");
}

fn start_twice(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle.runtime(&["start", &bundle.id]).refused();
    assert_eq!(bundle.state()["status"], "running");
}

fn start_stopped(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle.end();
    bundle.runtime(&["start", &bundle.id]).refused();
    assert_eq!(bundle.state()["status"], "stopped");
}

fn start_missing(lab: &Lab) {
    let bundle = lab.bundle();
    let complaint = bundle.runtime(&["start", &bundle.id]).refused();
    assert!(says_missing(&complaint), "{complaint}");
}

fn members(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    let state = bundle.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], bundle.id);
    assert_eq!(state["bundle"], bundle.path().to_string_lossy().into_owned());
    assert!(state["pid"].as_i64().unwrap() > 1);
}

fn pid(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.waiting(&["look"]);
    let link =
        fs::read_link(format!("/proc/{}/ns/mnt", bundle.pid())).unwrap().to_string_lossy().into_owned();
    assert!(link.contains(&seen["look"]["namespaces"]["mnt"].to_string()), "{link}");
}

fn stopped(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["exit", "3"]).started();
    bundle.await_status("stopped");
}

fn state_missing(lab: &Lab) {
    let bundle = lab.bundle();
    let complaint = bundle.runtime(&["state", &bundle.id]).refused();
    assert!(says_missing(&complaint), "{complaint}");
}

fn kill_running(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    for (word, number) in [("HUP", 1), ("SIGINT", 2), ("12", 12)] {
        bundle.runtime(&["kill", &bundle.id, word]).ok();
        let line = format!("{{\"signal\":{number}}}");
        await_value(&line, || bundle.printed().contains(&line).then_some(()));
    }
    bundle.runtime(&["kill", &bundle.id]).ok();
    bundle.await_status("stopped");
}

fn kill_created(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["wait"]).create().ok();
    bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_status("stopped");
}

fn kill_stopped(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle.end();
    bundle.runtime(&["kill", &bundle.id, "TERM"]).refused();
}

fn kill_missing(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.runtime(&["kill", &bundle.id, "KILL"]).refused();
}

fn unknown_signal(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle.runtime(&["kill", &bundle.id, "WAVE"]).refused();
    assert_eq!(bundle.state()["status"], "running");
}

fn no_effect(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    let before = bundle.state();
    bundle.runtime(&["start", &bundle.id]).refused();
    bundle.runtime(&["create", &bundle.id]).refused();
    bundle.runtime(&["delete", &bundle.id]).refused();
    assert_eq!(bundle.state(), before);
}

fn delete(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert!(bundle.state().is_null());
    bundle.waiting(&[]);
    assert_eq!(bundle.state()["status"], "running");
}

fn delete_running(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle.runtime(&["delete", &bundle.id]).refused();
    assert_eq!(bundle.state()["status"], "running");
}

fn delete_missing(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.runtime(&["delete", &bundle.id]).refused();
}

fn only_its_own(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = bundle.beside("source");
    fs::create_dir(&source).unwrap();
    bundle.mount("/mnt", "bind", &source.to_string_lossy(), &["bind"]);
    bundle.waiting(&["try", "create:/mnt/file", "create:/in_root"]);
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert!(source.join("file").exists());
    assert!(bundle.root("/in_root").exists() && bundle.root("/probe").exists());
    assert!(bundle.path().join("config.json").exists());
}

fn two_containers(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    let other = format!("{}-other", bundle.id);
    bundle.config["linux"]["cgroupsPath"] = format!("{}/{other}", crate::lab::cgroup_parent()).into();
    bundle.save();
    let mut command = bundle.command(&["run", "--detach", &other]);
    let code =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap();
    assert!(code.success());
    bundle.runtime(&["delete", "--force", &other]).ok();
    assert_eq!(bundle.state()["status"], "running");
}

fn ends_others(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    let file = bundle.beside("pid");
    let path = file.to_string_lossy().into_owned();
    let args = ["exec", "--detach", "--pid-file", &path, &bundle.id, "/probe", "wait"];
    let mut command = bundle.command(&args);
    let code =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap();
    assert!(code.success());
    let pid: i32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let pidfd = gantry_linux::process::pidfd(pid).unwrap();
    bundle.end();
    crate::receiver::await_readable(&pidfd, "the end of the other process");
}
