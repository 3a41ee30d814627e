//! `linux.uidMappings` and `linux.gidMappings`: a container whose root is an ordinary user of the host.

use serde_json::json;
use std::os::unix::fs::MetadataExt;

use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("linux/uidMappings", "ids inside are those outside plus the offset of the mapping", mappings),
    property("linux/uidMappings/several", "several ranges are mapped", several),
    property(
        "linux/uidMappings/owner",
        "root inside makes files that belong to the mapped user outside",
        owner,
    ),
    property("linux/uidMappings/missing", "a new user namespace without mappings is refused", missing),
    property(
        "linux/uidMappings/without_namespace",
        "mappings without a user namespace do not take effect",
        alone,
    ),
    property(
        "linux/uidMappings/mounts",
        "proc, tmpfs, devpts, mqueue and sysfs are mounted in a user namespace",
        mounts,
    ),
    property("linux/uidMappings/devices", "the default devices work in a user namespace", devices),
    property(
        "linux/uidMappings/capabilities",
        "capabilities are those of the user namespace only",
        capabilities,
    ),
    property("linux/uidMappings/user", "a mapped user other than root runs the program", user),
    property("linux/uidMappings/exec", "exec enters the user namespace", exec),
];

fn mappings(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.user_namespace(100_000).look();
    let words = |text: &serde_json::Value| {
        text.as_str().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words(&seen["uidMap"]), ["0", "100000", "65536"]);
    assert_eq!(words(&seen["gidMap"]), ["0", "100000", "65536"]);
    assert_eq!(seen["uids"], json!([0, 0, 0, 0]));
    assert_eq!(seen["gids"], json!([0, 0, 0, 0]));
    assert_eq!(seen["groups"], json!([]));
}

fn several(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.user_namespace(100_000);
    let maps = json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 },
        { "containerID": 1000, "hostID": 200_000, "size": 5 },
    ]);
    bundle.config["linux"]["uidMappings"] = maps.clone();
    bundle.config["linux"]["gidMappings"] = maps;
    bundle.without_mount("/dev/pts");
    let seen = bundle.look();
    let words: Vec<&str> = seen["uidMap"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "10", "1000", "200000", "5"]);
}

fn owner(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.user_namespace(100_000).probe(&["try", "create:/tmp/file"]);
    assert_eq!(bundle.seen()["try"]["create:/tmp/file"], "ok");
    assert_eq!(bundle.root("/tmp/file").metadata().unwrap().uid(), 100_000);
}

fn missing(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.namespace("user", None).create().refused();
}

fn alone(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    bundle.config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    let ended = bundle.probe(&["look"]).run();
    if ended.code == Some(0) {
        let map = crate::bundle::parse(&ended.out)["look"]["uidMap"].to_string();
        assert!(!map.contains("100000"), "{map}");
    } else {
        ended.refused();
    }
}

fn mounts(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.user_namespace(100_000);
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
    bundle.mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]);
    bundle.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    let seen = bundle.look();
    for (point, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert_eq!(crate::config::mount_at(&seen, point)["type"], kind, "{point}");
    }
}

fn devices(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.user_namespace(100_000).probe(&[
        "try",
        "write:/dev/null:x",
        "device:/dev/zero",
        "device:/dev/urandom",
    ]);
    let seen = bundle.seen();
    for call in ["write:/dev/null:x", "device:/dev/zero", "device:/dev/urandom"] {
        assert_eq!(seen["try"][call], "ok", "{call}");
    }
}

fn capabilities(lab: &Lab) {
    let mut bundle = lab.bundle();
    let all = json!(["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_CHOWN"]);
    bundle.user_namespace(100_000);
    bundle.config["process"]["capabilities"] = json!({ "bounding": all, "permitted": all, "effective": all });
    let calls = ["sethostname:other", "mknod:/tmp/null:c:1:3", "chown:/tmp:70000"];
    let seen = bundle.probe(&[&["try"], &calls[..]].concat()).seen();
    assert_eq!(seen["try"]["sethostname:other"], "ok");
    assert_eq!(seen["try"]["mknod:/tmp/null:c:1:3"], "EPERM");
    assert_eq!(seen["try"]["chown:/tmp:70000"], "EINVAL");
}

fn user(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.user_namespace(100_000);
    bundle.config["process"]["user"] = json!({ "uid": 33, "gid": 44, "additionalGids": [55] });
    let seen = bundle.look();
    assert_eq!(seen["uids"], json!([33, 33, 33, 33]));
    assert_eq!(seen["gids"], json!([44, 44, 44, 44]));
    assert_eq!(seen["groups"], json!([55]));
}

fn exec(lab: &Lab) {
    let mut bundle = lab.bundle();
    let first = bundle.user_namespace(100_000).waiting(&["look"]);
    let second = bundle.exec_seen(&[], &["look"]);
    assert_eq!(second["look"]["namespaces"], first["look"]["namespaces"]);
    assert_eq!(second["look"]["uid"], 0);
}
