//! Hooks: in which namespaces they run, what they get, and what their failures do. Needs root.

mod harness;

use std::{
    fs,
    time::{Duration, Instant},
};

use gantry_runtime::oci::{Hook, Hooks};
use harness::{Sandbox, leftovers, text};

fn shell(script: &str) -> Hook {
    Hook { path: "/bin/sh".into(), args: vec!["sh".into(), "-c".into(), script.into()], ..Hook::default() }
}

#[test]
fn each_point_has_its_namespaces_and_its_state() {
    let mut sandbox = Sandbox::script("cat /inside");
    sandbox.spec.annotations.insert("org.example.key".into(), "value".into());
    let record = sandbox.path("record");
    // Mount and uts namespaces, whether the container's root is /, and the state.
    let look = |file: &str| {
        shell(&format!(
            "echo $0 $(readlink /proc/self/ns/uts) $(readlink /proc/self/ns/mnt) $(cat) >> {file}"
        ))
    };
    let with_name = |name: &str| {
        let mut hook = look(&record.display().to_string());
        hook.args.push(name.into());
        hook
    };
    let mut inside = look("/inside");
    inside.args.push("startContainer".into());
    std::os::unix::fs::symlink("busybox", sandbox.rootfs().join("bin/readlink")).unwrap();
    sandbox.spec.hooks = Some(Hooks {
        prestart: vec![with_name("prestart")],
        create_runtime: vec![with_name("createRuntime")],
        create_container: vec![with_name("createContainer")],
        start_container: vec![inside],
        poststart: vec![with_name("poststart")],
        poststop: vec![with_name("poststop")],
    });
    assert!(sandbox.create().status.success(), "{}", text(&fs::read(sandbox.path("err")).unwrap()));
    let pid = sandbox.state()["pid"].clone();
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    sandbox.await_status("stopped");
    assert!(sandbox.output(&["delete", &sandbox.id]).status.success());
    let seen =
        fs::read_to_string(&record).unwrap() + &fs::read_to_string(sandbox.rootfs().join("inside")).unwrap();
    let host_uts = fs::read_link("/proc/self/ns/uts").unwrap().display().to_string();
    let host_mnt = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    for (name, status, of_host, with_pid) in [
        ("prestart", "creating", true, true),
        ("createRuntime", "creating", true, true),
        ("createContainer", "creating", false, false),
        ("startContainer", "created", false, false),
        ("poststart", "running", true, true),
        ("poststop", "stopped", true, false),
    ] {
        let line = seen.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
        let mut words = line.splitn(4, ' ').skip(1);
        let namespaces = (words.next().unwrap() == host_uts, words.next().unwrap() == host_mnt);
        assert_eq!(namespaces, (of_host, of_host), "{line}");
        let state: serde_json::Value = serde_json::from_str(words.next().unwrap()).unwrap();
        assert_eq!(state["status"], status, "{line}");
        assert_eq!(state["id"], sandbox.id.as_str());
        assert_eq!(state["annotations"]["org.example.key"], "value");
        assert_eq!(state["bundle"], sandbox.bundle().to_str().unwrap());
        assert_eq!(state["pid"] == pid, with_pid, "{line}");
    }
}

#[test]
fn a_hook_gets_its_own_arguments_and_environment_only() {
    let mut sandbox = Sandbox::script("true");
    let record = sandbox.path("record");
    let mut hook = shell(&format!("echo $0 $1 $VALUE $HOME - $(env | wc -l) > {}", record.display()));
    hook.args.extend(["zero".into(), "one".into()]);
    hook.env = vec!["VALUE=a=b".into(), "PATH=/bin:/usr/bin".into()];
    sandbox.spec.hooks = Some(Hooks { create_runtime: vec![hook], ..Hooks::default() });
    sandbox.stdout();
    // PWD, and on some shells _ and SHLVL, are the shell's own.
    let seen = fs::read_to_string(&record).unwrap();
    assert!(seen.starts_with("zero one a=b - "), "{seen}");
    assert!(seen.trim_end().rsplit(' ').next().unwrap().parse::<u32>().unwrap() <= 5, "{seen}");
}

#[test]
fn a_failed_hook_of_the_creation_undoes_it_and_the_rest_of_the_life_follows() {
    for point in ["prestart", "createRuntime", "createContainer"] {
        let mut sandbox = Sandbox::script("echo program");
        let record = sandbox.path("record");
        let say = |word: &str| shell(&format!("echo {word} >> {}", record.display()));
        let bad = vec![shell("echo why >&2; exit 3"), say("after")];
        let mut hooks =
            Hooks { poststop: vec![say("poststop"), shell("exit 1"), say("last")], ..Hooks::default() };
        match point {
            "prestart" => hooks.prestart = bad,
            "createRuntime" => hooks.create_runtime = bad,
            _ => hooks.create_container = bad,
        }
        sandbox.spec.hooks = Some(hooks);
        let output = sandbox.run();
        let error = text(&output.stderr);
        assert!(!output.status.success() && text(&output.stdout).is_empty());
        assert!(error.contains(&format!("{point} hook /bin/sh: exit status: 3: why")), "{error}");
        assert!(error.contains("poststop hook /bin/sh: exit status: 1"), "{error}");
        assert_eq!(fs::read_to_string(&record).unwrap(), "poststop\nlast\n", "{point}");
        assert!(leftovers(&sandbox).is_empty());
    }
}

