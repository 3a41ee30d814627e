//! `--systemd-cgroup`, against a bus of the test's own with a stand-in for systemd on it. Needs root and dbus-daemon.

mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use gantry_linux::dbus::{Connection, Kind, Message, Value};
use harness::{Sandbox, await_that, text};

/// A private bus, a stand-in for systemd on it, and what this was asked.
struct Host {
    daemon: Child,
    address: String,
    slice: String,
    calls: Arc<Mutex<Vec<Message>>>,
}

impl Host {
    fn start(sandbox: &Sandbox, job_result: &'static str) -> Host {
        let address = format!("unix:path={}", sandbox.path("bus").display());
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--address", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("package dbus-daemon");
        // The socket has its name before it listens.
        await_that("the bus", || Connection::open(&address).is_ok());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let slice = format!("{}.slice", sandbox.id.replace('-', ""));
        let host = Host { daemon, address, slice, calls };
        let mut service = Connection::open(&host.address).unwrap();
        service.hello().unwrap();
        let name = vec![Value::str("org.freedesktop.systemd1"), Value::U32(0)];
        service.call(&Message::bus_call("RequestName").with(name)).unwrap();
        let (calls, slice) = (host.calls.clone(), host.slice.clone());
        std::thread::spawn(move || serve(&mut service, &calls, &slice, job_result));
        host
    }

    fn run(&self, sandbox: &Sandbox, args: &[&str]) -> Output {
        let mut all = vec!["--systemd-cgroup"];
        all.extend(args);
        let out = sandbox.path("out");
        let status = sandbox
            .command(&all)
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(sandbox.path("err")).unwrap())
            .status()
            .unwrap();
        Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(sandbox.path("err")).unwrap() }
    }

    fn asked(&self, member: &str) -> Vec<Message> {
        self.calls.lock().unwrap().iter().filter(|call| call.member == member).cloned().collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let slice = hierarchy.path().join(&self.slice);
            for scope in fs::read_dir(&slice).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(scope.path());
            }
            let _ = fs::remove_dir(slice);
        }
    }
}

