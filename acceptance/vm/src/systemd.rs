//! `--systemd-cgroup` where systemd is the first process: scopes, their properties, and what is left of them.

use crate::Case;
use crate::container::{Container, finish, until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The checks.
pub const CASES: &[Case] = &[
    ("systemd_is_the_first_process_of_this_guest", systemd_is_first),
    ("a_container_is_a_scope_in_its_slice", is_a_scope),
    ("limits_are_properties_of_the_unit_and_in_force", limits),
    ("a_reload_of_systemd_changes_nothing", reload),
    ("update_changes_the_unit_and_the_group", update),
    ("without_a_path_the_scope_is_named_after_the_container", default_name),
    ("device_rules_hold_before_and_after_a_reload", devices),
    ("exec_ps_pause_resume_and_kill_work_in_a_scope", life),
    ("the_scope_goes_with_the_container", goes_with_the_container),
    ("a_container_that_fails_leaves_no_failed_unit", no_failed_unit),
    ("stopping_the_scope_ends_the_container", stopped_by_systemd),
    ("a_name_that_another_scope_has_is_refused", name_taken),
    ("a_container_may_make_groups_below_its_scope", delegated),
    ("a_container_is_restored_into_a_scope", restored),
    ("a_users_own_systemd_makes_scopes_too", of_a_user),
];

fn systemd_is_first() {
    let name = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    assert_eq!(name.trim(), "systemd");
}

/// One whose group systemd makes.
fn scoped(container: Container) -> Container {
    let mut container = container;
    container.options = vec!["--systemd-cgroup"];
    container.config["linux"]["cgroupsPath"] = format!("gty-vm.slice:gty:{}", container.id).into();
    container
}

fn unit(container: &Container) -> String {
    format!("gty-{}.scope", container.id)
}

/// Where systemd puts it: a slice `a-b` is below the slice `a`.
fn folder(container: &Container) -> String {
    format!("/sys/fs/cgroup/gty.slice/gty-vm.slice/{}", unit(container))
}

fn file(container: &Container, name: &str) -> String {
    let path = Path::new(&folder(container)).join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    text.trim_end().to_owned()
}

fn systemctl(words: &[&str]) -> String {
    let answer = finish(Command::new("systemctl").args(words));
    assert_eq!(answer.code, 0, "systemctl {words:?}: {}", answer.err);
    answer.out
}

/// A property of a unit, as systemd says it.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

fn start(container: &Container) {
    container.save();
    // What it leaves running keeps its streams, and is not waited for.
    let err = container.path("err");
    let mut command = container.command(&["run", "--detach", &container.id]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(&err).unwrap_or_else(|e| panic!("create err: {e}")));
    let status = command.status().unwrap_or_else(|e| panic!("start: {e}"));
    assert!(status.success(), "run --detach: {}", fs::read_to_string(&err).unwrap_or_default());
}

fn is_a_scope() {
    let container = scoped(Container::sleeper());
    start(&container);
    let unit = unit(&container);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Slice"), "gty-vm.slice");
    assert_eq!(property(&unit, "Delegate"), "yes");
    assert_eq!(property(&unit, "Transient"), "yes");
    assert_eq!(property(&unit, "ControlGroup"), folder(&container).trim_start_matches("/sys/fs/cgroup"));
    assert!(property(&unit, "Description").contains(&container.id));
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        assert_eq!(property(&unit, accounting), "yes", "{accounting}");
    }
    let first = container.state("pid").to_string();
    assert!(file(&container, "cgroup.procs").lines().any(|pid| pid == first));
    let table = fs::read_to_string(format!("/proc/{}/cgroup", container.state("pid"))).unwrap_or_default();
    assert_eq!(table.trim(), format!("0::{}", folder(&container).trim_start_matches("/sys/fs/cgroup")));
}

fn limited() -> Container {
    scoped(Container::sleeper().limited(json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
        "cpu": {"shares": 2048, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50},
    })))
}