#[test]
fn a_failed_start_hook_stops_the_container_and_is_told_by_start() {
    let mut sandbox = Sandbox::script("echo program");
    sandbox.spec.hooks =
        Some(Hooks { start_container: vec![shell("echo why >&2; exit 4")], ..Hooks::default() });
    assert!(sandbox.create().status.success());
    let start = sandbox.output(&["start", &sandbox.id]);
    let error = text(&start.stderr);
    assert!(!start.status.success(), "{error}");
    assert!(error.contains("startContainer hook /bin/sh: exit status: 4: why"), "{error}");
    sandbox.await_status("stopped");
    assert_eq!(fs::read_to_string(sandbox.path("out")).unwrap(), "");
}

#[test]
fn a_failed_poststop_hook_is_told_and_stops_nothing() {
    let mut sandbox = Sandbox::script("echo program; exit 5");
    let record = sandbox.path("record");
    let say = |word: &str| shell(&format!("echo {word} >> {}", record.display()));
    sandbox.spec.hooks = Some(Hooks { poststop: vec![shell("exit 2"), say("poststop")], ..Hooks::default() });
    let output = sandbox.run();
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(5), "program\n"), "{error}");
    assert!(error.contains("poststop hook /bin/sh: exit status: 2"), "{error}");
    assert_eq!(fs::read_to_string(&record).unwrap(), "poststop\n");
}

#[test]
fn a_failed_poststart_hook_is_an_error_of_start_and_ends_the_program() {
    let mut sandbox = Sandbox::script("sleep 600");
    let record = sandbox.path("record");
    let say = |word: &str| shell(&format!("echo {word} >> {}", record.display()));
    sandbox.spec.hooks = Some(Hooks {
        poststart: vec![shell("exit 1"), say("poststart")],
        poststop: vec![say("poststop")],
        ..Hooks::default()
    });
    assert!(sandbox.create().status.success());
    let start = sandbox.output(&["start", &sandbox.id]);
    let error = text(&start.stderr);
    assert!(!start.status.success(), "{error}");
    assert!(error.contains("poststart hook /bin/sh: exit status: 1"), "{error}");
    sandbox.await_status("stopped");
    assert!(sandbox.output(&["delete", &sandbox.id]).status.success());
    assert_eq!(fs::read_to_string(&record).unwrap(), "poststop\n");

    let ran = sandbox.run();
    assert!(!ran.status.success() && text(&ran.stderr).contains("poststart hook"), "{}", text(&ran.stderr));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    let mut sandbox = Sandbox::script("true");
    let mut slow = shell("echo words >&2; exec sleep 1000");
    slow.timeout = Some(1);
    sandbox.spec.hooks = Some(Hooks { create_container: vec![slow], ..Hooks::default() });
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("createContainer hook /bin/sh: did not end within 1 s: words"), "{error}");
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_hook_need_not_read_and_may_write_much_and_may_leave_processes_behind() {
    let mut sandbox = Sandbox::script("true");
    // More than a pipe takes.
    sandbox.spec.annotations.insert("long".into(), "x".repeat(200_000));
    let pid_file = sandbox.path("pid");
    let hooks = vec![
        shell("exit 0"),
        shell("dd if=/dev/zero bs=1024 count=300 >&2"),
        // It keeps the hook's standard error open for long.
        shell(&format!("sleep 1000 & echo $! > {}", pid_file.display())),
    ];
    sandbox.spec.hooks = Some(Hooks {
        create_runtime: hooks.clone(),
        create_container: hooks[..2].to_vec(),
        ..Hooks::default()
    });
    let begin = Instant::now();
    let output = sandbox.run();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(begin.elapsed() < Duration::from_secs(500));
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn hooks_that_could_never_run_are_refused() {
    let mut sandbox = Sandbox::script("true");
    sandbox.spec.hooks =
        Some(Hooks { poststop: vec![Hook { path: "sh".into(), ..Hook::default() }], ..Hooks::default() });
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("hooks.poststop: \"sh\" is not an absolute path"), "{error}");
    let hook = Hook { timeout: Some(0), ..shell("true") };
    sandbox.spec.hooks = Some(Hooks { prestart: vec![hook], ..Hooks::default() });
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("hooks.prestart: /bin/sh: the timeout must be greater than zero"), "{error}");
    sandbox.spec.hooks =
        Some(Hooks { prestart: vec![Hook { path: "/nope".into(), ..Hook::default() }], ..Hooks::default() });
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("prestart hook /nope: No such file"), "{error}");
    assert!(leftovers(&sandbox).is_empty());
}
