//! Monitors: reports, attach, log, exit status, survival, other runtimes. Needs root.

mod harness;

use std::{fs, io::Write, os::unix::fs::symlink, process::Stdio};

use gantry_runtime::monitor::{ExitStatus, FrameKind, LogConfig, MonitorKind, Report, Subscription, frame};
use harness::{RUNTIME, Sandbox, await_that, leftovers};

#[test]
fn a_monitor_creates_waits_for_the_order_logs_and_tells_the_end() {
    let mut sandbox = Sandbox::script("echo out; echo err >&2; touch /made; exit 3");
    sandbox.spec.root = Some(gantry_runtime::oci::Root { path: "rootfs".into(), readonly: false });
    let mut config = sandbox.monitor_config();
    let overlay = sandbox.overlay();
    config.kind = MonitorKind::Container { bundle: sandbox.bundle(), rootfs: Some(overlay.clone()) };
    let mut monitor = sandbox.monitor("m", &config);
    let pid = monitor.created();
    assert!(pid > 1);
    assert_eq!(sandbox.state()["status"], "created");
    let mut client = monitor.attach(Subscription::ALL);
    assert!(sandbox.log().is_empty());
    monitor.started();
    let (out, err, exit) = client.rest();
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let status = monitor.exit_status();
    assert_eq!(exit, Some(status.clone()));
    assert_eq!((status.exit_code, status.signal, status.oom_killed), (3, None, false));
    assert!(status.started_at <= status.finished_at && status.error.is_none(), "{status:?}");
    let mut log = sandbox.log();
    log.sort();
    assert_eq!(log, [("stderr".to_owned(), "err\n".to_owned()), ("stdout".to_owned(), "out\n".to_owned())]);
    // The changes went into the upper layer, and nothing was visible on the host.
    assert!(overlay.upper.join("made").exists() && !sandbox.rootfs().join("made").exists());
    assert!(leftovers(&sandbox).is_empty(), "{:?}", leftovers(&sandbox));
}

#[test]
fn without_an_order_the_container_is_undone() {
    let sandbox = Sandbox::script("echo never");
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    let pid = monitor.created();
    drop(monitor.orders.take());
    monitor.child.wait().unwrap();
    assert!(leftovers(&sandbox).is_empty());
    assert!(!fs::exists(format!("/proc/{pid}/exe")).unwrap());
    assert_eq!(ExitStatus::read(&monitor.folder).unwrap(), None);
    assert!(sandbox.log().is_empty());
}

