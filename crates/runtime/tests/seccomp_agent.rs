//! SCMP_ACT_NOTIFY: the filter's listener reaches the agent, which decides. Needs root.

mod harness;

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::mpsc,
};

use gantry_runtime::{
    channel,
    oci::{Seccomp, SeccompAction, SyscallRule},
};
use harness::{Sandbox, leftovers, text};

/// A container whose filter asks an agent about mkdir.
fn asking(script: &str) -> Sandbox {
    let mut sandbox = Sandbox::script(script);
    let path = sandbox.path("agent.sock");
    let names = ["mkdir", "mkdirat"].map(str::to_owned).to_vec();
    let rule = SyscallRule { names, action: SeccompAction::Notify, ..SyscallRule::default() };
    sandbox.linux().seccomp = Some(Seccomp {
        default_action: SeccompAction::Allow,
        flags: Some(vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()]),
        listener_path: Some(path),
        listener_metadata: Some("told".into()),
        syscalls: vec![rule],
        ..Seccomp::default()
    });
    sandbox
}

/// What the agent is sent: the document and the listener.
fn taken(listener: &UnixListener) -> (serde_json::Value, OwnedFd) {
    let (connection, _) = listener.accept().unwrap();
    let (document, fd) = channel::receive(connection.as_fd()).unwrap();
    (serde_json::from_slice(&document).unwrap(), fd.unwrap())
}

fn is_listener(fd: &OwnedFd) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    link == Path::new("anon_inode:seccomp notify")
}

#[test]
fn the_agent_gets_the_listener_with_the_state_of_the_process() {
    let sandbox = asking("exec sleep 1000");
    let agent = UnixListener::bind(sandbox.path("agent.sock")).unwrap();
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let (document, fd) = taken(&agent);
    assert!(is_listener(&fd));
    assert_eq!(document["fds"], serde_json::json!(["seccompFd"]));
    assert_eq!(document["metadata"], "told");
    assert_eq!(document["state"]["id"], sandbox.id.as_str());
    assert_eq!(document["pid"], sandbox.state()["pid"]);
    assert_eq!(document["state"]["status"], "creating");
    // A later process has a filter, and so a listener, of its own.
    let file = sandbox.path("exec.pid");
    let status = sandbox
        .command(&[
            "exec",
            "--detach",
            "--pid-file",
            file.to_str().unwrap(),
            &sandbox.id,
            "/bin/sleep",
            "1000",
        ])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let (document, fd) = taken(&agent);
    assert!(is_listener(&fd));
    assert_eq!(document["pid"].to_string(), fs::read_to_string(&file).unwrap());
    assert_eq!(document["state"]["status"], "running");
}

#[test]
fn a_call_that_the_filter_asks_about_waits_for_the_agent_and_fails_when_it_goes() {
    let sandbox = asking("mkdir /made; echo ended $?");
    let agent = UnixListener::bind(sandbox.path("agent.sock")).unwrap();
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || tell.send(taken(&agent)).unwrap());
    sandbox.save();
    let mut runtime = sandbox
        .command(&["run", &sandbox.id])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (_, listener) = hear.recv_timeout(harness::PATIENCE).unwrap();
    // The listener is readable when a call waits.
    let mut waits = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut waits, Some(&patience)).unwrap(), 1);
    assert!(runtime.try_wait().unwrap().is_none());
    drop(listener);
    let mut out = String::new();
    runtime.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "ended 1\n");
    assert!(runtime.wait().unwrap().success());
    assert!(!sandbox.rootfs().join("made").exists());
}

#[test]
fn a_missing_agent_is_told_before_the_program_runs() {
    let sandbox = asking("touch /ran");
    let output = sandbox.run();
    assert!(text(&output.stderr).contains("connect to the seccomp agent"), "{}", text(&output.stderr));
    assert!(!sandbox.rootfs().join("ran").exists());
    assert!(leftovers(&sandbox).is_empty());
}
