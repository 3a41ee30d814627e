//! Rights under dockerd and Podman: users, capabilities, read-only roots, namespaces of others, privileged containers.

use crate::engine::{Engine, IMAGE, Kind};

crate::for_both! {
    a_read_only_root_stays_so,
    user_and_groups_are_as_asked,
    capabilities_are_dropped_and_added,
    no_new_privileges_and_seccomp_hold,
    the_process_namespace_of_another_is_joined,
    a_privileged_container_may_mount,
    devices_are_given_and_refused,
    volumes_are_mounted_and_read_only_where_asked,
}

fn a_read_only_root_stays_so(engine: &Engine) {
    let answer = engine.run(&format!("run --rm --read-only {IMAGE} touch /x"));
    assert!(answer.code == 1 && answer.err.contains("Read-only"), "{} {}", answer.code, answer.err);
    assert_eq!(engine.sh("--read-only --tmpfs /run", "touch /run/x && echo made"), "made");
}

fn user_and_groups_are_as_asked(engine: &Engine) {
    let seen = engine.sh("--user 1234:55 --group-add 77", "id -u; id -g; id -G");
    assert_eq!(seen, "1234\n55\n55 77");
    let named = engine.sh("--user user", "id -u; id -G");
    assert_eq!(named, "1000\n1000 2000");
}

fn capabilities_are_dropped_and_added(engine: &Engine) {
    let seen = engine
        .sh("--cap-drop ALL --cap-add CHOWN", "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f 2");
    assert_eq!(seen, ["0000000000000001"; 3].join("\n"));
    let refused = engine.run(&format!("run --rm --cap-drop NET_RAW {IMAGE} ping -c 1 127.0.0.1"));
    assert_ne!(refused.code, 0);
}

fn no_new_privileges_and_seccomp_hold(engine: &Engine) {
    let seen = engine
        .sh("--security-opt no-new-privileges", "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | cut -f 2");
    assert_eq!(seen, "1\n2");
    let free = engine.sh("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status | cut -f 2");
    assert_eq!(free, "0");
}

fn the_process_namespace_of_another_is_joined(engine: &Engine) {
    let _guard = engine.sleeper("host-of-pids", "");
    let seen = engine.sh("--pid container:host-of-pids", "cat /proc/1/cmdline");
    assert!(seen.contains("trap"), "{seen}");
    let of_both = ["host-of-pids", "joined"]
        .map(|_| engine.sh("--network container:host-of-pids", "readlink /proc/self/ns/net"));
    assert_eq!(of_both[0], of_both[1]);
    let own = engine.ok("exec host-of-pids readlink /proc/self/ns/net");
    assert_eq!(own, of_both[0]);
}

fn a_privileged_container_may_mount(engine: &Engine) {
    let seen = engine
        .sh("--privileged", "mount -t tmpfs none /tmp && touch /tmp/x && test -c /dev/kmsg && echo may");
    assert_eq!(seen, "may");
    let refused = engine.run(&format!("run --rm {IMAGE} mount -t tmpfs none /tmp"));
    assert_ne!(refused.code, 0);
}

fn devices_are_given_and_refused(engine: &Engine) {
    let opened = |rights: &str, how: &str| {
        let device = format!("/dev/fuse:/dev/mine:{rights}");
        engine.run_args(&[
            "run",
            "--rm",
            "--device",
            &device,
            IMAGE,
            "sh",
            "-c",
            &format!("true {how} /dev/mine"),
        ])
    };
    assert_eq!(opened("r", "<").code, 0, "{}", opened("r", "<").err);
    let refused = opened("r", ">");
    assert!(refused.code != 0 && refused.err.contains("not permitted"), "{} {}", refused.code, refused.err);
}

fn volumes_are_mounted_and_read_only_where_asked(engine: &Engine) {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
    std::fs::write(folder.path().join("given"), "from the host\n").unwrap_or_else(|e| panic!("write: {e}"));
    let source = folder.path().display().to_string();
    assert_eq!(
        engine.sh(&format!("-v {source}:/v:ro"), "cat /v/given; touch /v/x 2>/dev/null || echo refused"),
        "from the host\nrefused"
    );
    // Podman's named volumes need no daemon; dockerd's are the same file system as its root.
    let kept = match engine.kind {
        Kind::Dockerd => "kept-by-dockerd",
        Kind::Podman => "kept-by-podman",
    };
    engine.sh(&format!("-v {kept}:/v"), "echo kept > /v/file");
    assert_eq!(engine.sh(&format!("-v {kept}:/v"), "cat /v/file"), "kept");
    engine.ok(&format!("volume rm {kept}"));
}
