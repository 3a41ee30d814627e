//! `linux.devices` and the default devices.

use serde_json::json;
use std::os::unix::fs::symlink;

use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("linux/devices/default", "null, zero, full, random, urandom and tty are there", default),
    property("linux/devices/default/work", "the default devices can be used", work),
    property("linux/devices/ptmx", "/dev/ptmx leads to the container's own devpts", ptmx),
    property("linux/devices/links", "/dev/fd, stdin, stdout and stderr lead to /proc/self/fd", links),
    property("linux/devices/character", "a listed character device is made with its numbers", character),
    property("linux/devices/block", "a listed block device is made with its numbers", block),
    property("linux/devices/fifo", "a listed fifo is made", fifo),
    property(
        "linux/devices/mode_and_owner",
        "`fileMode`, `uid` and `gid` are those of the node",
        mode_and_owner,
    ),
    property("linux/devices/mode_and_umask", "`fileMode` is not reduced by a umask", mode_and_umask),
    property("linux/devices/folder", "folders on the way to a node are made", folder),
    property("linux/devices/existing", "a node that is there already and the same is kept", existing),
    property("linux/devices/other_file", "another file in its place is refused", other_file),
    property("linux/devices/unknown_type", "an unknown type is refused", unknown_type),
    property(
        "linux/devices/link",
        "a link in place of a folder does not lead a node outside of the root",
        link,
    ),
    property("linux/devices/rules/deny", "a device that the rules deny cannot be opened", deny),
    property(
        "linux/devices/rules/silent",
        "without rules, or with none that denies, only what is allowed can be opened (runc's)",
        silent,
    ),
    property("linux/devices/rules/allow", "a device that the rules allow can be opened", allow),
    property(
        "linux/devices/rules/default",
        "the default devices can be opened whatever the rules deny",
        defaults_stay,
    ),
];

fn default(lab: &Lab) {
    let expected = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    let mut bundle = lab.bundle();
    let paths: Vec<&str> = ["stat"].into_iter().chain(expected.iter().map(|one| one.0)).collect();
    let seen = bundle.probe(&paths).seen();
    for (path, major, minor) in expected {
        let node = &seen["stat"][path];
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!("c"), &json!(major), &json!(minor)),
            "{path}"
        );
        assert_eq!(node["mode"], "666", "{path}");
    }
}

fn work(lab: &Lab) {
    let mut bundle = lab.bundle();
    let calls = ["write:/dev/null:text", "write:/dev/full:text", "device:/dev/zero", "device:/dev/urandom"];
    let seen = bundle.probe(&[&["try"], &calls[..]].concat()).seen();
    assert_eq!(seen["try"]["write:/dev/null:text"], "ok");
    assert_eq!(seen["try"]["write:/dev/full:text"], "ENOSPC");
    assert_eq!(seen["try"]["device:/dev/zero"], "ok");
    assert_eq!(seen["try"]["device:/dev/urandom"], "ok");
}

fn ptmx(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.probe(&["stat", "/dev/ptmx", "/dev/pts/ptmx", "--", "try", "open:/dev/ptmx"]).seen();
    let node = &seen["stat"]["/dev/ptmx"];
    let right = node["target"] == "pts/ptmx"
        || node["target"] == "/dev/pts/ptmx"
        || (node["major"] == 5 && node["minor"] == 2);
    assert!(right, "{node}");
    assert_eq!(seen["try"]["open:/dev/ptmx"], "ok");
}

fn links(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.probe(&["stat", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"]).seen();
    let target = |path: &str| seen["stat"][path]["target"].clone();
    assert_eq!(target("/dev/fd"), "/proc/self/fd");
    assert_eq!(target("/dev/stdin"), "/proc/self/fd/0");
    assert_eq!(target("/dev/stdout"), "/proc/self/fd/1");
    assert_eq!(target("/dev/stderr"), "/proc/self/fd/2");
}

fn made(lab: &Lab, device: serde_json::Value) -> serde_json::Value {
    let mut bundle = lab.bundle();
    let path = device["path"].as_str().unwrap().to_owned();
    bundle.config["linux"]["devices"] = json!([device]);
    bundle.probe(&["stat", &path]).seen()["stat"][&path].clone()
}

fn character(lab: &Lab) {
    let node =
        made(lab, json!({ "path": "/dev/gty", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640 }));
    assert_eq!((&node["type"], &node["major"], &node["minor"]), (&json!("c"), &json!(10), &json!(229)));
    let node = made(lab, json!({ "path": "/dev/gty", "type": "u", "major": 1, "minor": 3 }));
    assert_eq!(node["type"], "c");
}

fn block(lab: &Lab) {
    let node =
        made(lab, json!({ "path": "/dev/gtyb", "type": "b", "major": 7, "minor": 99, "fileMode": 0o600 }));
    assert_eq!((&node["type"], &node["major"], &node["minor"]), (&json!("b"), &json!(7), &json!(99)));
}

fn fifo(lab: &Lab) {
    let node = made(lab, json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o666 }));
    assert_eq!(node["type"], "p");
}

