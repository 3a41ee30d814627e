//! `docker exec`: environment, user, folder, exit codes, detached, input.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("exec_runs_with_environment_user_and_folder", exec_runs_with_environment_user_and_folder),
    ("exec_passes_exit_codes_and_errors", exec_passes_exit_codes_and_errors),
    ("exec_detached_goes_on", exec_detached_goes_on),
    ("exec_takes_input", exec_takes_input),
    ("exec_ends_with_its_container", exec_ends_with_its_container),
];

fn with_container(nodes: &Nodes, name: &str, body: impl FnOnce()) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name {name} -e BASE=yes -w /tmp {IMAGE} sleep 300"));
    body();
    docker.ok(&format!("rm -f {name}"));
}

fn exec_runs_with_environment_user_and_folder(nodes: &Nodes) {
    let docker = nodes.docker(1);
    with_container(nodes, "host1", || {
        assert_eq!(
            docker.ok_args(&["exec", "-e", "X=y", "host1", "sh", "-c", "echo $BASE $X $(pwd)"]),
            "yes y /tmp"
        );
        assert_eq!(docker.ok("exec -u 1000 -w /var host1 sh -c pwd"), "/var");
        assert_eq!(docker.ok("exec -u user host1 id -un"), "user");
        let seen = docker.ok("exec host1 grep -E CapEff|NoNewPrivs|Seccomp: /proc/self/status");
        assert!(seen.contains("00000000a80425fb") && seen.contains("Seccomp:\t2"), "{seen}");
        // All that this machine gives at all: some sandboxes withhold a few from root.
        let all = docker.ok(&format!("run --rm --privileged {IMAGE} grep CapEff /proc/self/status"));
        assert!(all != docker.ok("exec host1 grep CapEff /proc/self/status"), "{all}");
        assert_eq!(docker.ok("exec --privileged host1 grep CapEff /proc/self/status"), all);
    });
}

fn exec_passes_exit_codes_and_errors(nodes: &Nodes) {
    let docker = nodes.docker(1);
    with_container(nodes, "host2", || {
        let answer = docker.try_run(["exec", "host2", "sh", "-c", "echo o; echo e >&2; exit 42"]);
        assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (42, "o\n", "e\n"));
        let missing = docker.try_run(["exec", "host2", "nonesuch"]);
        assert!(matches!(missing.code, 126 | 127), "{}", missing.code);
        assert!(format!("{}{}", missing.out, missing.err).contains("nonesuch"), "{missing:?}");
    });
    assert!(docker.fails("exec host2 true").err.contains("No such container: host2"));
    docker.ok(&format!("create --name idle {IMAGE}"));
    assert!(docker.fails("exec idle true").err.contains("is not running"));
    docker.ok("rm idle");
}

fn exec_detached_goes_on(nodes: &Nodes) {
    let docker = nodes.docker(1);
    with_container(nodes, "host3", || {
        docker.ok_args(&["exec", "-d", "host3", "sh", "-c", "sleep 0.2; touch /tmp/done"]);
        wait::until("the detached exec is done", Duration::from_secs(5), || {
            let answer = docker.try_run(["exec", "host3", "test", "-e", "/tmp/done"]);
            wait::that(answer.code == 0, answer.err)
        });
    });
}

fn exec_takes_input(nodes: &Nodes) {
    let docker = nodes.docker(1);
    with_container(nodes, "host4", || {
        let text = "x".repeat(300_000);
        assert_eq!(docker.with_input("exec -i host4 wc -c", text.as_bytes()).out.trim(), "300000");
        assert_eq!(docker.with_input("exec -i host4 cat", text.as_bytes()).out.len(), 300_000);
    });
}

fn exec_ends_with_its_container(nodes: &Nodes) {
    let docker = nodes.docker(1);
    with_container(nodes, "host5", || {
        let waiting = docker.spawn("exec host5 sleep 200");
        wait::until("the exec runs", Duration::from_secs(5), || {
            let top = docker.ok("top host5");
            wait::that(top.contains("sleep 200"), top)
        });
        docker.ok("kill host5");
        let output = waiting.wait_with_output().unwrap_or_else(|e| panic!("wait for docker exec: {e}"));
        assert_eq!(output.status.code(), Some(137));
    });
}
