//! Exec into a container whose processes wait for what enters: until it has become the user's program, it has the host's
//! rights and descriptors, and nothing of it may be had (CVE-2016-9962).

use std::{
    fs,
    process::{Command, Stdio},
};

use gantry_runtime::{monitor::MonitorKind, oci::defaults};

use crate::{
    applets,
    harness::{Monitor, Sandbox, await_that, exists, text},
};

/// Looks into every process other than itself and the first as fast as it can, until the file /stop is there.
const WATCH: &str = "\
    while ! [ -e /stop ]; do for p in /proc/[0-9]*; do \
        case $p in /proc/1|/proc/$$) continue;; esac; \
        touch /seen; \
        (read x < $p/environ) 2>/dev/null && echo environ $x >> /loot; \
        (read x < $p/mem) 2>/dev/null && echo mem >> /loot; \
        [ -e $p/root/etc ] && echo root >> /loot; \
        [ -e $p/cwd/. ] && echo cwd >> /loot; \
        [ -e $p/exe ] && echo exe >> /loot; \
        for f in $p/fd/*; do [ -e $f ] && echo $f >> /loot; done; \
        (read x < $p/maps) 2>/dev/null && echo maps >> /loot; \
    done; done; sleep 1000";

/// A monitor that has entered the container and waits for the order to start there.
fn entered(sandbox: &Sandbox, terminal: bool) -> Monitor {
    let process = sandbox.path("process.json");
    let mut document = sandbox.spec.process.clone().unwrap();
    document.args =
        ["/bin/sh", "-c", "echo SECRET=of-the-program > /ran; sleep 1000"].map(str::to_owned).to_vec();
    document.terminal = terminal;
    fs::write(&process, serde_json::to_vec(&document).unwrap()).unwrap();
    let mut config = sandbox.monitor_config();
    config.id = format!("{}-exec", sandbox.id);
    config.kind = MonitorKind::Exec { container: sandbox.id.clone(), process };
    config.terminal = terminal;
    config.log = None;
    let mut monitor = sandbox.monitor("exec", &config);
    monitor.created();
    monitor
}

#[test]
fn what_enters_a_container_cannot_be_looked_into_until_it_is_the_program() {
    for terminal in [false, true] {
        let sandbox = Sandbox::new(&["/bin/sh", "-c", WATCH]);
        assert!(sandbox.create().status.success());
        assert!(sandbox.output(&["start", &sandbox.id]).status.success());
        let root = sandbox.rootfs();
        // It waits inside, with everything of the host that it will ever have, as long as the test likes.
        let mut monitor = entered(&sandbox, terminal);
        await_that("the attacker sees it", || exists(&root.join("seen")));
        // A second look that begins after the first shows that a whole round has gone by.
        fs::remove_file(root.join("seen")).unwrap();
        await_that("the attacker has looked", || exists(&root.join("seen")));
        fs::write(root.join("stop"), "").unwrap();
        let loot = fs::read_to_string(root.join("loot")).unwrap_or_default();
        assert_eq!(loot, "", "had of the process that entered");
        monitor.started();
        await_that("the program runs", || exists(&root.join("ran")));
    }
}

#[test]
fn many_short_execs_give_nothing_of_the_host_away() {
    // The moments before it hides, and those between the change of user and the program.
    let mut sandbox = Sandbox::new(&["/bin/sh", "-c", WATCH]);
    sandbox.process().env.push("MARK=program".into());
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let root = sandbox.rootfs();
    await_that("the attacker is at work", || exists(&root.join("bin/sh")));
    for _ in 0..60 {
        let mut exec = sandbox.command(&["exec", &sandbox.id, "/bin/sleep", "0.002"]);
        exec.env("HOST_SECRET", "stolen").stdin(Stdio::null());
        assert!(exec.status().unwrap().success());
    }
    await_that("the attacker has seen one", || exists(&root.join("seen")));
    fs::write(root.join("stop"), "").unwrap();
    let loot = fs::read_to_string(root.join("loot")).unwrap_or_default();
    // Of the program itself everything may be had: it is the container's own.
    assert!(!loot.contains("stolen") && !loot.contains("HOST_SECRET"), "{loot}");
    let descriptors: Vec<&str> = loot.lines().filter(|line| line.contains("/fd/")).collect();
    let program = |line: &&&str| ["0", "1", "2"].contains(&line.rsplit('/').next().unwrap());
    assert_eq!(descriptors.iter().filter(program).count(), descriptors.len(), "{descriptors:?}");
}

#[test]
fn the_first_process_cannot_be_looked_into_before_the_start() {
    // A container that is created but not started, entered by a process with its rights.
    let sandbox = Sandbox::script("exec sleep 1000");
    assert!(sandbox.create().status.success());
    let look = "cat /proc/1/environ; for f in /proc/1/fd/*; do [ -e $f ] && echo $f; done; ls /proc/1/root/ /proc/1/cwd/; cat /proc/1/maps; readlink /proc/1/exe";
    applets(&sandbox, &["readlink"]);
    let output = sandbox.output(&["exec", &sandbox.id, "/bin/sh", "-c", look]);
    assert_eq!(text(&output.stdout), "", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("Permission denied"), "{}", text(&output.stderr));
}

#[test]
fn what_enters_takes_no_settings_from_a_hostile_container() {
    // The container has changed what the runtime could read of it: its name, its environment, its files of users.
    let mut sandbox = Sandbox::script(
        "echo 'root:x:0:0::/nowhere:/bin/sh' > /etc/passwd; echo hostile > /proc/self/comm; exec sleep 1000",
    );
    sandbox.process().capabilities = Some(defaults::capability_sets(&defaults::capabilities()));
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    applets(&sandbox, &["grep"]);
    let output = sandbox.output(&[
        "exec",
        &sandbox.id,
        "/bin/sh",
        "-c",
        "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; pwd",
    ]);
    let out = text(&output.stdout);
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
}

#[test]
fn exec_does_not_enter_a_process_that_has_taken_the_number() {
    // The container's process is gone and its number used by another: nothing of that one may be entered.
    let sandbox = Sandbox::script("exec sleep 1000");
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let path = sandbox.root().join(&sandbox.id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut other = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let real = state["pid"].clone();
    state["pid"] = other.id().into();
    fs::write(&path, state.to_string()).unwrap();
    let output = sandbox.output(&["exec", &sandbox.id, "/bin/echo", "entered"]);
    let killed = sandbox.output(&["kill", &sandbox.id, "KILL"]);
    let alive = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    state["pid"] = real;
    fs::write(&path, state.to_string()).unwrap();
    assert!(
        !output.status.success() && !text(&output.stdout).contains("entered"),
        "{}",
        text(&output.stdout)
    );
    assert!(alive, "the other process was killed: {}", text(&killed.stderr));
}