/// What the unit and the group say of the limits of [`limited`].
fn assert_limited(container: &Container) {
    let unit = unit(container);
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemorySwapMax", "33554432"),
        ("CPUWeight", "174"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUQuotaPeriodUSec", "100ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "50"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    for (name, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.swap.max", "33554432"),
        ("cpu.weight", "174"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "50"),
    ] {
        assert_eq!(file(container, name), value, "{name}");
    }
}

fn limits() {
    let container = limited();
    start(&container);
    assert_limited(&container);
}

fn reload() {
    let container = limited();
    start(&container);
    systemctl(&["daemon-reload"]);
    assert_limited(&container);
    assert_eq!(container.state("status"), "running");
}

fn update() {
    let container = limited();
    start(&container);
    let words = "--memory 134217728 --memory-swap 201326592 --pids-limit 60 --cpu-quota 20000 --cpu-period 50000 \
                 --cpuset-cpus 0-1 --cpu-share 1024";
    let words: Vec<&str> = ["update"].into_iter().chain(words.split(' ')).chain(["ID"]).collect();
    container.ok(&words);
    let check = || {
        let unit = unit(&container);
        for (name, value) in [
            ("MemoryMax", "134217728"),
            ("MemoryLow", "33554432"),
            ("MemorySwapMax", "67108864"),
            ("CPUWeight", "100"),
            ("CPUQuotaPerSecUSec", "400ms"),
            ("CPUQuotaPeriodUSec", "50ms"),
            ("AllowedCPUs", "0-1"),
            ("TasksMax", "60"),
        ] {
            assert_eq!(property(&unit, name), value, "{name}");
        }
        for (name, value) in [
            ("memory.max", "134217728"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "67108864"),
            ("cpu.weight", "100"),
            ("cpu.max", "20000 50000"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "60"),
        ] {
            assert_eq!(file(&container, name), value, "{name}");
        }
    };
    check();
    systemctl(&["daemon-reload"]);
    check();
    // No limit is infinity in systemd's words.
    container.ok(&["update", "--memory", "-1", "--memory-swap", "-1", "--pids-limit", "-1", "ID"]);
    assert_eq!(property(&unit(&container), "MemoryMax"), "infinity");
    assert_eq!(property(&unit(&container), "TasksMax"), "infinity");
    assert_eq!((file(&container, "memory.max"), file(&container, "pids.max")), ("max".into(), "max".into()));
}

fn default_name() {
    let mut container = scoped(Container::sleeper());
    container.config["linux"]["cgroupsPath"] = "".into();
    start(&container);
    let unit = format!("gantry-{}.scope", container.id);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Slice"), "system.slice");
}

fn devices() {
    let container = scoped(Container::sleeper());
    start(&container);
    let (major, minor) = crate::container::disk();
    assert_eq!(container.exec(&format!("mknod /disk b {major} {minor}; mknod /zero c 1 5")).code, 0);
    let check = || {
        assert_ne!(container.exec("head -c 1 /disk").code, 0, "the host's disk can be read");
        assert_eq!(container.exec("head -c 1 /zero > /dev/null").code, 0);
    };
    check();
    systemctl(&["daemon-reload"]);
    check();
    container.ok(&["update", "--pids-limit", "70", "ID"]);
    check();
    assert_eq!(property(&unit(&container), "DevicePolicy"), "strict");
}

fn life() {
    let container = scoped(Container::sleeper());
    start(&container);
    assert_eq!(container.exec("cat /proc/self/cgroup").out, "0::/");
    let pid = container.state("pid").to_string();
    assert!(container.ok(&["ps", "ID"]).lines().any(|line| line.contains(&pid)));
    container.ok(&["pause", "ID"]);
    assert_eq!(container.state("status"), "paused");
    assert_eq!(file(&container, "cgroup.freeze"), "1");
    container.ok(&["resume", "ID"]);
    assert_eq!(container.state("status"), "running");
    let events = container.ok(&["events", "--stats", "ID"]);
    assert!(events.contains("\"stats\""), "{events}");
    container.ok(&["exec", "--detach", "ID", "/bin/sleep", "600"]);
    container.ok(&["kill", "--all", "ID", "KILL"]);
    until("it ends", || container.state("status") == "stopped");
}

fn is_gone(unit: &str) -> bool {
    property(unit, "LoadState") == "not-found"
}

fn goes_with_the_container() {
    let container = scoped(Container::sleeper());
    start(&container);
    container.ok(&["delete", "--force", "ID"]);
    assert!(is_gone(&unit(&container)), "{}", property(&unit(&container), "ActiveState"));
    assert!(!Path::new(&folder(&container)).exists());
    // The same name again.
    start(&container);
    assert_eq!(property(&unit(&container), "ActiveState"), "active");
}

fn no_failed_unit() {
    let container = scoped(Container::script("exit 3"));
    assert_eq!(container.run().code, 3);
    assert!(is_gone(&unit(&container)));
    let container = scoped(Container::script("sh -c 'kill -KILL $$'; exit $?"));
    assert_eq!(container.run().code, 137);
    assert!(is_gone(&unit(&container)));
    let mut container = scoped(Container::script("true"));
    container.config["process"]["args"] = json!(["/nonexistent"]);
    assert_ne!(container.run().code, 0);
    assert!(is_gone(&unit(&container)));
    assert_eq!(systemctl(&["list-units", "--failed", "--no-legend", "--plain", "gty-*"]), "");
}

fn stopped_by_systemd() {
    let container = scoped(Container::sleeper());
    start(&container);
    systemctl(&["stop", &unit(&container)]);
    until("it ends", || container.state("status") == "stopped");
    container.ok(&["delete", "ID"]);
}

fn name_taken() {
    let first = scoped(Container::sleeper());
    start(&first);
    let mut second = scoped(Container::sleeper());
    second.config["linux"]["cgroupsPath"] = first.config["linux"]["cgroupsPath"].clone();
    let answer = second.run();
    assert!(answer.code != 0 && answer.err.contains(&unit(&first)), "{}", answer.err);
    assert_eq!(first.state("status"), "running");
    assert_eq!(property(&unit(&first), "ActiveState"), "active");
}

fn delegated() {
    let mut container = scoped(Container::sleeper());
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}),
        );
    }
    start(&container);
    let script =
        "mkdir /sys/fs/cgroup/inner && { sleep 600 & } && echo $! > /sys/fs/cgroup/inner/cgroup.procs";
    let answer = container.exec(script);
    assert_eq!(answer.code, 0, "{}", answer.err);
    systemctl(&["daemon-reload"]);
    assert!(Path::new(&folder(&container)).join("inner").exists());
    container.ok(&["delete", "--force", "ID"]);
    assert!(is_gone(&unit(&container)));
}