#[test]
fn failures_are_reported_with_their_chain_and_code() {
    let sandbox = Sandbox::new(&["/nope"]);
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    match monitor.report() {
        Report::Failed { message, exit_code: 127 } => assert!(message.contains("no such file"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(leftovers(&sandbox).is_empty());
    // A program that is found but cannot be executed fails at the start.
    let sandbox = Sandbox::new(&["/bin/broken"]);
    let broken = sandbox.rootfs().join("bin/broken");
    fs::write(&broken, "#!/no/interpreter\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    monitor.created();
    monitor.start();
    match monitor.report() {
        Report::Failed { message, exit_code: 127 } => assert!(message.contains("/bin/broken"), "{message}"),
        other => panic!("{other:?}"),
    }
    let status = monitor.exit_status();
    assert!(status.exit_code == 127 && status.error.is_some());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn stdin_reaches_the_container_and_ends_with_its_client() {
    let sandbox = Sandbox::script("cat; echo done");
    let mut config = sandbox.monitor_config();
    config.open_stdin = true;
    config.stdin_once = true;
    let mut monitor = sandbox.monitor("m", &config);
    monitor.created();
    let mut reader = monitor.attach(Subscription::ALL);
    let mut writer = monitor.attach(Subscription::STDOUT);
    monitor.started();
    writer.send(FrameKind::Stdin, b"one\n");
    reader.read_until("one\n");
    drop(writer);
    let (out, _, exit) = reader.rest();
    assert_eq!((out.as_str(), exit.unwrap().exit_code), ("done\n", 0));
    // By an explicit frame, with more data than any pipe holds.
    let sandbox = Sandbox::script("wc -c");
    let mut config = sandbox.monitor_config();
    config.open_stdin = true;
    let mut monitor = sandbox.monitor("m", &config);
    monitor.created();
    let mut client = monitor.attach(Subscription::ALL);
    monitor.started();
    for _ in 0..64 {
        client.send(FrameKind::Stdin, &[b'x'; 32 * 1024]);
    }
    client.send(FrameKind::CloseStdin, b"");
    assert_eq!(client.rest().0.trim(), (64 * 32 * 1024).to_string());
}

#[test]
fn a_terminal_has_the_asked_size_and_follows_changes() {
    let mut sandbox = Sandbox::script("stty size; read x; stty size; exit 4");
    sandbox.process().terminal = true;
    let mut config = sandbox.monitor_config();
    config.terminal = true;
    config.open_stdin = true;
    config.console_size = Some((30, 90));
    let mut monitor = sandbox.monitor("m", &config);
    monitor.created();
    let mut client = monitor.attach(Subscription::ALL);
    monitor.started();
    client.read_until("30 90");
    client.socket.write_all(&frame::encode_resize(40, 120)).unwrap();
    client.send(FrameKind::Stdin, b"\n");
    let (out, err, exit) = client.rest();
    assert!(out.contains("40 120") && err.is_empty(), "{out}");
    assert_eq!(exit.unwrap().exit_code, 4);
    assert!(sandbox.log().iter().all(|(stream, _)| stream == "stdout"));
}

#[test]
fn the_engine_may_die_and_the_container_lives_on() {
    let sandbox = Sandbox::script("while true; do echo tick; sleep 0.05; done");
    sandbox.save();
    let folder = sandbox.path("m");
    fs::create_dir_all(&folder).unwrap();
    let config = serde_json::to_vec(&sandbox.monitor_config()).unwrap();
    fs::write(folder.join("monitor.json"), config).unwrap();
    // A shell plays the engine: it starts the monitor with pipes, gives the order, and is killed.
    let script =
        format!("(echo start; sleep 1000) | {RUNTIME} monitor {} | cat; sleep 1000", folder.display());
    let mut engine = std::process::Command::new("/bin/busybox")
        .args(["setsid", "sh", "-c", &script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    await_that("first ticks", || sandbox.log().len() > 2);
    // The whole session of the engine goes, the monitor has left it.
    let group = rustix::process::Pid::from_raw(engine.id().cast_signed()).unwrap();
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = engine.kill();
    engine.wait().unwrap();
    let before = sandbox.log().len();
    await_that("more ticks", || sandbox.log().len() > before + 3);
    assert_eq!(sandbox.state()["status"], "running");
    assert!(sandbox.output(&["kill", &sandbox.id, "KILL"]).status.success());
    await_that("exit.json", || ExitStatus::read(&folder).unwrap().is_some());
    let status = ExitStatus::read(&folder).unwrap().unwrap();
    assert_eq!((status.exit_code, status.signal), (137, Some(9)));
    await_that("clean-up", || leftovers(&sandbox).is_empty());
}

#[test]
fn a_client_that_does_not_read_stops_neither_log_nor_container() {
    let sandbox = Sandbox::script("dd if=/dev/zero bs=65536 count=64 2>/dev/null; echo; echo end");
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    monitor.created();
    let slow = monitor.attach(Subscription::STDOUT);
    monitor.started();
    let status = monitor.exit_status();
    assert_eq!(status.exit_code, 0);
    let log = sandbox.log();
    assert_eq!(log.last().unwrap().1, "end\n");
    assert_eq!(log.iter().map(|(_, text)| text.chars().count()).sum::<usize>(), 64 * 65536 + 1 + 4);
    drop(slow);
}

#[test]
fn the_log_is_rotated() {
    let sandbox = Sandbox::script("i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done");
    let mut config = sandbox.monitor_config();
    config.log = Some(LogConfig::JsonFile { path: sandbox.path("log.json"), max_size: 4096, max_file: 3 });
    let mut monitor = sandbox.monitor("m", &config);
    monitor.created();
    monitor.started();
    monitor.exit_status();
    for name in ["log.json", "log.json.1", "log.json.2"] {
        let size = fs::metadata(sandbox.path(name)).unwrap().len();
        assert!(size < 4096 + 200, "{name}: {size}");
    }
    assert!(!sandbox.path("log.json.3").exists());
    assert_eq!(sandbox.log().last().unwrap().1, "line 199\n");
}

#[test]
fn a_writer_that_outlives_the_first_process_does_not_keep_the_monitor() {
    let mut sandbox = Sandbox::script("yes & read x");
    // In the host's pid namespace the kernel does not end the others with the first process.
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != gantry_runtime::oci::NamespaceKind::Pid);
    symlink("busybox", sandbox.rootfs().join("bin/yes")).unwrap();
    let mut config = sandbox.monitor_config();
    config.open_stdin = true;
    config.log = None;
    let mut monitor = sandbox.monitor("m", &config);
    monitor.created();
    let mut client = monitor.attach(Subscription(0));
    monitor.started();
    client.send(FrameKind::Stdin, b"go\n");
    assert_eq!(monitor.exit_status().exit_code, 0);
    assert!(leftovers(&sandbox).is_empty(), "{:?}", leftovers(&sandbox));
}

#[test]
fn a_memory_kill_is_told() {
    let mut sandbox = Sandbox::script("dd if=/dev/zero of=/dev/null bs=64M count=1; exit 9");
    let resources = sandbox.linux().resources.as_mut().unwrap();
    resources.memory = Some(gantry_runtime::oci::Memory {
        limit: Some(16 << 20),
        swap: Some(16 << 20),
        ..Default::default()
    });
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    monitor.created();
    monitor.started();
    assert!(monitor.exit_status().oom_killed);
}

#[test]
fn an_exec_has_a_monitor_of_its_own() {
    let sandbox = Sandbox::script("exec sleep 1000");
    let mut container = sandbox.monitor("m", &sandbox.monitor_config());
    container.created();
    container.started();
    let mut process = sandbox.spec.process.clone().unwrap();
    process.args = ["/bin/sh", "-c", "read x; echo got $x; exit 6"].map(str::to_owned).to_vec();
    let document = sandbox.path("process.json");
    fs::write(&document, serde_json::to_vec(&process).unwrap()).unwrap();
    let mut config = sandbox.monitor_config();
    config.id = "exec-1".into();
    config.kind = MonitorKind::Exec { container: sandbox.id.clone(), process: document.clone() };
    config.open_stdin = true;
    config.log = None;
    let mut exec = sandbox.monitor("e", &config);
    let pid = exec.created();
    let mut client = exec.attach(Subscription::ALL);
    exec.start();
    assert_eq!(exec.report(), Report::Started { pid: Some(pid) });
    client.send(FrameKind::Stdin, b"this\n");
    let (out, _, exit) = client.rest();
    assert_eq!((out.as_str(), exit.unwrap().exit_code), ("got this\n", 6));
    process.args = vec!["nope".into()];
    fs::write(&document, serde_json::to_vec(&process).unwrap()).unwrap();
    let mut exec = sandbox.monitor("e2", &config);
    assert!(matches!(exec.report(), Report::Failed { exit_code: 127, .. }));
    sandbox.output(&["kill", &sandbox.id, "KILL"]);
    assert_eq!(container.exit_status().exit_code, 137);
}

#[test]
fn a_monitor_is_small_and_listens_for_root_only() {
    let sandbox = Sandbox::script("exec sleep 1000");
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    monitor.created();
    monitor.started();
    let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", monitor.child.id())).unwrap();
    let kilobytes: u64 = smaps
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    // The debug build, linked dynamically, has more private pages of libraries than the one that is shipped.
    assert!(kilobytes < 2048, "{kilobytes} kB");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(monitor.folder.join("attach.sock")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", monitor.child.id())).unwrap();
    let may_lower = gantry_linux::capability::CapSet::permitted()
        .contains(gantry_linux::capability::Capability::from_name("CAP_SYS_RESOURCE").unwrap());
    assert_eq!(score.trim(), if may_lower { "-500" } else { "0" });
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/oom_score_adj", sandbox.state()["pid"])).unwrap().trim(),
        "0"
    );
    sandbox.output(&["kill", &sandbox.id, "KILL"]);
    monitor.exit_status();
}

#[test]
fn runc_works_behind_a_monitor() {
    let mut sandbox =
        Sandbox::script("echo out; echo err >&2; trap 'exit 7' TERM; while true; do sleep 0.05; done");
    let mut config = sandbox.monitor_config();
    config.runtime = sandbox.other_runtime("/usr/sbin/runc");
    config.kind = MonitorKind::Container { bundle: sandbox.bundle(), rootfs: Some(sandbox.overlay()) };
    let mut monitor = sandbox.monitor("m", &config);
    let pid = monitor.created();
    let mut client = monitor.attach(Subscription::ALL);
    monitor.started();
    client.read_until("out\n");
    let document = sandbox.path("process.json");
    let mut process = sandbox.spec.process.clone().unwrap();
    process.args = ["/bin/sh", "-c", "echo in exec; exit 5"].map(str::to_owned).to_vec();
    fs::write(&document, serde_json::to_vec(&process).unwrap()).unwrap();
    let mut exec_config = config.clone();
    exec_config.kind = MonitorKind::Exec { container: sandbox.id.clone(), process: document };
    exec_config.log = None;
    let mut exec = sandbox.monitor("e", &exec_config);
    exec.created();
    let mut exec_client = exec.attach(Subscription::ALL);
    exec.started();
    let (out, _, exit) = exec_client.rest();
    assert_eq!((out.as_str(), exit.unwrap().exit_code), ("in exec\n", 5));
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(monitor.exit_status().exit_code, 7);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(sandbox.rootfs().to_str().unwrap()), "the overlay is unmounted");
    assert!(leftovers(&sandbox).is_empty(), "{:?}", leftovers(&sandbox));
}

#[test]
fn runc_with_a_terminal_and_its_failures_come_through() {
    let mut sandbox = Sandbox::script("tty; exit 2");
    sandbox.process().terminal = true;
    let mut config = sandbox.monitor_config();
    config.runtime = sandbox.other_runtime("/usr/sbin/runc");
    config.terminal = true;
    let mut monitor = sandbox.monitor("m", &config);
    monitor.created();
    let mut client = monitor.attach(Subscription::ALL);
    monitor.started();
    let (out, _, exit) = client.rest();
    assert!(out.contains("/dev/pts/0"), "{out}");
    assert_eq!(exit.unwrap().exit_code, 2);
    let mut sandbox = Sandbox::new(&["/nope"]);
    let mut config = sandbox.monitor_config();
    config.runtime = sandbox.other_runtime("/usr/sbin/runc");
    let mut monitor = sandbox.monitor("m", &config);
    let first = monitor.report();
    let failed = if matches!(first, Report::Created { .. }) {
        monitor.start();
        monitor.report()
    } else {
        first
    };
    assert!(matches!(&failed, Report::Failed { exit_code: 127, .. }), "{failed:?}");
}
