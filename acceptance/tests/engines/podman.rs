//! What Podman has and Docker has not: pods, user namespaces for each container, an engine of an ordinary user.

use crate::Engines;
use crate::engine::IMAGE;
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Engines>] = &[
    ("podman_maps_ids_into_a_user_namespace", maps_ids_into_a_user_namespace),
    ("podman_pods_share_namespaces", pods_share_namespaces),
    ("rootless_podman_runs_a_program_to_its_end", rootless_runs_to_the_end),
    ("rootless_podman_maps_the_users_ids", rootless_maps_ids),
    ("rootless_podman_keeps_a_container_through_its_life", rootless_life),
    ("rootless_podman_gives_a_terminal", rootless_terminal),
    ("rootless_podman_has_no_right_over_the_host", rootless_rights),
];

fn maps_ids_into_a_user_namespace(engines: &Engines) {
    let engine = engines.podman();
    let script = "tr -s ' ' < /proc/self/uid_map; id -u; stat -c %u /bin/busybox; touch /made && stat -c %u /made; \
                  ls /proc/self/fd > /dev/null && test -c /dev/null && echo x > /dev/null && echo usable";
    let seen = engine.sh("--uidmap 0:100000:1000 --gidmap 0:100000:1000", script);
    assert_eq!(seen, " 0 100000 1000\n0\n0\n0\nusable");
    let options = "--uidmap 0:100000:1000 --gidmap 0:100000:1000 --user 7:8 --cap-drop ALL";
    assert_eq!(engine.sh(options, "id -u; id -g"), "7\n8");
}

fn rootless_runs_to_the_end(engines: &Engines) {
    let engine = engines.rootless();
    let answer = engine.run_args(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, answer.out.as_str()), (7, "out\n"), "{}", answer.err);
    assert!(answer.err.contains("err"), "{}", answer.err);
    let missing = engine.run(&format!("run --rm {IMAGE} no-such-program"));
    assert_eq!(missing.code, 127, "{}", missing.err);
    let seen =
        engine.sh("--read-only --cap-drop ALL", "touch /x || grep CapEff /proc/self/status | cut -f 2");
    assert_eq!(seen, "0000000000000000");
}

fn rootless_maps_ids(engines: &Engines) {
    let engine = engines.rootless();
    let map = "tr -s ' ' < /proc/self/uid_map; id -u";
    assert_eq!(engine.sh("", map), " 0 4242 1\n 1 200000 65536\n0");
    assert_eq!(engine.sh("--user 7:8", "id -u; id -g"), "7\n8");
    // What the user himself is outside he is inside.
    assert_eq!(engine.sh("--userns keep-id", "id -u"), "4242");
}

fn rootless_life(engines: &Engines) {
    let engine = engines.rootless();
    let _guard = engine.sleeper("life", "");
    assert_eq!(engine.ok("exec life id -u"), "0");
    assert_eq!(engine.run_args(&["exec", "life", "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(engine.ok("exec --user 7 life id -u"), "7");
    engine.ok("restart -t 5 life");
    engine.await_ready("life", 2);
    engine.ok("stop -t 5 life");
    assert_eq!(engine.inspect("life", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    engine.ok("rm life");
}

fn rootless_terminal(engines: &Engines) {
    let engine = engines.rootless();
    let (code, text) = engine
        .typed(&format!("run --rm -it {IMAGE} sh"), b"stty size; test -t 0 && echo tty-$((6*7))\nexit 3\n");
    assert!(code == 3 && text.contains("tty-42"), "{code} {text}");
}

fn rootless_rights(engines: &Engines) {
    let engine = engines.rootless();
    let shell = |script: &str| engine.run_args(&["run", "--rm", IMAGE, "sh", "-c", script]);
    for (script, word) in [
        ("mknod /dev/x b 8 0", "Operation not permitted"),
        ("echo 1 > /proc/sys/kernel/panic", "Read-only file system"),
        ("echo 1 > /sys/kernel/mm/ksm/run", "Read-only file system"),
    ] {
        let answer = shell(script);
        assert!(answer.code == 1 && answer.err.contains(word), "{script}: {} {}", answer.code, answer.err);
    }
    assert_eq!(shell("echo 1 > /dev/null && mkfifo /dev/x && cat /proc/sys/kernel/panic").code, 0);
    // Not even with all rights of its namespace.
    let answer = engine.run_args(&["run", "--rm", "--privileged", IMAGE, "sh", "-c", "mknod /tmp/x b 8 0"]);
    assert!(answer.code != 0 && answer.err.contains("not permitted"), "{} {}", answer.code, answer.err);
}

fn pods_share_namespaces(engines: &Engines) {
    let engine = engines.podman();
    engine.ok("pod create --name pod --network none --share net,ipc,uts --hostname of-the-pod");
    for name in ["one", "two"] {
        engine.ok(&format!("run -d --pod pod --name {name} {IMAGE} sleep 600"));
    }
    for namespace in ["net", "ipc", "uts"] {
        let of = |name: &str| engine.ok(&format!("exec {name} readlink /proc/self/ns/{namespace}"));
        assert_eq!(of("one"), of("two"), "{namespace}");
    }
    assert_eq!(engine.ok("exec two hostname"), "of-the-pod");
    engine.ok("pod stop -t 0 pod");
    engine.ok("pod rm -f -t 0 pod");
}
