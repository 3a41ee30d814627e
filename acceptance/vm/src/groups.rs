//! Resources on version 2: each controller's files, what they enforce, update, events and statistics.

use crate::Case;
use crate::container::{Container, disk, until};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// The checks.
pub const CASES: &[Case] = &[
    ("limits_of_every_controller_are_written", every_controller),
    ("a_block_device_has_rates", block_rates),
    ("a_weight_of_disks_is_scaled_where_there_is_no_bfq", block_weight),
    ("rdma_of_a_device_that_is_not_there_is_refused", rdma),
    ("huge_pages_have_a_limit", huge_pages),
    ("unified_writes_files_by_name", unified),
    ("unified_refuses_a_file_that_is_not_there", unified_refuses),
    ("update_changes_what_it_names_only", update),
    ("memory_beyond_the_limit_kills_and_is_told", out_of_memory),
    ("processes_beyond_the_limit_are_refused", too_many_processes),
    ("cpu_time_is_limited", cpu_time),
    ("events_count_what_is_used", statistics),
];

fn every_controller() {
    let container = Container::sleeper().limited(json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
        "cpu": {"shares": 2048, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50},
    }));
    container.start();
    let file = |name: &str| container.group_file(name);
    assert_eq!(file("memory.max"), "67108864");
    assert_eq!(file("memory.low"), "33554432");
    // Version 1 counts memory and swap together, version 2 swap alone.
    assert_eq!(file("memory.swap.max"), "33554432");
    assert_eq!(file("cpu.max"), "50000 100000");
    // runc's formula since 1.4, which makes 1024 shares the default weight of 100: 10^((l² + 125·l) / 612 - 7 / 34), l = log2 of the shares.
    assert_eq!(file("cpu.weight"), "174");
    assert_eq!(file("cpuset.cpus"), "0");
    assert_eq!(file("cpuset.mems"), "0");
    assert_eq!(file("pids.max"), "50");
    assert_eq!(container.exec("nproc").out, "1");
}

fn block_rates() {
    let (major, minor) = disk();
    let rate = |value: u64| json!([{"major": major, "minor": minor, "rate": value}]);
    let container = Container::sleeper().limited(json!({"blockIO": {
        "throttleReadBpsDevice": rate(1_048_576),
        "throttleWriteBpsDevice": rate(2_097_152),
        "throttleReadIOPSDevice": rate(100),
        "throttleWriteIOPSDevice": rate(200),
    }}));
    container.start();
    assert_eq!(
        container.group_file("io.max"),
        format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200")
    );
}

fn block_weight() {
    let container = Container::sleeper().limited(json!({"blockIO": {"weight": 500}}));
    container.start();
    // From 10 to 1000 on to 1 to 10000, in runc's words: 1 + (weight - 10) * 9999 / 990.
    assert_eq!(container.group_file("io.weight"), "default 4950");
    container.ok(&["update", "--blkio-weight", "10", "ID"]);
    assert_eq!(container.group_file("io.weight"), "default 1");
}

fn rdma() {
    let container =
        Container::script("true").limited(json!({"rdma": {"mlx5_9": {"hcaHandles": 3, "hcaObjects": 7}}}));
    let answer = container.run();
    let told = ["rdma.max", "mlx5_9 hca_handle=3 hca_object=7", "No such device"]
        .iter()
        .all(|word| answer.err.contains(word));
    assert!(answer.code != 0 && told, "{}", answer.err);
    assert!(!container.group().exists());
}

fn huge_pages() {
    let container =
        Container::sleeper().limited(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}));
    container.start();
    assert_eq!(container.group_file("hugetlb.2MB.max"), "4194304");
}

fn unified() {
    let container = Container::sleeper().limited(json!({
        "unified": {"memory.high": "50331648", "pids.max": "33", "cpu.weight": "321", "memory.oom.group": "1"},
    }));
    container.start();
    assert_eq!(container.group_file("memory.high"), "50331648");
    assert_eq!(container.group_file("pids.max"), "33");
    assert_eq!(container.group_file("cpu.weight"), "321");
    assert_eq!(container.group_file("memory.oom.group"), "1");
}

