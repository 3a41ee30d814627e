//! What Podman has and Docker has not: pods, user namespaces for each container, `--rootless`.

use crate::Engines;
use crate::engine::IMAGE;
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Engines>] = &[
    ("podman_maps_ids_into_a_user_namespace", maps_ids_into_a_user_namespace),
    ("podman_pods_share_namespaces", pods_share_namespaces),
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
