//! What `process` of a configuration asks for, seen from inside the container. Needs root.

mod harness;

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::{net::UnixDatagram, process::CommandExt},
    },
    process::Stdio,
};

use gantry_runtime::oci::{IoPriority, MemoryPolicy, Personality, Rlimit, Scheduler};
use harness::{Sandbox, await_that, leftovers, text};

#[test]
fn scheduling_limits_and_domain_are_those_of_the_configuration() {
    let mut sandbox = Sandbox::script(
        "cat /proc/self/limits; cat /proc/self/sched | head -n 60; cat /proc/self/oom_score_adj; uname -m; umask; \
         cat /proc/self/numa_maps | head -n 1",
    );
    std::os::unix::fs::symlink("busybox", sandbox.rootfs().join("bin/uname")).unwrap();
    let process = sandbox.process();
    process.rlimits = vec![
        Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 100, hard: 200 },
        Rlimit { kind: "RLIMIT_CORE".into(), soft: 0, hard: 0 },
        Rlimit { kind: "RLIMIT_STACK".into(), soft: 4 << 20, hard: 8 << 20 },
    ];
    process.scheduler = Some(Scheduler { policy: "SCHED_BATCH".into(), nice: 7, ..Scheduler::default() });
    process.io_priority = Some(IoPriority { class: "IOPRIO_CLASS_IDLE".into(), priority: 0 });
    process.oom_score_adj = Some(321);
    process.user.umask = Some(0o027);
    sandbox.linux().personality = Some(Personality { domain: "LINUX32".into(), flags: Vec::new() });
    let out = sandbox.stdout();
    let line = |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("Max open files").contains("100                  200"), "{out}");
    assert!(line("Max core file size").contains("0                    0"), "{out}");
    assert!(line("Max stack size").contains("4194304              8388608"), "{out}");
    assert!(out.contains("\n321\ni686\n0027\n"), "{out}");
    if !line("policy").is_empty() {
        // Only kernels with CONFIG_SCHED_DEBUG show it; SCHED_BATCH is 3 and nice 7 is priority 127.
        assert!(line("policy").ends_with(" 3") && line("prio").ends_with(" 127"), "{out}");
    }
}

#[test]
fn what_a_configuration_asks_wrongly_is_refused_with_its_field_and_leaves_nothing() {
    type Change = fn(&mut Sandbox);
    let cases: [(&str, Change); 6] = [
        ("process.ioPriority.class", |s| {
            s.process().io_priority = Some(IoPriority { class: "IOPRIO_CLASS_NOPE".into(), priority: 0 });
        }),
        ("process.rlimits", |s| {
            s.process().rlimits = vec![Rlimit { kind: "RLIMIT_NOPE".into(), soft: 1, hard: 1 }];
        }),
        ("linux.memoryPolicy.mode", |s| {
            s.linux().memory_policy =
                Some(MemoryPolicy { mode: "MPOL_NOPE".into(), ..MemoryPolicy::default() });
        }),
        ("linux.personality.domain", |s| {
            s.linux().personality = Some(Personality { domain: "BSD".into(), flags: Vec::new() });
        }),
        ("process.env", |s| s.process().env.push("no-equals-sign".into())),
        ("process.oomScoreAdj", |s| s.process().oom_score_adj = Some(1001)),
    ];
    for (field, change) in cases {
        let mut sandbox = Sandbox::new(&["/bin/true"]);
        change(&mut sandbox);
        let output = sandbox.run();
        assert_eq!(output.status.code(), Some(1), "{field}");
        assert!(text(&output.stderr).contains(field), "{field}: {}", text(&output.stderr));
        assert!(leftovers(&sandbox).is_empty(), "{field}");
    }
}

#[test]
fn a_profile_of_a_security_module_that_the_kernel_lacks_is_refused() {
    let mut sandbox = Sandbox::new(&["/bin/true"]);
    sandbox.process().apparmor_profile = Some("nope-profile".into());
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("AppArmor") || error.contains("apparmor"), "{error}");
    sandbox.process().apparmor_profile = None;
    sandbox.process().selinux_label = Some("system_u:system_r:container_t:s0".into());
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("SELinux") || error.contains("attr/exec"), "{error}");
}

#[test]
fn the_last_of_two_variables_counts_and_an_empty_home_is_filled() {
    let mut sandbox = Sandbox::new(&["/bin/env"]);
    sandbox.process().env = ["PATH=/bin", "A=1", "HOME=", "A=2"].map(str::to_owned).to_vec();
    assert_eq!(sandbox.stdout(), "PATH=/bin\nA=2\nHOME=/root\n");
}

#[test]
fn unknown_capabilities_are_told_and_passed_over() {
    let mut sandbox = Sandbox::script("head -n 60 /proc/self/status");
    let sets = sandbox.process().capabilities.as_mut().unwrap();
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        *set = vec!["CAP_KILL".into(), "CAP_NOPE".into()];
    }
    sets.inheritable.clear();
    sets.ambient.clear();
    sandbox.save();
    let log = sandbox.path("log");
    let output =
        sandbox.output(&["--log", log.to_str().unwrap(), "--log-format", "json", "run", &sandbox.id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("CapEff:\t0000000000000020\n"), "{}", text(&output.stdout));
    let line: serde_json::Value =
        serde_json::from_str(fs::read_to_string(&log).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "warning");
    assert!(line["msg"].as_str().unwrap().contains("CAP_NOPE"), "{line}");
}

