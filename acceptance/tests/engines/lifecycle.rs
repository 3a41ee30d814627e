//! A container's life under dockerd and Podman: run, exec, logs, stop, restart, pause, health.

use crate::engine::{Engine, IMAGE, Kind};
use acceptance::wait;
use std::time::{Duration, Instant};

crate::for_both! {
    exit_code_and_both_outputs_come_back,
    a_program_that_is_not_there_or_not_executable_has_its_own_exit_code,
    input_reaches_the_program,
    exec_runs_beside_the_program,
    logs_keep_what_was_written,
    stop_asks_first_and_kills_then,
    kill_gives_the_signals_code,
    restart_starts_a_new_process,
    pause_freezes_until_unpause,
    top_names_the_processes,
    a_health_check_runs_inside,
    init_reaps_and_is_process_one,
    many_start_at_once,
}

fn exit_code_and_both_outputs_come_back(engine: &Engine) {
    let answer = engine.run_args(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (7, "out\n", "err\n"));
    let killed = engine.run_args(&["run", "--rm", IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    assert_eq!(killed.code, 137, "{}", killed.err);
}

fn a_program_that_is_not_there_or_not_executable_has_its_own_exit_code(engine: &Engine) {
    let missing = engine.run(&format!("run --rm {IMAGE} nosuch"));
    assert_eq!(missing.code, 127, "{}", missing.err);
    let folder = engine.run(&format!("run --rm {IMAGE} /tmp"));
    assert_eq!(folder.code, 126, "{}", folder.err);
    let plain = engine.run(&format!("run --rm {IMAGE} /etc/passwd"));
    assert_eq!(plain.code, 126, "{}", plain.err);
}

fn input_reaches_the_program(engine: &Engine) {
    let mut command = engine.command(&["run", "--rm", "-i", IMAGE, "tr", "a-z", "A-Z"]);
    let file = tempfile::NamedTempFile::new().unwrap_or_else(|e| panic!("make a file: {e}"));
    std::fs::write(file.path(), "through the runtime\n").unwrap_or_else(|e| panic!("write: {e}"));
    let input = std::fs::File::open(file.path()).unwrap_or_else(|e| panic!("open: {e}"));
    let answer = crate::pen::finish(command.stdin(input));
    assert_eq!((answer.code, answer.out.as_str()), (0, "THROUGH THE RUNTIME\n"), "{}", answer.err);
}

fn exec_runs_beside_the_program(engine: &Engine) {
    let _guard = engine.sleeper("beside", "");
    let answer = engine.run_args(&["exec", "beside", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (5, "out\n", "err\n"));
    let args = [
        "exec",
        "-u",
        "1000:2000",
        "-w",
        "/tmp",
        "-e",
        "WHO=me",
        "beside",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $WHO",
    ];
    assert_eq!(engine.ok_args(&args), "1000\n2000\n/tmp\nme");
    // Docker's client answers 126 here and writes to its output; Podman 127 and to its errors.
    let missing = engine.run("exec beside nosuch");
    let said = format!("{}{}", missing.out, missing.err);
    assert!([126, 127].contains(&missing.code) && said.contains("nosuch"), "{} {said}", missing.code);
    let killed = engine.run_args(&["exec", "beside", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137);
    let privileged =
        engine.ok_args(&["exec", "--privileged", "beside", "grep", "CapEff", "/proc/self/status"]);
    assert_ne!(privileged, engine.ok_args(&["exec", "beside", "grep", "CapEff", "/proc/self/status"]));
}

fn logs_keep_what_was_written(engine: &Engine) {
    engine.ok_args(&["run", "--name", "talker", IMAGE, "sh", "-c", "seq 1 3000; echo last >&2"]);
    let logs = engine.run("logs talker");
    assert_eq!(logs.out.lines().count(), 3000);
    assert_eq!(logs.err, "last\n");
    engine.ok("rm talker");
}

fn stop_asks_first_and_kills_then(engine: &Engine) {
    let _polite = engine.sleeper("polite", "");
    engine.ok("stop -t 20 polite");
    assert_eq!(engine.inspect("polite", "{{.State.ExitCode}}"), "0");
    let _deaf = engine.ok(&format!("run -d --name deaf {IMAGE} sleep 600"));
    let start = Instant::now();
    engine.ok("stop -t 1 deaf");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(engine.inspect("deaf", "{{.State.ExitCode}}"), "137");
    engine.ok("rm deaf");
}

fn kill_gives_the_signals_code(engine: &Engine) {
    let _guard = engine.sleeper("target", "");
    engine.ok("kill -s KILL target");
    assert_eq!(engine.ok("wait target"), "137");
    engine.ok("start target");
    engine.await_ready("target", 2);
    engine.ok("kill -s TERM target");
    assert_eq!(engine.ok("wait target"), "0");
}

fn restart_starts_a_new_process(engine: &Engine) {
    let _guard = engine.sleeper("again", "");
    let first = engine.inspect("again", "{{.State.Pid}}");
    engine.ok("restart -t 5 again");
    let second = engine.inspect("again", "{{.State.Pid}}");
    assert_ne!(first, second);
    assert_eq!(engine.ok("exec again echo up"), "up");
}

fn pause_freezes_until_unpause(engine: &Engine) {
    let _guard = engine.sleeper("frozen", "");
    engine.ok("pause frozen");
    assert_eq!(engine.inspect("frozen", "{{.State.Status}}"), "paused");
    assert_ne!(engine.run("exec frozen true").code, 0, "exec in a paused container");
    engine.ok("unpause frozen");
    assert_eq!(engine.ok("exec frozen echo thawed"), "thawed");
}

fn top_names_the_processes(engine: &Engine) {
    let _guard = engine.sleeper("busy", "");
    engine.ok("exec -d busy sleep 4321");
    wait::until("top shows both", Duration::from_secs(10), || {
        let table = engine.ok("top busy");
        wait::that(table.contains("trap") && table.contains("sleep 4321"), table)
    });
}

fn a_health_check_runs_inside(engine: &Engine) {
    let args = |interval: &'static str| {
        [
            "run",
            "-d",
            "--name",
            "sound",
            "--health-cmd",
            "test -e /sound",
            "--health-interval",
            interval,
            IMAGE,
        ]
    };
    // Podman leaves the interval to systemd's timers.
    let interval = if engine.kind == Kind::Podman { "disable" } else { "1s" };
    let mut all = args(interval).to_vec();
    all.extend(["sh", "-c", "touch /sound; exec sleep 600"]);
    engine.ok_args(&all);
    wait::until("the container is healthy", Duration::from_secs(20), || {
        if engine.kind == Kind::Podman {
            let answer = engine.run("healthcheck run sound");
            return wait::that(answer.code == 0, answer.out);
        }
        let state = engine.inspect("sound", "{{.State.Health.Status}}");
        wait::that(state == "healthy", state)
    });
    engine.ok("kill sound");
    engine.ok("rm -f sound");
}

fn init_reaps_and_is_process_one(engine: &Engine) {
    let seen = engine.sh("--init", "echo $$; cat /proc/1/comm");
    assert!(seen.contains("init") && !seen.starts_with("1\n"), "{seen}");
}

fn many_start_at_once(engine: &Engine) {
    std::thread::scope(|scope| {
        let line = format!("run --rm {IMAGE} echo here");
        let started: Vec<_> = (0..6)
            .map(|_| {
                let mut command = engine.command(&line.split_whitespace().collect::<Vec<_>>());
                scope.spawn(move || crate::pen::finish(&mut command))
            })
            .collect();
        for thread in started {
            let answer = thread.join().unwrap_or_else(|_| panic!("a start panicked"));
            assert_eq!((answer.code, answer.out.as_str()), (0, "here\n"), "{}", answer.err);
        }
    });
}