fn unified_refuses() {
    for name in ["nosuch.file", "../cgroup.procs", "memory.nosuch"] {
        let container = Container::script("true").limited(json!({"unified": {name: "1"}}));
        let answer = container.run();
        assert!(
            answer.code != 0 && answer.err.contains("nosuch") | answer.err.contains(".."),
            "{name}: {}",
            answer.err
        );
        assert!(!container.group().exists(), "{name} leaves a group");
    }
}

fn update() {
    let container = Container::sleeper().limited(json!({
        "memory": {"limit": 67_108_864, "swap": 67_108_864},
        "pids": {"limit": 50},
    }));
    container.start();
    container.ok(&[
        "update",
        "--memory",
        "134217728",
        "--memory-swap",
        "268435456",
        "--cpu-quota",
        "20000",
        "--cpu-period",
        "50000",
        "ID",
    ]);
    assert_eq!(container.group_file("memory.max"), "134217728");
    assert_eq!(container.group_file("memory.swap.max"), "134217728");
    assert_eq!(container.group_file("cpu.max"), "20000 50000");
    assert_eq!(container.group_file("pids.max"), "50");
    // The device filter stays.
    let (major, minor) = disk();
    assert_eq!(container.exec(&format!("mknod /disk b {major} {minor}")).code, 0);
    assert_ne!(container.exec("head -c 1 /disk").code, 0);
    assert_eq!(container.exec("echo x > /dev/null").code, 0);
    std::fs::write(container.path("r.json"), r#"{"pids": {"limit": 60}, "cpu": {"cpus": "1"}}"#)
        .unwrap_or_else(|e| panic!("write r.json: {e}"));
    container.ok(&["update", "-r", "r.json", "ID"]);
    assert_eq!(container.group_file("pids.max"), "60");
    assert_eq!(container.group_file("cpuset.cpus"), "1");
}

fn out_of_memory() {
    let container = Container::script("read line < /go; tail /dev/zero; sleep 600");
    let container = container.limited(json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}}));
    crate::container::finish(Command::new("mkfifo").arg(container.path("rootfs/go")));
    container.start();
    let events = Command::new("/bin/gantry-runtime")
        .args(["--root", "/run/gty-vm", "events", "--interval", "1s", &container.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start events: {e}"));
    std::fs::write(container.path("rootfs/go"), "go\n").unwrap_or_else(|e| panic!("write go: {e}"));
    until("the kernel kills", || container.group_file("memory.events").contains("oom_kill 1"));
    // The first process went on: only the greedy one was killed.
    assert_eq!(container.state("status"), "running");
    // An interval, so that the event is out before the container ends.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    container.ok(&["kill", "ID", "KILL"]);
    let output = events.wait_with_output().unwrap_or_else(|e| panic!("wait for events: {e}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"oom\""), "{text}");
}

fn too_many_processes() {
    let container = Container::script("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all");
    let answer = container.limited(json!({"pids": {"limit": 6}})).run();
    assert!(!answer.out.contains("all") && answer.err.contains("fork"), "{} {}", answer.out, answer.err);
}

fn cpu_time() {
    let container = Container::script("while true; do true; done");
    let container = container.limited(json!({"cpu": {"quota": 10_000, "period": 100_000}}));
    container.start();
    let throttled = || {
        let text = container.group_file("cpu.stat");
        text.lines().find_map(|l| l.strip_prefix("nr_throttled ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    until("it is throttled", || throttled() >= 3);
}

fn statistics() {
    let container =
        Container::sleeper().limited(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 77}}));
    container.start();
    let text = container.ok(&["events", "--stats", "ID"]);
    let event: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let data = &event["data"];
    assert_eq!(event["type"], "stats");
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|used| used > 0), "{text}");
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|used| used > 0), "{text}");
    assert!(data["pids"]["current"].as_u64().is_some_and(|count| count >= 1), "{text}");
    assert_eq!(data["pids"]["limit"], 77);
}