#[test]
fn a_container_has_a_session_keyring_of_its_own_and_exec_shares_it() {
    let mut sandbox = Sandbox::script("cat /proc/keys; exec sleep 1000");
    sandbox.linux().masked_paths.clear();
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let name = format!("_ses.{}", sandbox.id);
    await_that("the keys", || fs::read_to_string(sandbox.path("out")).unwrap().contains(&name));
    let inside = sandbox.output(&["exec", &sandbox.id, "/bin/cat", "/proc/keys"]);
    let ring = |text: &str| {
        let line = text.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    let first = fs::read_to_string(sandbox.path("out")).unwrap();
    assert_eq!(ring(&text(&inside.stdout)), ring(&first));

    let mut sandbox = Sandbox::script("cat /proc/keys");
    sandbox.linux().masked_paths.clear();
    sandbox.save();
    let output = sandbox.output(&["run", "--no-new-keyring", &sandbox.id]);
    assert!(output.status.success());
    assert!(!text(&output.stdout).contains(&sandbox.id), "{}", text(&output.stdout));
}

#[test]
fn sockets_of_activation_and_preserved_descriptors_reach_the_program_and_nothing_else_does() {
    let mut sandbox =
        Sandbox::script("echo $LISTEN_FDS $LISTEN_PID $$; cat /proc/self/fd/4; ls /proc/self/fd");
    sandbox.process().env = vec!["PATH=/bin".into()];
    sandbox.save();
    let files: Vec<fs::File> = (0..3)
        .map(|number| {
            let path = sandbox.path(&format!("file{number}"));
            fs::write(&path, format!("content {number}\n")).unwrap();
            fs::File::open(path).unwrap()
        })
        .collect();
    let command = |preserve: &str| {
        // The shell gives it the descriptors 3, 4 and 5, and its own process id.
        let fds: Vec<i32> = files.iter().map(|file| file.as_raw_fd()).collect();
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS=1; exec {} --root {} run --preserve-fds {preserve} {} \
             3</proc/self/fd/{} 4</proc/self/fd/{} 5</proc/self/fd/{}",
            harness::RUNTIME,
            sandbox.root().display(),
            sandbox.id,
            fds[0],
            fds[1],
            fds[2],
        );
        let mut command = std::process::Command::new("/bin/bash");
        command.args(["-c", &script]).current_dir(sandbox.bundle()).stdin(Stdio::null());
        for fd in fds {
            rustix::io::fcntl_setfd(
                files.iter().find(|file| file.as_raw_fd() == fd).unwrap(),
                rustix::io::FdFlags::empty(),
            )
            .unwrap();
        }
        command.arg0("bash").output().unwrap()
    };
    let output = command("1");
    let out = text(&output.stdout);
    // Descriptor 3 of the listing is ls's own of the folder when the two given ones are 3 and 4.
    assert_eq!(out, "1 1 1\ncontent 1\n0\n1\n2\n3\n4\n5\n", "{out} {}", text(&output.stderr));
    let output = command("200");
    assert!(text(&output.stderr).contains("--preserve-fds 200"), "{}", text(&output.stderr));
}

#[test]
fn readiness_is_passed_on_to_the_caller_and_nothing_else_is() {
    let sandbox = Sandbox::script("exec sleep 1000");
    sandbox.save();
    let path = sandbox.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(harness::PATIENCE)).unwrap();
    let mut runtime = sandbox
        .command(&["run", "--detach", &sandbox.id])
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let inside = sandbox.root().join(&sandbox.id).join("notify/notify.sock");
    await_that("the container's socket", || inside.exists());
    sandbox.await_status("running");
    let env = sandbox.output(&["exec", &sandbox.id, "/bin/sh", "-c", "echo $NOTIFY_SOCKET; ls /run/notify"]);
    assert_eq!(text(&env.stdout), "/run/notify/notify.sock\nnotify.sock\n", "{}", text(&env.stderr));
    let container = UnixDatagram::unbound().unwrap();
    container.send_to(b"STATUS=busy\nEXTEND_TIMEOUT_USEC=1", &inside).unwrap();
    container.send_to(b"STATUS=up\nREADY=1", &inside).unwrap();
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).unwrap();
    let pid = sandbox.state()["pid"].to_string();
    assert_eq!(text(&buffer[..length]), format!("READY=1\nMAINPID={pid}\n"));
    assert!(runtime.wait().unwrap().success());
}

#[test]
fn what_becomes_of_the_bundle_after_create_does_not_matter() {
    let mut sandbox = Sandbox::script("exec sleep 1000");
    assert!(sandbox.create().status.success());
    sandbox.process().user.uid = 33;
    sandbox.save();
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let id = sandbox.output(&["exec", &sandbox.id, "/bin/id", "-u"]);
    assert_eq!(text(&id.stdout), "0\n");
    fs::remove_file(sandbox.bundle().join("config.json")).unwrap();
    assert!(sandbox.output(&["exec", &sandbox.id, "/bin/true"]).status.success());
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn an_id_that_means_no_change_to_the_kernel_is_refused() {
    for (uid, gid, others) in [(u32::MAX, 0, vec![]), (0, u32::MAX, vec![]), (0, 0, vec![5, u32::MAX])] {
        let mut sandbox = Sandbox::new(&["/bin/true"]);
        let user = &mut sandbox.process().user;
        (user.uid, user.gid, user.additional_gids) = (uid, gid, others);
        let output = sandbox.run();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains("config: process.user: 4294967295"),
            "{}",
            text(&output.stderr)
        );
    }
}
