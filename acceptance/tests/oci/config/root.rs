//! `root`: where the root file system is, and whether it can be written.

use std::fs;
use std::os::unix::fs::symlink;

use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("config/root/relative", "a relative `root.path` is relative to the bundle", relative),
    property("config/root/absolute", "an absolute `root.path` is used as it is", absolute),
    property("config/root/missing", "a `root.path` that does not exist is refused", missing),
    property("config/root/file", "a `root.path` that is not a folder is refused", file),
    property("config/root/absent", "a configuration without `root` is refused", absent),
    property("config/root/writable", "the root can be written when `readonly` is false", writable),
    property("config/root/readonly", "the root cannot be written when `readonly` is true", readonly),
    property(
        "config/root/readonly_leaves_mounts",
        "`readonly` leaves other mounts as they are",
        readonly_leaves_mounts,
    ),
    property("config/root/is_root", "nothing outside of the root is seen, not even by `..`", is_root),
    property(
        "config/root/mount_point",
        "the root is a mount point of its own, and the only mount at /",
        mount_point,
    ),
];

fn relative(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::rename(bundle.root(""), bundle.path().join("elsewhere")).unwrap();
    bundle.config["root"]["path"] = "./elsewhere".into();
    assert_eq!(bundle.look()["pid"], 1);
    fs::rename(bundle.path().join("elsewhere"), bundle.root("")).unwrap();
}

fn absolute(lab: &Lab) {
    let mut bundle = lab.bundle();
    let place = bundle.beside("root of its own");
    fs::rename(bundle.root(""), &place).unwrap();
    bundle.config["root"]["path"] = place.to_string_lossy().into();
    assert_eq!(bundle.look()["pid"], 1);
}

fn missing(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["root"]["path"] = "nowhere".into();
    let complaint = bundle.create().refused();
    assert!(complaint.contains("nowhere"), "{complaint}");
    assert!(bundle.state().is_null());
}

fn file(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::write(bundle.path().join("file"), "").unwrap();
    bundle.config["root"]["path"] = "file".into();
    bundle.create().refused();
}

fn absent(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config.as_object_mut().unwrap().remove("root");
    bundle.create().refused();
}

fn writable(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.probe(&["try", "create:/file", "mkdir:/folder"]).seen();
    assert_eq!(seen["try"]["create:/file"], "ok");
    assert_eq!(seen["try"]["mkdir:/folder"], "ok");
    assert!(bundle.root("/file").is_file() && bundle.root("/folder").is_dir());
}

fn readonly(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["root"]["readonly"] = true.into();
    let seen = bundle.probe(&["look", "--", "try", "create:/file", "mkdir:/tmp/folder"]).seen();
    assert_eq!(seen["try"]["create:/file"], "EROFS");
    assert_eq!(seen["try"]["mkdir:/tmp/folder"], "EROFS");
    let mounts = seen["look"]["mounts"].as_array().unwrap();
    let root = mounts.iter().find(|mount| mount["point"] == "/").unwrap();
    assert!(root["options"].as_array().unwrap().contains(&"ro".into()), "{root}");
}

fn readonly_leaves_mounts(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["root"]["readonly"] = true.into();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    let seen = bundle.probe(&["try", "create:/tmp/file", "create:/dev/file"]).seen();
    assert_eq!(seen["try"]["create:/tmp/file"], "ok");
    assert_eq!(seen["try"]["create:/dev/file"], "ok");
}

fn is_root(lab: &Lab) {
    let mut bundle = lab.bundle();
    symlink("/../../../../bundle", bundle.root("/way_out")).unwrap();
    let seen = bundle.probe(&["list", "/", "/..", "/../..", "/way_out"]).seen();
    let root = &seen["list"]["/"];
    assert!(root.as_array().unwrap().contains(&"probe".into()), "{root}");
    assert_eq!(&seen["list"]["/.."], root);
    assert_eq!(&seen["list"]["/../.."], root);
    assert_eq!(seen["list"]["/way_out"]["error"], "ENOENT");
}

fn mount_point(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.look();
    let points: Vec<&str> =
        seen["mounts"].as_array().unwrap().iter().map(|mount| mount["point"].as_str().unwrap()).collect();
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{points:?}");
    let mut expected = vec!["/", "/proc", "/dev", "/dev/pts"];
    // runc shows /dev/console also without a terminal when it is asked for one only; nothing else may appear.
    expected.extend(
        points.iter().filter(|point| point.starts_with("/dev/")).filter(|point| **point != "/dev/pts"),
    );
    assert_eq!(points, expected);
}
