//! `exec` and its options. Needs root.

mod harness;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    os::unix::net::UnixListener,
    path::Path,
    process::Stdio,
};

use harness::{Sandbox, await_that, text};

fn running(script: &str) -> Sandbox {
    let sandbox = Sandbox::script(script);
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    sandbox
}

#[test]
fn a_user_without_a_group_keeps_the_containers_and_capabilities_are_added() {
    let mut sandbox = Sandbox::script("exec sleep 1000");
    sandbox.process().user.gid = 7;
    let sets = sandbox.process().capabilities.as_mut().unwrap();
    *sets = gantry_runtime::oci::Capabilities::default();
    assert!(sandbox.create().status.success());
    sandbox.output(&["start", &sandbox.id]);
    let exec = |options: &[&str], script: &str| {
        let mut args = vec!["exec"];
        args.extend(options);
        args.extend([sandbox.id.as_str(), "/bin/sh", "-c", script]);
        let output = sandbox.output(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(exec(&["--user", "33"], "id -u; id -g"), "33\n7\n");
    assert_eq!(exec(&["-u", "33:44", "-g", "55", "-g", "66"], "id -u; id -g; id -G"), "33\n44\n44 55 66\n");
    let status = exec(&["--cap", "CAP_KILL"], "head -n 60 /proc/self/status");
    assert!(
        status.contains("CapBnd:\t0000000000000020") && status.contains("CapInh:\t0000000000000000"),
        "{status}"
    );
}

#[test]
fn errors_of_exec_have_runcs_code_and_those_of_programs_docker_s() {
    let sandbox = running("exec sleep 1000");
    let code = |args: &[&str]| sandbox.output(args).status.code();
    assert_eq!(code(&["exec", "gty-no-such", "/bin/true"]), Some(255));
    assert_eq!(code(&["exec", &sandbox.id]), Some(255));
    assert_eq!(code(&["exec", &sandbox.id, "/nope"]), Some(127));
    assert_eq!(code(&["exec", &sandbox.id, "/etc/passwd"]), Some(126));
    assert_eq!(code(&["exec", &sandbox.id, "--", "/bin/sh", "-c", "exit 3"]), Some(3));
}

#[test]
fn a_process_can_be_put_into_a_group_below_the_containers() {
    let sandbox = running("exec sleep 1000");
    let group = format!("/sys/fs/cgroup/pids/gantry-test/{}/below", sandbox.id);
    let missing = sandbox.output(&["exec", "--cgroup", "pids:below", &sandbox.id, "/bin/true"]);
    assert!(text(&missing.stderr).contains("there is no cgroup"), "{}", text(&missing.stderr));
    fs::create_dir(&group).unwrap();
    let output =
        sandbox.output(&["exec", "--cgroup", "pids:below", &sandbox.id, "/bin/cat", "/proc/self/cgroup"]);
    let out = text(&output.stdout);
    assert!(out.contains(":pids:/below\n") && out.contains(":memory:/\n"), "{out} {}", text(&output.stderr));
    let outside = sandbox.output(&["exec", "--cgroup", "pids:../x", &sandbox.id, "/bin/true"]);
    assert!(text(&outside.stderr).contains("is not below"), "{}", text(&outside.stderr));
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(!Path::new(&group).exists());
}

#[test]
fn a_paused_container_takes_a_process_only_when_asked_and_runs_it_later() {
    let sandbox = running("exec sleep 1000");
    assert!(sandbox.output(&["pause", &sandbox.id]).status.success());
    let refused = sandbox.output(&["exec", &sandbox.id, "/bin/true"]);
    assert!(text(&refused.stderr).contains("it is paused"), "{}", text(&refused.stderr));
    let mut waiting = sandbox
        .command(&["exec", "--ignore-paused", &sandbox.id, "/bin/true"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let tasks = format!("/sys/fs/cgroup/freezer/gantry-test/{}/tasks", sandbox.id);
    await_that("the process in its group", || fs::read_to_string(&tasks).unwrap().lines().count() > 1);
    assert!(waiting.try_wait().unwrap().is_none());
    assert!(sandbox.output(&["resume", &sandbox.id]).status.success());
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn affinity_of_an_exec_is_set_before_and_after_it_joins_the_cgroups() {
    let sandbox = running("exec sleep 1000");
    let file = sandbox.path("process.json");
    let write = |affinity: &str| {
        let process = format!(
            r#"{{"args":["/bin/head","-n","60","/proc/self/status"],"cwd":"/","env":["PATH=/bin"],"execCPUAffinity":{affinity}}}"#
        );
        fs::write(&file, process).unwrap();
        sandbox.output(&["exec", "--process", file.to_str().unwrap(), &sandbox.id])
    };
    let output = write(r#"{"initial":"0","final":"1"}"#);
    assert!(
        text(&output.stdout).contains("Cpus_allowed_list:\t1\n"),
        "{} {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let output = write(r#"{"final":"x"}"#);
    assert!(text(&output.stderr).contains("process.execCPUAffinity"), "{}", text(&output.stderr));
}

#[test]
fn a_detached_process_tells_its_pid_and_its_pidfd() {
    let sandbox = running("exec sleep 1000");
    let (pid_file, socket) = (sandbox.path("pid"), sandbox.path("pidfd.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let status = sandbox
        .command(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), "--pidfd-socket"])
        .arg(&socket)
        .args([&sandbox.id, "/bin/sleep", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let (connection, _) = listener.accept().unwrap();
    let (_, pidfd) = gantry_runtime::channel::receive(connection.as_fd()).unwrap();
    let pidfd = pidfd.unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    assert!(info.contains(&format!("Pid:\t{pid}\n")), "{info}");
    let pids: Vec<i32> =
        serde_json::from_slice(&sandbox.output(&["ps", "--format", "json", &sandbox.id]).stdout).unwrap();
    assert!(pids.contains(&pid), "{pids:?}");
}
