//! A container's life on version 2: namespaces, exec, pause, kill, delete.

use crate::Case;
use crate::container::{Container, until};
use serde_json::json;
use std::fs;

/// The checks.
pub const CASES: &[Case] = &[
    ("the_guest_has_control_groups_of_version_2_only", version_2_only),
    ("all_namespaces_are_its_own", all_namespaces),
    ("create_start_state_delete", create_start_state_delete),
    ("exec_joins_namespaces_and_group", exec_joins),
    ("pause_freezes_and_resume_thaws", pause_and_resume),
    ("kill_all_reaches_every_process_without_a_pid_namespace", kill_all),
    ("delete_removes_nested_groups", delete_removes_nested_groups),
];

fn version_2_only() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    assert!(mounts.contains(" cgroup2 ") && !mounts.contains(" cgroup rw"), "{mounts}");
}

fn all_namespaces() {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let script =
        format!("for n in {}; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup", kinds.join(" "));
    let mut container = Container::script(&script);
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    container.config["linux"]["namespaces"] = namespaces.map(|kind| json!({"type": kind})).to_vec().into();
    container.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000, "nanosecs": 0}});
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    container.config["linux"]["uidMappings"] = map.clone();
    container.config["linux"]["gidMappings"] = map;
    let out = container.output();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), kinds.len() + 1, "{out}");
    for (kind, inside) in kinds.iter().zip(&lines) {
        let outside =
            fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_ne!(outside.to_string_lossy(), *inside, "{kind}");
    }
    assert_eq!(lines[kinds.len()], "0::/", "the group is the root of its namespace");
}

fn create_start_state_delete() {
    let container = Container::script("echo started; exec sleep 600");
    container.save();
    // Output goes to a file: the container keeps it, and nobody waits for its end.
    let out = fs::File::create(container.path("out")).unwrap_or_else(|e| panic!("create out: {e}"));
    let mut command = std::process::Command::new("/bin/gantry-runtime");
    command.args(["--root", "/run/gty-vm", "create", &container.id]).current_dir(container.path("."));
    let status = command.stdout(out).status().unwrap_or_else(|e| panic!("create: {e}"));
    assert!(status.success());
    assert_eq!(container.state("status"), "created");
    container.ok(&["start", "ID"]);
    assert_eq!(container.state("status"), "running");
    let pid = container.state("pid").to_string();
    assert_eq!(container.group_file("cgroup.procs"), pid);
    until("it writes", || fs::read_to_string(container.path("out")).is_ok_and(|text| text == "started\n"));
    assert_ne!(container.call(&["delete", "ID"]).code, 0, "delete of a running container");
    container.ok(&["kill", "ID", "KILL"]);
    until("it stops", || container.state("status") == "stopped");
    container.ok(&["delete", "ID"]);
    assert!(!container.group().exists(), "the group is left");
}

fn exec_joins() {
    let container = Container::sleeper();
    container.start();
    let first = container.state("pid");
    let script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; exit 6";
    let answer = container.exec(script);
    assert_eq!(answer.code, 6, "{}", answer.err);
    for (kind, inside) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"].iter().zip(answer.out.lines()) {
        let of_first =
            fs::read_link(format!("/proc/{first}/ns/{kind}")).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(of_first.to_string_lossy(), inside);
    }
    assert!(answer.out.ends_with("0::/"), "{}", answer.out);
    container.ok(&["exec", "--detach", "ID", "/bin/sleep", "600"]);
    until("both are in the group", || container.group_file("cgroup.procs").lines().count() >= 2);
}

fn pause_and_resume() {
    let container = Container::script("i=0; while true; do i=$((i+1)); echo $i > /tmp/count; done");
    container.start();
    let count = || fs::read_to_string(container.path("rootfs/tmp/count")).unwrap_or_default();
    until("it counts", || !count().is_empty());
    container.ok(&["pause", "ID"]);
    assert_eq!(container.state("status"), "paused");
    assert_eq!(container.group_file("cgroup.freeze"), "1");
    assert!(container.group_file("cgroup.events").contains("frozen 1"));
    assert_ne!(container.exec("true").code, 0, "exec in a paused container");
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(before, count(), "it went on although frozen");
    container.ok(&["resume", "ID"]);
    assert_eq!(container.state("status"), "running");
    until("it goes on", || count() != before);
    // A frozen container can be killed.
    container.ok(&["pause", "ID"]);
    container.ok(&["kill", "ID", "KILL"]);
    until("it stops", || container.state("status") == "stopped");
}

fn kill_all() {
    let mut container = Container::script("sleep 600 & sleep 600 & wait");
    let namespaces = ["cgroup", "ipc", "mount", "network", "uts"];
    container.config["linux"]["namespaces"] = namespaces.map(|kind| json!({"type": kind})).to_vec().into();
    container.start();
    until("three run", || container.group_file("cgroup.procs").lines().count() == 3);
    container.ok(&["kill", "--all", "ID", "KILL"]);
    until("none is left", || container.group_file("cgroup.events").contains("populated 0"));
}

fn delete_removes_nested_groups() {
    let container = Container::script("mkdir -p /sys/fs/cgroup/a/b && echo made; exec sleep 600");
    let mut container = container;
    for mount in container.config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    container.start();
    until("it made groups", || container.group().join("a/b").exists());
    container.ok(&["delete", "--force", "ID"]);
    assert!(!container.group().exists());
}
