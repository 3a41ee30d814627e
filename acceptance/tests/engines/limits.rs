//! Limits under dockerd and Podman: set, changed, shown, enforced.

use crate::engine::{Engine, IMAGE, Kind};

crate::for_both! {
    limits_are_set_and_changed,
    statistics_show_use_and_limit,
    too_much_memory_kills,
    too_many_processes_are_refused,
    rlimits_sysctls_and_shm_are_as_asked,
    cpus_are_those_asked_for,
}

/// The control group's files in both versions: a test that reads v1 only would say nothing on newer machines.
fn limit(engine: &Engine, id: &str, controller: &str, v1: &str, v2: &str) -> String {
    let file = if std::path::Path::new(&format!("/sys/fs/cgroup/{controller}")).exists() { v1 } else { v2 };
    engine.cgroup_file(id, controller, file)
}

fn limits_are_set_and_changed(engine: &Engine) {
    let _guard = engine.sleeper("limited", "--memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50");
    let id = engine.inspect("limited", "{{.Id}}");
    let memory = || limit(engine, &id, "memory", "memory.limit_in_bytes", "memory.max");
    let cpu = || limit(engine, &id, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(memory(), "67108864");
    assert!(cpu().starts_with("50000"), "{}", cpu());
    assert_eq!(limit(engine, &id, "pids", "pids.max", "pids.max"), "50");
    engine.ok("update --memory 128m --memory-swap 256m --cpus 0.75 limited");
    assert_eq!(memory(), "134217728");
    assert!(cpu().starts_with("75000"), "{}", cpu());
    assert_eq!(limit(engine, &id, "pids", "pids.max", "pids.max"), "50", "what was not named stays");
    if engine.kind == Kind::Dockerd {
        engine.ok("update --pids-limit 60 limited");
        assert_eq!(limit(engine, &id, "pids", "pids.max", "pids.max"), "60");
    }
    // Where containers may use the device nodes of the host is as much a limit.
    assert_ne!(
        engine
            .run_args(&[
                "exec",
                "limited",
                "sh",
                "-c",
                "mknod /dev/disk b 8 0 && dd if=/dev/disk of=/dev/null count=1"
            ])
            .code,
        0
    );
}

fn statistics_show_use_and_limit(engine: &Engine) {
    let _guard = engine.sleeper("counted", "--memory 64m");
    let line =
        engine.ok_args(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "counted"]);
    let limit = if engine.kind == Kind::Podman { "67.11MB" } else { "64MiB" };
    assert!(line.contains("counted") && line.contains(limit), "{line}");
    let pids: u32 = line.split(' ').next_back().and_then(|word| word.parse().ok()).unwrap_or(0);
    assert!(pids >= 1, "{line}");
}

fn too_much_memory_kills(engine: &Engine) {
    let answer =
        engine.run(&format!("run --name greedy --memory 24m --memory-swap 24m {IMAGE} tail /dev/zero"));
    assert_eq!(answer.code, 137, "{}", answer.err);
    // Podman 4.3 with the v1 hierarchy says false with every runtime.
    if engine.kind == Kind::Dockerd {
        assert_eq!(engine.inspect("greedy", "{{.State.OOMKilled}}"), "true");
    }
    engine.ok("rm greedy");
}

fn too_many_processes_are_refused(engine: &Engine) {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 20 & done; echo all";
    let answer = engine.run_args(&["run", "--rm", "--pids-limit", "6", IMAGE, "sh", "-c", script]);
    assert!(answer.err.contains("fork") && !answer.out.contains("all"), "{} {}", answer.out, answer.err);
}

fn rlimits_sysctls_and_shm_are_as_asked(engine: &Engine) {
    let options = "--ulimit nofile=77:88 --ulimit nproc=4096:4096 --sysctl kernel.shm_rmid_forced=1 --shm-size 5m --hostname given --tmpfs /scratch:size=1m";
    let script = "ulimit -n; cat /proc/sys/kernel/shm_rmid_forced; hostname; df /scratch | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; \
                  df /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2";
    assert_eq!(engine.sh(options, script), "77\n1\ngiven\n1024\n5120");
}

fn cpus_are_those_asked_for(engine: &Engine) {
    assert_eq!(engine.sh("--cpuset-cpus 0", "nproc"), "1");
}
