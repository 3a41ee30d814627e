//! From create to rm: states, exit codes, what ps, wait, events and inspect say on the way.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("version_and_info_answer", version_and_info_answer),
    ("run_prints_output_and_passes_the_exit_code", run_prints_output_and_passes_the_exit_code),
    ("run_rm_leaves_nothing", run_rm_leaves_nothing),
    (
        "create_start_stop_restart_rm_go_through_the_states",
        create_start_stop_restart_rm_go_through_the_states,
    ),
    ("kill_pause_unpause_wait", kill_pause_unpause_wait),
    (
        "stop_sends_the_stop_signal_and_kills_after_the_timeout",
        stop_sends_the_stop_signal_and_kills_after_the_timeout,
    ),
    ("restart_policies_restart", restart_policies_restart),
    ("health_checks_change_the_health", health_checks_change_the_health),
    ("events_tell_a_containers_life", events_tell_a_containers_life),
    ("ps_filters_and_formats", ps_filters_and_formats),
    ("rename_top_stats_update", rename_top_stats_update),
    ("input_reaches_the_process_and_ends", input_reaches_the_process_and_ends),
    ("attach_shows_output_and_the_exit_code", attach_shows_output_and_the_exit_code),
];

fn version_and_info_answer(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert!(!docker.ok_args(&["version", "--format", "{{.Server.Version}}"]).is_empty());
    let info = docker.ok("info");
    for part in ["Storage Driver", "Cgroup Version", "Runtimes:", "Swarm:", "Kernel Version"] {
        assert!(info.contains(part), "docker info lacks {part}:\n{info}");
    }
}

