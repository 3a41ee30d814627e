//! The OCI command line on bundles made by hand. Needs root.

mod harness;

use std::{
    fs,
    io::Read,
    os::fd::{AsFd, AsRawFd},
    os::unix::net::UnixListener,
    process::Stdio,
};

use gantry_runtime::oci::{Hook, Hooks, Memory, NamespaceKind, Pids};
use harness::{Sandbox, await_that, leftovers, text};

#[test]
fn run_gives_the_programs_exit_code_and_leaves_nothing() {
    let sandbox = Sandbox::script("echo out; echo err >&2; exit 7");
    let output = sandbox.run();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
    assert!(leftovers(&sandbox).is_empty(), "{:?}", leftovers(&sandbox));
}

#[test]
fn a_program_killed_by_a_signal_counts_128_more() {
    let sandbox = Sandbox::script("kill -9 $$; kill -USR1 $$; exit 3");
    // The first process ignores signals without a handler; a child does not.
    assert_eq!(sandbox.run().status.code(), Some(3));
    let sandbox = Sandbox::script("/bin/sh -c 'kill -9 $$'; exit $?");
    assert_eq!(sandbox.run().status.code(), Some(137));
}

#[test]
fn programs_that_cannot_be_run_say_so_with_dockers_codes() {
    for (program, code, words) in [
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
    ] {
        let sandbox = Sandbox::new(&[program]);
        let output = sandbox.run();
        assert_eq!(output.status.code(), Some(code), "{program}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
        assert!(leftovers(&sandbox).is_empty());
    }
}

#[test]
fn a_container_goes_through_create_start_kill_delete() {
    let sandbox = Sandbox::script("echo ran; exec sleep 1000");
    assert!(sandbox.create().status.success());
    assert_eq!(sandbox.state()["status"], "created");
    assert!(!sandbox.create().status.success(), "the id is taken");
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    assert_eq!(sandbox.state()["status"], "running");
    await_that("output", || fs::read_to_string(sandbox.path("out")).unwrap() == "ran\n");
    let again = sandbox.output(&["start", &sandbox.id]);
    assert!(text(&again.stderr).contains("it is running"), "{}", text(&again.stderr));
    assert!(!sandbox.output(&["delete", &sandbox.id]).status.success());
    assert!(sandbox.output(&["kill", &sandbox.id, "KILL"]).status.success());
    sandbox.await_status("stopped");
    assert!(!sandbox.output(&["kill", &sandbox.id, "KILL"]).status.success());
    assert!(sandbox.output(&["delete", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
    let gone = sandbox.output(&["state", &sandbox.id]);
    assert!(text(&gone.stderr).contains("does not exist"));
}

#[test]
fn a_failed_create_tells_the_whole_chain_and_leaves_nothing() {
    let mut sandbox = Sandbox::new(&["/bin/true"]);
    sandbox.spec.mounts.push(gantry_runtime::oci::Mount {
        destination: "/mnt".into(),
        kind: Some("tmpfs".into()),
        source: Some("tmpfs".into()),
        options: vec!["size=nonsense".into()],
        ..Default::default()
    });
    let output = sandbox.create();
    let error = text(&output.stderr);
    assert!(error.contains("mount tmpfs to /mnt: ") && error.contains("size=nonsense"), "{error}");
    assert!(error.contains("Invalid argument"), "{error}");
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_cgroup_that_was_left_is_made_anew_and_one_in_use_is_refused() {
    let sandbox = Sandbox::script("cat /sys/fs/cgroup/pids/pids.max");
    let left = std::path::Path::new("/sys/fs/cgroup/pids/gantry-test").join(&sandbox.id);
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("pids.max"), "1").unwrap();
    assert_eq!(sandbox.stdout(), "max\n");
    fs::create_dir_all(&left).unwrap();
    let mut sleeper = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    fs::write(left.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    let error = text(&sandbox.run().stderr);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    fs::remove_dir(&left).unwrap();
    assert!(error.contains("has processes in it"), "{error}");
}

#[test]
fn exec_joins_the_container_and_returns_its_own_code() {
    let sandbox = Sandbox::script("exec sleep 1000");
    assert!(sandbox.create().status.success());
    sandbox.output(&["start", &sandbox.id]);
    let output = sandbox.output(&["exec", &sandbox.id, "/bin/sh", "-c", "ps; ls /; exit 5"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(out.contains("sleep 1000") && out.contains("etc"), "{out}");
    // The same namespaces and the same filter, capabilities and cgroups as the first process.
    let of = |pid: &str| {
        let script = format!(
            "ls -l /proc/{pid}/ns | head -n 20; cat /proc/{pid}/cgroup; cat /proc/{pid}/status | head -n 60"
        );
        let output = sandbox.output(&["exec", &sandbox.id, "/bin/sh", "-c", &script]);
        let keep = |line: &&str| {
            ["->", ":/", "Cap", "Seccomp:", "NoNewPrivs"].iter().any(|word| line.contains(word))
        };
        let lines: Vec<String> = text(&output.stdout)
            .lines()
            .filter(keep)
            .map(|line| line.rsplit("->").next().unwrap().trim().to_owned())
            .collect();
        lines
    };
    assert_eq!(of("1"), of("self"));
    assert_eq!(sandbox.output(&["exec", &sandbox.id, "/nope"]).status.code(), Some(127));
    let user = sandbox.output(&[
        "exec",
        "--user",
        "33:44",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        &sandbox.id,
        "/bin/sh",
        "-c",
        "id -u; id -g; pwd; echo $A $HOME",
    ]);
    assert_eq!(text(&user.stdout), "33\n44\n/tmp\nb /srv\n", "{}", text(&user.stderr));
}

#[test]
fn pause_resume_ps_list_events_and_update_work() {
    let sandbox = Sandbox::script("exec sleep 1000");
    assert!(sandbox.create().status.success());
    sandbox.output(&["start", &sandbox.id]);
    assert!(sandbox.output(&["pause", &sandbox.id]).status.success());
    assert_eq!(sandbox.state()["status"], "paused");
    assert!(!sandbox.output(&["exec", &sandbox.id, "/bin/true"]).status.success());
    assert!(sandbox.output(&["resume", &sandbox.id]).status.success());
    assert_eq!(sandbox.state()["status"], "running");
    assert!(text(&sandbox.output(&["ps", &sandbox.id]).stdout).contains("sleep 1000"));
    assert!(text(&sandbox.output(&["list"]).stdout).contains(&sandbox.id));
    let updated = sandbox.output(&["update", "--memory", "33554432", "--pids-limit", "17", &sandbox.id]);
    assert!(updated.status.success(), "{}", text(&updated.stderr));
    let events = sandbox.output(&["events", "--stats", &sandbox.id]);
    let stats: serde_json::Value = serde_json::from_slice(&events.stdout).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 33_554_432);
    assert_eq!(stats["data"]["pids"]["limit"], 17);
    for limit in ["67108864", "16777216"] {
        // Up and down again: which of the two files must be written first changes.
        let updated = sandbox.output(&["update", "--memory", limit, "--memory-swap", limit, &sandbox.id]);
        assert!(updated.status.success(), "{}", text(&updated.stderr));
    }
    // Killing a frozen container works too.
    sandbox.output(&["pause", &sandbox.id]);
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn limits_are_in_force() {
    let mut sandbox = Sandbox::script(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max; i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done",
    );
    let resources = sandbox.linux().resources.as_mut().unwrap();
    resources.memory = Some(Memory { limit: Some(64 << 20), ..Memory::default() });
    resources.pids = Some(Pids { limit: 10 });
    let output = sandbox.run();
    assert!(text(&output.stdout).starts_with("67108864\n10\n"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("can't fork"), "{}", text(&output.stderr));
}

#[test]
fn a_console_socket_gets_a_working_terminal() {
    let mut sandbox = Sandbox::script("tty; stty size; echo hello > /dev/console; read x; echo got $x");
    sandbox.process().terminal = true;
    sandbox.process().console_size = Some(gantry_runtime::oci::ConsoleSize { height: 33, width: 99 });
    sandbox.save();
    let socket = sandbox.path("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let status = sandbox
        .command(&["create", "--console-socket", socket.to_str().unwrap(), &sandbox.id])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let (connection, _) = listener.accept().unwrap();
    let (_, master) = gantry_runtime::channel::receive(connection.as_fd()).unwrap();
    let mut master = fs::File::from(master.unwrap());
    assert!(master.as_raw_fd() > 2);
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let mut seen = String::new();
    let mut read = |until: &str, master: &mut fs::File| {
        while !seen.contains(until) {
            let mut buffer = [0; 256];
            let length = master.read(&mut buffer).unwrap_or(0);
            assert!(length > 0, "end before {until:?}: {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        seen.clone()
    };
    let first = read("hello", &mut master);
    assert!(first.contains("/dev/pts/0") && first.contains("33 99"), "{first}");
    std::io::Write::write_all(&mut master, b"there\n").unwrap();
    read("got there", &mut master);
    sandbox.await_status("stopped");
}

#[test]
fn all_hooks_run_at_their_points_and_a_failing_one_stops_the_start() {
    let mut sandbox = Sandbox::script("echo program");
    let record = sandbox.path("record");
    let hook = |word: &str| Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), format!("cat > /dev/null; echo {word} >> {}", record.display())],
        ..Hook::default()
    };
    let inside = Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), "cat > /state".into()],
        ..Hook::default()
    };
    sandbox.spec.hooks = Some(Hooks {
        prestart: vec![hook("prestart")],
        create_runtime: vec![hook("createRuntime")],
        create_container: vec![hook("createContainer")],
        start_container: vec![inside],
        poststart: vec![hook("poststart")],
        poststop: vec![hook("poststop")],
    });
    assert_eq!(sandbox.stdout(), "program\n");
    let order = fs::read_to_string(&record).unwrap();
    assert_eq!(order, "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n");
    let state = fs::read_to_string(sandbox.rootfs().join("state")).unwrap();
    assert!(state.contains(&sandbox.id), "{state}");
    let bad = Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), "echo why >&2; exit 3".into()],
        ..Hook::default()
    };
    sandbox.spec.hooks = Some(Hooks { create_runtime: vec![bad], ..Hooks::default() });
    let output = sandbox.run();
    let error = text(&output.stderr);
    assert!(error.contains("createRuntime hook /bin/sh: exit status: 3: why"), "{error}");
    let slow = Hook {
        path: "/bin/sleep".into(),
        args: vec!["sleep".into(), "100".into()],
        timeout: Some(1),
        ..Hook::default()
    };
    sandbox.spec.hooks = Some(Hooks { prestart: vec![slow], ..Hooks::default() });
    assert!(text(&sandbox.run().stderr).contains("did not end within 1 s"));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_user_namespace_maps_root_to_an_ordinary_user() {
    let mut sandbox = Sandbox::script("id -u; cat /proc/self/uid_map; echo x > /dev/null; touch /tmp/made");
    let linux = sandbox.linux();
    linux.namespaces.push(gantry_runtime::oci::Namespace { kind: NamespaceKind::User, path: None });
    let map = gantry_runtime::oci::IdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    let rootfs = sandbox.rootfs();
    std::os::unix::fs::chown(rootfs.join("tmp"), Some(100_000), Some(100_000)).unwrap();
    for folder in [
        rootfs.clone(),
        rootfs.parent().unwrap().to_owned(),
        rootfs.parent().unwrap().parent().unwrap().to_owned(),
    ] {
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for name in ["", "dev", "proc", "sys"] {
        std::os::unix::fs::chown(rootfs.join(name), Some(100_000), Some(100_000)).unwrap();
    }
    let out = sandbox.stdout();
    assert!(out.starts_with("0\n") && out.contains("100000"), "{out}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(rootfs.join("tmp/made")).unwrap());
    assert_eq!(owner, 100_000);
}

#[test]
fn the_reaper_passes_codes_and_signals_on() {
    let mut sandbox = Sandbox::new(&[
        "/init",
        "init",
        "--",
        "/bin/sh",
        "-c",
        "(sleep 0.01 &) ; trap 'exit 9' TERM; kill -TERM $$; sleep 5",
    ]);
    let target = sandbox.rootfs().join("init");
    fs::copy(harness::RUNTIME, &target).unwrap();
    for library in fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
    {
        if library.contains(".so") {
            // A runtime that is linked dynamically needs its libraries; the one that is shipped does not.
            let place = sandbox.rootfs().join(library.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(library, place).unwrap();
        }
    }
    let loader = sandbox.rootfs().join("lib64");
    fs::create_dir_all(&loader).unwrap();
    fs::copy("/lib64/ld-linux-x86-64.so.2", loader.join("ld-linux-x86-64.so.2")).unwrap();
    let output = sandbox.run();
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    sandbox.process().args = ["/init", "init", "--", "/nope"].map(str::to_owned).to_vec();
    let output = sandbox.run();
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
}

#[test]
fn what_a_program_without_a_pid_namespace_leaves_behind_ends_with_the_container_at_once() {
    let mut sandbox = Sandbox::script("sleep 1000 & exit 3");
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Pid);
    sandbox.save();
    // The sleep must not hold pipes of this test open.
    let start = std::time::Instant::now();
    let mut command = sandbox.command(&["run", &sandbox.id]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(3));
    // Less than the patience with processes that end by themselves.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert!(leftovers(&sandbox).is_empty());
}