/// Answers as systemd does, and moves the process of a new scope where systemd would: into the unified hierarchy.
fn serve(service: &mut Connection, calls: &Mutex<Vec<Message>>, slice: &str, result: &str) {
    let mut jobs = 0;
    while let Ok(call) = service.next_message() {
        if call.kind != Kind::Call {
            continue;
        }
        calls.lock().unwrap().push(call.clone());
        let unit = call.body.first().and_then(Value::as_str).unwrap_or_default().to_owned();
        if !matches!(call.member.as_str(), "StartTransientUnit" | "StopUnit") {
            service.send(&call.answer(Vec::new())).unwrap();
            continue;
        }
        if call.member == "StartTransientUnit"
            && let Some(Value::Array(_, pids)) = property(&call, "PIDs")
            && let [Value::U32(pid)] = pids[..]
        {
            let folder = Path::new("/sys/fs/cgroup/unified").join(slice).join(&unit);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        jobs += 1;
        let job = format!("/org/freedesktop/systemd1/job/{jobs}");
        service.send(&call.answer(vec![Value::Path(job.clone())])).unwrap();
        // One of another unit comes first and must not be taken for ours.
        for (job, result) in [("/org/freedesktop/systemd1/job/999", "failed"), (job.as_str(), result)] {
            let body =
                vec![Value::U32(jobs), Value::Path(job.into()), Value::str(unit.clone()), Value::str(result)];
            let signal = Message {
                kind: Kind::Signal,
                path: "/org/freedesktop/systemd1".into(),
                interface: "org.freedesktop.systemd1.Manager".into(),
                member: "JobRemoved".into(),
                body,
                ..Message::default()
            };
            service.send(&signal).unwrap();
        }
    }
}

/// A property of a call of StartTransientUnit or SetUnitProperties.
fn property(call: &Message, name: &str) -> Option<Value> {
    let Some(Value::Array(_, list)) = call.body.get(2) else { return None };
    list.iter().find_map(|pair| match pair {
        Value::Struct(pair) => match &pair[..] {
            [Value::Str(known), Value::Variant(value)] if known == name => Some(value.as_ref().clone()),
            _ => None,
        },
        _ => None,
    })
}

fn scope(host: &Host, controller: &str, unit: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(controller).join(&host.slice).join(unit)
}

#[test]
fn a_container_is_a_delegated_scope_that_systemd_makes_changes_and_stops() {
    let mut sandbox = Sandbox::script("exec sleep 1000");
    let host = Host::start(&sandbox, "done");
    let path = format!("{}:test:{}", host.slice, sandbox.id);
    sandbox.linux().cgroups_path = Some(path);
    sandbox.linux().resources.as_mut().unwrap().memory =
        Some(gantry_runtime::oci::Memory { limit: Some(64 << 20), ..Default::default() });
    sandbox.save();
    let output = host.run(&sandbox, &["create", &sandbox.id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let unit = format!("test-{}.scope", sandbox.id);
    let started = host.asked("StartTransientUnit");
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].body[..2], [Value::str(&unit), Value::str("replace")]);
    assert_eq!(property(&started[0], "Slice"), Some(Value::str(&host.slice)));
    assert_eq!(property(&started[0], "Delegate"), Some(Value::Bool(true)));
    assert_eq!(property(&started[0], "MemoryLimit"), Some(Value::U64(64 << 20)));
    assert_eq!(property(&started[0], "DevicePolicy"), Some(Value::str("strict")));
    let pid = sandbox.state()["pid"].to_string();
    for controller in ["memory", "pids", "unified"] {
        let procs = fs::read_to_string(scope(&host, controller, &unit).join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), pid, "{controller}");
    }
    assert!(host.run(&sandbox, &["start", &sandbox.id]).status.success());
    let updated = host.run(&sandbox, &["update", "--memory", "33554432", "--pids-limit", "9", &sandbox.id]);
    assert!(updated.status.success(), "{}", text(&updated.stderr));
    let changed = host.asked("SetUnitProperties");
    assert_eq!(property(&changed[0], "MemoryLimit"), Some(Value::U64(32 << 20)));
    assert_eq!(property(&changed[0], "TasksMax"), Some(Value::U64(9)));
    let limit = fs::read_to_string(scope(&host, "memory", &unit).join("memory.limit_in_bytes")).unwrap();
    assert_eq!(limit.trim(), "33554432");
    let deleted = host.run(&sandbox, &["delete", "--force", &sandbox.id]);
    assert!(deleted.status.success(), "{}", text(&deleted.stderr));
    assert_eq!(host.asked("StopUnit")[0].body[0], Value::str(&unit));
    assert!(!scope(&host, "memory", &unit).exists() && !scope(&host, "unified", &unit).exists());
}

#[test]
fn a_job_that_fails_is_told_and_leaves_nothing() {
    let mut sandbox = Sandbox::script("exec sleep 1000");
    let host = Host::start(&sandbox, "timeout");
    sandbox.linux().cgroups_path = Some(format!("{}:test:{}", host.slice, sandbox.id));
    sandbox.save();
    let output = host.run(&sandbox, &["create", &sandbox.id]);
    let error = text(&output.stderr);
    assert!(error.contains("StartTransientUnit of test-") && error.contains("ended as timeout"), "{error}");
    assert!(!sandbox.root().join(&sandbox.id).exists());
    assert!(!scope(&host, "memory", &format!("test-{}.scope", sandbox.id)).exists());
}

#[test]
fn without_systemd_and_with_paths_that_are_no_unit_it_is_refused() {
    let mut sandbox = Sandbox::new(&["/bin/true"]);
    sandbox.linux().cgroups_path = Some("system.slice:test:x".into());
    sandbox.save();
    let address = format!("unix:path={}", sandbox.path("nobody").display());
    let run = |sandbox: &Sandbox| {
        let output = sandbox
            .command(&["--systemd-cgroup", "run", &sandbox.id])
            .env("DBUS_SYSTEM_BUS_ADDRESS", &address)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(!sandbox.root().join(&sandbox.id).exists());
        text(&output.stderr)
    };
    if !Path::new("/run/systemd/private").exists() {
        let error = run(&sandbox);
        assert!(
            error.contains("reach systemd (--systemd-cgroup)") && error.contains("No such file"),
            "{error}"
        );
    }
    sandbox.linux().cgroups_path = Some("/docker/x".into());
    sandbox.save();
    assert!(run(&sandbox).contains("slice:prefix:name"));
}