fn run_prints_output_and_passes_the_exit_code(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let answer = docker.try_run(["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (7, "out\n", "err\n"));
    let killed = docker.try_run(["run", "--rm", IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    assert_eq!(killed.code, 137, "{}", killed.err);
    let missing = docker.try_run(["run", "--rm", IMAGE, "no-such-program"]);
    assert_eq!(missing.code, 127, "{}", missing.err);
    assert!(missing.err.contains("no-such-program"), "{}", missing.err);
    let refused = docker.try_run(["run", "--rm", IMAGE, "/etc/passwd"]);
    assert_eq!(refused.code, 126, "{}", refused.err);
    let unknown = docker.try_run(["run", "--rm", "--pull=never", "no-such-image"]);
    assert_eq!(unknown.code, 125, "{}", unknown.err);
    assert!(unknown.err.contains("No such image"), "{}", unknown.err);
}

fn run_rm_leaves_nothing(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run --rm --name gone {IMAGE} true"));
    wait::until("the container is removed", Duration::from_secs(5), || {
        let all = docker.ok("ps -aq --filter name=gone");
        wait::that(all.is_empty(), all)
    });
}

fn create_start_stop_restart_rm_go_through_the_states(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let id = docker.ok(&format!("create --name states {IMAGE} true"));
    assert_eq!(id.len(), 64);
    docker.ok("rm states");
    docker.ok_args(&[
        "create",
        "--name",
        "states",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 3' TERM; while :; do sleep 0.05; done",
    ]);
    assert_eq!(state(nodes, "states"), "created");
    docker.ok("start states");
    assert_eq!(state(nodes, "states"), "running");
    docker.ok("start states");
    docker.ok("stop states");
    assert_eq!(state(nodes, "states"), "exited");
    assert_eq!(docker.inspect("states")["State"]["ExitCode"], 3);
    docker.ok("stop states");
    docker.ok("start states");
    let first = docker.inspect("states")["State"]["Pid"].as_i64();
    docker.ok("restart -t 2 states");
    assert_eq!(state(nodes, "states"), "running");
    assert_ne!(docker.inspect("states")["State"]["Pid"].as_i64(), first);
    let refused = docker.fails("rm states");
    assert!(refused.err.contains("container is running"), "{}", refused.err);
    docker.ok("rm -f states");
    assert!(docker.fails("inspect states").err.contains("No such object: states"));
}

fn kill_pause_unpause_wait(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name frozen {IMAGE} sleep 300"));
    docker.ok("pause frozen");
    assert_eq!(state(nodes, "frozen"), "paused");
    assert!(docker.ok("ps --filter name=frozen").contains("(Paused)"));
    assert!(docker.fails("exec frozen true").err.contains("paused"));
    docker.ok("unpause frozen");
    assert_eq!(state(nodes, "frozen"), "running");
    let waiting = docker.spawn("wait frozen");
    docker.ok("kill -s KILL frozen");
    let output = waiting.wait_with_output().unwrap_or_else(|e| panic!("docker wait: {e}"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "137");
    assert!(docker.fails("kill frozen").err.contains("is not running"));
    docker.ok("rm frozen");
}

fn stop_sends_the_stop_signal_and_kills_after_the_timeout(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let script = "trap 'exit 9' USR1; while :; do sleep 0.05; done";
    docker.ok_args(&["run", "-d", "--name", "polite", "--stop-signal", "USR1", IMAGE, "sh", "-c", script]);
    wait::until("the trap is set", Duration::from_secs(5), || {
        docker.ok("stop polite");
        let code = docker.inspect("polite")["State"]["ExitCode"].clone();
        if code == 9 {
            Ok(())
        } else {
            docker.ok("start polite");
            Err(code.to_string())
        }
    });
    docker.ok_args(&[
        "run",
        "-d",
        "--name",
        "deaf",
        "--stop-timeout",
        "1",
        IMAGE,
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.05; done",
    ]);
    let start = Instant::now();
    docker.ok("stop deaf");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(matches!(docker.inspect("deaf")["State"]["ExitCode"].as_i64(), Some(137 | 143)));
    docker.ok("rm polite deaf");
}

fn restart_policies_restart(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        IMAGE,
        "sh",
        "-c",
        "echo try; exit 4",
    ]);
    wait::until("two restarts", Duration::from_secs(15), || {
        let seen = docker.inspect("again");
        let done = seen["RestartCount"] == 2 && seen["State"]["Status"] == "exited";
        wait::that(done, format!("{} {}", seen["RestartCount"], seen["State"]))
    });
    assert_eq!(docker.ok("logs again").lines().count(), 3);
    docker.ok(&format!("run -d --name ever --restart always {IMAGE} sleep 300"));
    let pid = docker.inspect("ever")["State"]["Pid"].clone();
    // Not the API's kill: a container that the user stops or kills stays so.
    let host_pid = pid.as_i64().unwrap_or_default();
    kill(host_pid);
    wait::until("it runs again", Duration::from_secs(10), || {
        let seen = docker.inspect("ever");
        let again = seen["State"]["Running"] == true && seen["State"]["Pid"] != pid;
        wait::that(again, seen["State"].to_string())
    });
    docker.ok("stop -t 0 ever");
    assert_eq!(state(nodes, "ever"), "exited");
    docker.ok("rm again ever");
}

fn health_checks_change_the_health(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "-d",
        "--name",
        "patient",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "--health-timeout",
        "5s",
        IMAGE,
        "sleep",
        "300",
    ]);
    let health = |wanted: &str| {
        wait::until(wanted, Duration::from_secs(10), || {
            let seen = docker.inspect("patient")["State"]["Health"]["Status"].clone();
            wait::that(seen == wanted, seen.to_string())
        });
    };
    health("unhealthy");
    docker.ok("exec patient touch /tmp/well");
    health("healthy");
    assert!(docker.ok("ps --filter name=patient").contains("(healthy)"));
    assert!(docker.ok("ps -q --filter health=unhealthy").is_empty());
    docker.ok("rm -f patient");
}

fn events_tell_a_containers_life(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run --rm --name eventful {IMAGE} true"));
    let line = [
        "events",
        "--since",
        "1m",
        "--until",
        "0s",
        "--filter",
        "container=eventful",
        "--format",
        "{{.Action}}",
    ];
    wait::until("the events", Duration::from_secs(5), || {
        let seen = docker.ok_args(&line);
        let actions: Vec<&str> = seen.lines().collect();
        let wanted = ["create", "attach", "start", "die", "destroy"];
        wait::that(wanted.iter().all(|w| actions.contains(w)), seen.clone())
    });
}

fn ps_filters_and_formats(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name red --label colour=red {IMAGE} sleep 300"));
    docker.ok(&format!("run -d --name blue --label colour=blue {IMAGE} sleep 300"));
    assert_eq!(docker.ok_args(&["ps", "--filter", "label=colour=red", "--format", "{{.Names}}"]), "red");
    let both =
        docker.ok_args(&["ps", "--filter", "label=colour", "--format", "{{.Names}} {{.Image}} {{.State}}"]);
    assert_eq!(both.lines().count(), 2, "{both}");
    assert!(both.contains(&format!("blue {IMAGE} running")), "{both}");
    docker.ok("kill blue");
    assert_eq!(
        docker.ok_args(&[
            "ps",
            "-a",
            "--filter",
            "exited=137",
            "--filter",
            "name=blue",
            "--format",
            "{{.Names}}"
        ]),
        "blue"
    );
    assert_eq!(
        docker
            .ok_args(&[
                "ps",
                "-aq",
                "--filter",
                "ancestor=sample:1",
                "--filter",
                "status=running",
                "--filter",
                "name=red"
            ])
            .len(),
        12
    );
    docker.ok("rm -f red blue");
}

fn rename_top_stats_update(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name before --memory 64m {IMAGE} sleep 300"));
    docker.ok("rename before after");
    let top = docker.ok("top after");
    assert!(top.contains("sleep 300"), "{top}");
    let stats =
        docker.ok_args(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "after"]);
    assert!(stats.starts_with("after ") && stats.contains("64MiB") && stats.ends_with(" 1"), "{stats}");
    docker.ok("update --memory 96m --memory-swap 192m --restart unless-stopped after");
    let seen = docker.inspect("after");
    assert_eq!(seen["HostConfig"]["Memory"], 96 << 20);
    assert_eq!(seen["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
    docker.ok("rm -f after");
}

fn input_reaches_the_process_and_ends(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let text = "some input\n".repeat(20_000);
    let answer = docker.with_input(&format!("run -i --rm {IMAGE} cat"), text.as_bytes());
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(answer.out.len(), text.len());
    let counted = docker.with_input(&format!("run -i --rm {IMAGE} wc -l"), text.as_bytes());
    assert_eq!(counted.out.trim(), "20000");
}

fn attach_shows_output_and_the_exit_code(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "create",
        "-i",
        "--name",
        "seat",
        IMAGE,
        "sh",
        "-c",
        "read line; echo got $line; exit 5",
    ]);
    docker.ok("start seat");
    let answer = docker.with_input("attach seat", b"hello\n");
    assert_eq!((answer.code, answer.out.as_str()), (5, "got hello\n"), "{}", answer.err);
    docker.ok("rm seat");
    let started = {
        docker.ok_args(&["create", "--name", "shown", IMAGE, "sh", "-c", "echo shown; exit 6"]);
        docker.try_run(["start", "-a", "shown"])
    };
    assert_eq!((started.code, started.out.as_str()), (6, "shown\n"));
    docker.ok("rm shown");
}

fn state(nodes: &Nodes, name: &str) -> String {
    nodes.docker(1).inspect(name)["State"]["Status"].as_str().unwrap_or_default().to_owned()
}

/// Ends a process of the host by its id.
pub fn kill(pid: i64) {
    assert!(pid > 1, "no process id: {pid}");
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.is_ok_and(|s| s.success()), "kill -9 {pid}");
}
