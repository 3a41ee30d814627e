//! Limits: each field of `linux.resources` arrives in the kernel's files, or is refused or told. Needs root.

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use gantry_runtime::oci::Resources;
use harness::{Sandbox, await_that, leftovers, text};

/// A container that sleeps, with these resources beside the device rules of every container.
fn limited(resources: &str) -> Sandbox {
    let mut sandbox = Sandbox::script("exec sleep 1000");
    let devices = sandbox.linux().resources.take().unwrap().devices;
    let mut resources: Resources = serde_json::from_str(resources).unwrap();
    if resources.devices.is_empty() {
        resources.devices = devices;
    }
    sandbox.linux().resources = Some(resources);
    sandbox
}

fn running(resources: &str) -> Sandbox {
    let sandbox = limited(resources);
    let output = sandbox.create();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = sandbox.output(&["start", &sandbox.id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    sandbox
}

/// What the container's file of a v1 controller says; none where the host has no such hierarchy.
fn file(sandbox: &Sandbox, controller: &str, name: &str) -> String {
    let path = folder(sandbox, controller).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn folder(sandbox: &Sandbox, controller: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(controller).join("gantry-test").join(&sandbox.id)
}

#[test]
fn memory_cpu_and_pids_arrive_in_the_files_of_v1() {
    let sandbox = running(
        r#"{"memory":{"limit":67108864,"reservation":33554432,"swap":134217728,"swappiness":10,"kernel":1,
              "kernelTCP":8388608,"disableOOMKiller":true,"useHierarchy":true},
            "cpu":{"shares":512,"quota":50000,"period":200000,"burst":1000,"cpus":"0","mems":"0"},
            "pids":{"limit":77}}"#,
    );
    let memory = |name: &str| file(&sandbox, "memory", name);
    assert_eq!(memory("memory.limit_in_bytes"), "67108864");
    assert_eq!(memory("memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(memory("memory.memsw.limit_in_bytes"), "134217728");
    assert_eq!(memory("memory.swappiness"), "10");
    assert_eq!(memory("memory.kmem.tcp.limit_in_bytes"), "8388608");
    assert!(memory("memory.oom_control").starts_with("oom_kill_disable 1"));
    let cpu = |name: &str| file(&sandbox, "cpu", name);
    assert_eq!(cpu("cpu.shares"), "512");
    assert_eq!((cpu("cpu.cfs_quota_us"), cpu("cpu.cfs_period_us")), ("50000".into(), "200000".into()));
    assert_eq!(cpu("cpu.cfs_burst_us"), "1000");
    assert_eq!(file(&sandbox, "cpuset", "cpuset.cpus"), "0");
    assert_eq!(file(&sandbox, "pids", "pids.max"), "77");
}

#[test]
fn an_idle_group_and_throttled_devices_arrive_too() {
    // The root file system's disk, or any: a device that exists is needed.
    let device = fs::read_dir("/sys/block").unwrap().flatten().find_map(|entry| {
        fs::read_to_string(entry.path().join("dev")).ok().map(|text| text.trim().to_owned())
    });
    let Some((major, minor)) = device.as_deref().and_then(|text| text.split_once(':')) else {
        panic!("this host has no block device")
    };
    let rate = format!(r#"[{{"major":{major},"minor":{minor},"rate":1048576}}]"#);
    let sandbox = running(&format!(
        r#"{{"cpu":{{"idle":1,"shares":512}},"blockIO":{{"throttleReadBpsDevice":{rate},
            "throttleWriteBpsDevice":{rate},"throttleReadIOPSDevice":{rate},"throttleWriteIOPSDevice":{rate}}}}}"#
    ));
    assert_eq!(file(&sandbox, "cpu", "cpu.idle"), "1");
    for name in ["read_bps", "write_bps", "read_iops", "write_iops"] {
        let name = format!("blkio.throttle.{name}_device");
        assert_eq!(file(&sandbox, "blkio", &name), format!("{major}:{minor} 1048576"), "{name}");
    }
}

#[test]
fn controllers_that_only_the_unified_hierarchy_has_are_used_there() {
    let resources =
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"unified":{"hugetlb.1GB.max":"0"}}"#;
    let offered = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if !offered.contains("hugetlb") {
        let error = text(&limited(resources).run().stderr);
        assert!(error.contains("hugetlb"), "{error}");
        return;
    }
    let sandbox = running(resources);
    let unified = |name: &str| file(&sandbox, "unified", name);
    assert_eq!(unified("hugetlb.2MB.max"), "4194304");
    assert_eq!(unified("hugetlb.2MB.rsvd.max"), "4194304");
    assert_eq!(unified("hugetlb.1GB.max"), "0");
    let stats = sandbox.output(&["events", "--stats", &sandbox.id]);
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["data"]["hugetlb"]["2MB"]["failcnt"], 0, "{stats}");
}