fn restored() {
    let counter = "i=0; while true; do i=$((i + 1)); echo $i > /tmp/count; sleep 0.1; done";
    let container = scoped(Container::script(counter).limited(json!({"pids": {"limit": 44}})));
    let path = container.path("rootfs/tmp/count");
    let count = || fs::read_to_string(&path).unwrap_or_default().trim().parse::<u32>().unwrap_or(0);
    container.save();
    // criu takes no file of the host as a stream.
    let mut command = container.command(&["run", "--detach", &container.id]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().unwrap_or_else(|e| panic!("start: {e}"));
    assert!(status.success(), "run --detach: {status}");
    until("it counts", || count() >= 3);
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    assert!(is_gone(&unit(&container)));
    let last = count().max(3);
    container.ok(&["restore", "--detach", "--image-path", "images", "ID"]);
    until("it counts on", || count() > last + 3);
    let unit = unit(&container);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "TasksMax"), "44");
    assert_eq!(file(&container, "pids.max"), "44");
    let first = container.state("pid").to_string();
    assert!(file(&container, "cgroup.procs").lines().any(|pid| pid == first));
    container.ok(&["delete", "--force", "ID"]);
    assert!(is_gone(&unit));
}

/// The folder that a login would have made for the user `guest`.
const RUNTIME_FOLDER: &str = "/run/user/1000";