fn mode_and_owner(lab: &Lab) {
    let node = made(
        lab,
        json!({ "path": "/dev/gty", "type": "c", "major": 1, "minor": 3, "fileMode": 0o620, "uid": 12, "gid": 34 }),
    );
    assert_eq!((&node["mode"], &node["uid"], &node["gid"]), (&json!("620"), &json!(12), &json!(34)));
}

fn mode_and_umask(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"]["umask"] = 0o077.into();
    bundle.config["linux"]["devices"] =
        json!([{ "path": "/dev/gty", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
    let seen = bundle.probe(&["stat", "/dev/gty", "/dev/null"]).seen();
    assert_eq!(seen["stat"]["/dev/gty"]["mode"], "666");
    assert_eq!(seen["stat"]["/dev/null"]["mode"], "666");
}

fn folder(lab: &Lab) {
    let node = made(lab, json!({ "path": "/dev/deep/er/node", "type": "c", "major": 1, "minor": 3 }));
    assert_eq!(node["type"], "c");
}

fn existing(lab: &Lab) {
    let mut bundle = lab.bundle();
    let device = json!({ "path": "/dev/gty", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 });
    bundle.config["linux"]["devices"] = json!([device, device]);
    assert_eq!(bundle.probe(&["stat", "/dev/gty"]).seen()["stat"]["/dev/gty"]["minor"], 3);
}

fn other_file(lab: &Lab) {
    let mut bundle = lab.bundle();
    std::fs::write(bundle.root("/etc/gty"), "text").unwrap();
    bundle.config["linux"]["devices"] = json!([{ "path": "/etc/gty", "type": "c", "major": 1, "minor": 3 }]);
    bundle.create().refused();
}

fn unknown_type(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["devices"] = json!([{ "path": "/dev/gty", "type": "x", "major": 1, "minor": 3 }]);
    bundle.create().refused();
}

fn link(lab: &Lab) {
    let mut bundle = lab.bundle();
    let outside = bundle.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.root("/way")).unwrap();
    bundle.config["linux"]["devices"] = json!([{ "path": "/way/gty", "type": "c", "major": 1, "minor": 3 }]);
    bundle.run();
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

/// What a program sees that opens the device of FUSE (10, 229) and the default ones under these rules. Whether this kernel has FUSE does
/// not matter: the cgroup decides before the driver is asked.
fn open_under(lab: &Lab, rules: serde_json::Value) -> serde_json::Value {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["devices"] =
        json!([{ "path": "/dev/gtyfuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 }]);
    bundle.config["linux"]["resources"]["devices"] = rules;
    bundle.probe(&["try", "open:/dev/gtyfuse", "open:/dev/null", "open:/dev/zero"]).seen()["try"].clone()
}

fn deny(lab: &Lab) {
    let tried = open_under(lab, json!([{ "allow": false, "access": "rwm" }]));
    assert_eq!(tried["open:/dev/gtyfuse"], "EPERM");
}

fn silent(lab: &Lab) {
    for rules in [
        json!(null),
        json!([]),
        json!([{ "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm" }]),
    ] {
        let tried = open_under(lab, rules);
        assert_eq!((&tried["open:/dev/gtyfuse"], &tried["open:/dev/zero"]), (&json!("EPERM"), &json!("ok")));
    }
}

fn allow(lab: &Lab) {
    let tried = open_under(
        lab,
        json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        ]),
    );
    assert_ne!(tried["open:/dev/gtyfuse"], "EPERM");
}

fn defaults_stay(lab: &Lab) {
    let tried = open_under(lab, json!([{ "allow": false, "access": "rwm" }]));
    assert_eq!(tried["open:/dev/null"], "ok");
    assert_eq!(tried["open:/dev/zero"], "ok");
}