#[test]
fn what_cannot_be_limited_here_is_refused_with_a_reason_and_leaves_nothing() {
    for (resources, words) in [
        (r#"{"unified":{"memory.max":"1"}}"#, "memory.max needs the controller memory on cgroup v2"),
        (r#"{"unified":{"../../x":"1"}}"#, "is no name of a cgroup file"),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "is no page size"),
        (r#"{"rdma":{"mlx5_0":{"hcaHandles":3}}}"#, "rdma"),
        (r#"{"memory":{"limit":4194304,"swap":1048576}}"#, "less than the memory limit"),
        (r#"{"cpu":{"cpus":"900"}}"#, "cpuset.cpus"),
        (r#"{"devices":[{"allow":true,"type":"x"}]}"#, "unknown device type"),
    ] {
        let sandbox = limited(resources);
        let output = sandbox.run();
        assert!(!output.status.success(), "{resources}");
        assert!(text(&output.stderr).contains(words), "{resources}: {}", text(&output.stderr));
        assert!(leftovers(&sandbox).is_empty(), "{resources}");
    }
}

#[test]
fn a_limit_that_the_kernel_has_no_file_for_is_told() {
    let sandbox = limited(r#"{"blockIO":{"leafWeight":300}}"#);
    let output = sandbox.create();
    assert!(output.status.success());
    let error = text(&output.stderr);
    assert_eq!(
        error.contains("blkio.leaf_weight"),
        !Path::new("/sys/fs/cgroup/blkio/blkio.leaf_weight").exists(),
        "{error}"
    );
}

#[test]
fn update_changes_what_is_asked_and_keeps_the_rest() {
    let sandbox = running(r#"{"memory":{"limit":67108864},"pids":{"limit":50}}"#);
    let update = |args: &[&str]| {
        let mut all = vec!["update"];
        all.extend(args);
        all.push(&sandbox.id);
        let output = sandbox.output(&all);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    };
    update(&["--memory", "64m", "--memory-reservation", "16MiB", "--memory-swap", "96m"]);
    assert_eq!(file(&sandbox, "memory", "memory.memsw.limit_in_bytes"), (96 << 20).to_string());
    update(&["--cpu-quota", "30000", "--cpu-period", "60000", "--cpu-share", "300", "--cpuset-cpus", "0"]);
    assert_eq!(file(&sandbox, "cpu", "cpu.cfs_quota_us"), "30000");
    assert_eq!(file(&sandbox, "cpu", "cpu.shares"), "300");
    update(&["--pids-limit", "0"]);
    assert_eq!(file(&sandbox, "pids", "pids.max"), "50");
    update(&["--pids-limit", "-1"]);
    assert_eq!(file(&sandbox, "pids", "pids.max"), "max");
    update(&["--memory", "-1"]);
    assert!(file(&sandbox, "memory", "memory.limit_in_bytes").len() > 15);
    let document = sandbox.path("resources.json");
    fs::write(&document, r#"{"memory":{"limit":33554432},"cpu":{"quota":-1}}"#).unwrap();
    update(&["--memory", "1m", "--resources", document.to_str().unwrap()]);
    assert_eq!(file(&sandbox, "memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(file(&sandbox, "cpu", "cpu.cfs_quota_us"), "-1");
    fs::write(&document, r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#).unwrap();
    let refused = sandbox.output(&["update", "-r", document.to_str().unwrap(), &sandbox.id]);
    assert!(
        text(&refused.stderr).contains("unable to set memory limit to 4096"),
        "{}",
        text(&refused.stderr)
    );
    let unknown = sandbox.output(&["update", "--nope", "1", &sandbox.id]);
    assert!(text(&unknown.stderr).contains("--nope"), "{}", text(&unknown.stderr));
}

#[test]
fn a_rule_for_a_part_of_all_devices_allows_no_more_than_that() {
    let mut sandbox =
        limited(r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","access":"r"}]}"#);
    sandbox.process().args =
        ["/bin/sh", "-c", "cat /proc/self/cgroup > /dev/null; cat /sys/fs/cgroup/devices/devices.list"]
            .map(str::to_owned)
            .to_vec();
    let list = sandbox.stdout();
    assert!(list.contains("c *:* rm\n") && list.contains("b *:* rm\n") && !list.contains("a *:*"), "{list}");
}

#[test]
fn groups_that_the_container_left_below_its_own_go_with_it() {
    let sandbox = running("{}");
    for controller in ["pids", "memory", "unified"] {
        let nested = folder(&sandbox, controller);
        if nested.exists() {
            fs::create_dir_all(nested.join("a/b")).unwrap();
        }
    }
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn memory_kills_are_told_when_they_happen() {
    let sandbox = running(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
    let mut events = sandbox
        .command(&["events", "--interval", "1h", &sandbox.id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let control = format!("/proc/{}/fd", events.id());
    // It listens when it holds the eventfd.
    await_that("the listener", || {
        fs::read_dir(&control).into_iter().flatten().flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().contains("eventfd"))
        })
    });
    let killed = sandbox.output(&[
        "exec",
        &sandbox.id,
        "/bin/dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=64M",
        "count=1",
    ]);
    assert_eq!(killed.status.code(), Some(137));
    let mut line = String::new();
    let mut lines = BufReader::new(events.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, format!("{{\"id\":\"{}\",\"type\":\"oom\"}}\n", sandbox.id));
    assert!(sandbox.output(&["kill", &sandbox.id, "KILL"]).status.success());
    assert!(events.wait().unwrap().success());
}

#[test]
fn cache_and_bandwidth_are_refused_where_there_is_no_resctrl() {
    let mut sandbox = limited("{}");
    sandbox.linux().intel_rdt =
        Some(gantry_runtime::oci::IntelRdt { l3_cache_schema: Some("L3:0=f".into()), ..Default::default() });
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        return;
    }
    let output = sandbox.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("needs resctrl"), "{}", text(&output.stderr));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_parent_that_another_runtime_is_just_making_gets_its_cpus_too() {
    // As it is between mkdir(2) and the first write: a v1 cpuset without CPUs takes no process, nor do those below it.
    let mut sandbox = Sandbox::script("true");
    let name = format!("{}-parent", sandbox.id);
    let parent = Path::new("/sys/fs/cgroup/cpuset").join(&name);
    if !parent.parent().unwrap().join("cpuset.cpus").exists() {
        return; // v2 only: there a new group has its parent's CPUs.
    }
    fs::create_dir(&parent).unwrap();
    sandbox.linux().cgroups_path = Some(format!("/{name}/{}", sandbox.id));
    let output = sandbox.run();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(&name));
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn groups_that_a_container_made_deeper_than_a_path_is_long_hide_nothing_and_go_with_it() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.save();
    assert!(sandbox.create().status.success());
    // The hierarchy by which processes are listed.
    let v1 = std::path::Path::new("/sys/fs/cgroup/pids");
    let mount = if v1.exists() { v1 } else { std::path::Path::new("/sys/fs/cgroup") };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut deepest =
        rustix::fs::open(mount.join("gantry-test").join(&sandbox.id), flags, Mode::empty()).unwrap();
    // Twice two bytes more than PATH_MAX (limits.h).
    for _ in 0..2100 {
        mkdirat(&deepest, "a", Mode::RWXU).unwrap();
        deepest = openat(&deepest, "a", flags, Mode::empty()).unwrap();
    }
    let mut hidden = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let file = openat(&deepest, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    rustix::io::write(&file, hidden.id().to_string().as_bytes()).unwrap();
    let listed = sandbox.output(&["ps", "--format", "json", &sandbox.id]);
    assert!(text(&listed.stdout).contains(&hidden.id().to_string()), "{}", text(&listed.stdout));
    let reaper = std::thread::spawn(move || hidden.wait());
    let deleted = sandbox.output(&["delete", "--force", &sandbox.id]);
    assert!(deleted.status.success(), "{}", text(&deleted.stderr));
    assert!(!reaper.join().unwrap().unwrap().success(), "it was killed");
    assert!(harness::leftovers(&sandbox).is_empty());
}

#[test]
fn a_group_with_containers_below_it_is_not_taken_for_a_new_one() {
    let parent = Sandbox::new(&["/bin/true"]);
    let mut below = Sandbox::new(&["/bin/sleep", "1000"]);
    below.linux().cgroups_path = Some(format!("/gantry-test/{}/below", parent.id));
    assert!(below.create().status.success());
    let start = std::time::Instant::now();
    let output = parent.run();
    assert!(text(&output.stderr).contains("has processes in it or below it"), "{}", text(&output.stderr));
    // It is found out by looking, not by waiting for its removal.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert_eq!(below.state()["status"], "created");
    assert!(below.output(&["delete", "--force", &below.id]).status.success());
    assert!(parent.run().status.success(), "what is empty may be used");
    assert!(leftovers(&parent).is_empty());
}