/// A command as the user `guest`.
fn as_user(program: &str) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", program]);
    command.env("XDG_RUNTIME_DIR", RUNTIME_FOLDER).current_dir("/tmp");
    command
}

/// What a login does: a systemd of the user's own, with a bus.
fn log_in() {
    fs::create_dir_all(RUNTIME_FOLDER).unwrap_or_else(|e| panic!("make {RUNTIME_FOLDER}: {e}"));
    std::os::unix::fs::chown(RUNTIME_FOLDER, Some(1000), Some(1000)).unwrap_or_else(|e| panic!("chown: {e}"));
    let variable = format!("Environment=XDG_RUNTIME_DIR={RUNTIME_FOLDER}");
    let words = [
        "--unit",
        "gty-user",
        "-p",
        "User=guest",
        "-p",
        "Delegate=yes",
        "-p",
        "Type=notify",
        "-p",
        &variable,
    ];
    let answer = finish(Command::new("systemd-run").args(words).args(["/lib/systemd/systemd", "--user"]));
    assert_eq!(answer.code, 0, "{}", answer.err);
    until("the user's bus", || Path::new(RUNTIME_FOLDER).join("bus").exists());
}

fn of_a_user() {
    log_in();
    let mut container = Container::sleeper();
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    container.config["linux"]["uidMappings"] = map(1000);
    container.config["linux"]["gidMappings"] = map(1000);
    if let Some(namespaces) = container.config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    container.config["linux"]["cgroupsPath"] = format!("user.slice:gty:{}", container.id).into();
    container.config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 44}});
    // A devpts for a group that the user has, and no network of its own file system.
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        for mount in mounts {
            if mount["destination"] == "/dev/pts" {
                mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
            }
        }
    }
    container.save();
    let bundle = container.path(".");
    let bundle = bundle.to_string_lossy();
    let given = finish(Command::new("chown").args(["-R", "1000:1000", &bundle]));
    assert_eq!(given.code, 0, "{}", given.err);
    let runtime = |words: &[&str]| {
        let mut command = as_user("/bin/gantry-runtime");
        command.args(["--root", "/run/user/1000/gty", "--systemd-cgroup"]).args(words);
        let answer = finish(&mut command);
        assert_eq!(answer.code, 0, "{words:?}: {} {}", answer.out, answer.err);
        answer.out
    };
    let features: Value =
        serde_json::from_str(&runtime(&["features"])).unwrap_or_else(|e| panic!("features: {e}"));
    assert_eq!(features["linux"]["cgroup"]["systemdUser"], true, "who asks for it is told what follows");
    let id = container.id.as_str();
    runtime(&["run", "--detach", "--bundle", &bundle, id]);
    let unit = unit(&container);
    let show = |name: &str| {
        let answer =
            finish(as_user("systemctl").args(["--user", "show", "--value", "--property", name, &unit]));
        assert_eq!(answer.code, 0, "{}", answer.err);
        answer.out
    };
    assert_eq!(show("ActiveState"), "active");
    assert_eq!((show("MemoryMax"), show("TasksMax")), ("67108864".into(), "44".into()));
    let group = Path::new("/sys/fs/cgroup/system.slice/gty-user.service/user.slice").join(&unit);
    let file = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!((file("memory.max").trim(), file("pids.max").trim()), ("67108864", "44"));
    let first = file("cgroup.procs");
    assert!(first.lines().count() >= 1);
    assert_eq!(runtime(&["exec", id, "/bin/cat", "/proc/self/cgroup"]), "0::/");
    runtime(&["update", "--pids-limit", "55", id]);
    assert_eq!((show("TasksMax").as_str(), file("pids.max").trim()), ("55", "55"));
    runtime(&["pause", id]);
    assert_eq!(file("cgroup.freeze").trim(), "1");
    runtime(&["resume", id]);
    assert!(runtime(&["ps", id]).lines().count() >= 2);
    runtime(&["delete", "--force", id]);
    assert_eq!(show("LoadState"), "not-found");
    assert!(!group.exists());
}
