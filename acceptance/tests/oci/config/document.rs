//! The document as a whole: its version, unknown members, host name, annotations.

use serde_json::json;
use std::fs;

use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("config/version/patch_and_minor", "every 1.x version is accepted", minor_versions),
    property("config/version/other_major", "a version that is not supported is refused", other_major),
    property("config/version/no_version", "a version that is not SemVer is refused", no_version),
    property("config/missing", "a bundle without config.json is refused", missing),
    property("config/malformed", "a configuration that is not JSON is refused", malformed),
    property("config/extensibility/unknown_members", "unknown members are ignored", unknown_members),
    property("config/process/missing", "`process` is needed by `start` at the latest", no_process),
    property("config/hostname", "the container's host name is `hostname`", hostname),
    property(
        "config/hostname/without_namespace",
        "`hostname` without a new uts namespace is refused",
        hostname_of_host,
    ),
    property("config/domainname", "the NIS domain name is `domainname`", domainname),
    property("config/annotations", "annotations are in the state", annotations),
    property("config/annotations/unknown", "annotations of unknown meaning are ignored", unknown_annotations),
];

fn minor_versions(lab: &Lab) {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.0"] {
        let mut bundle = lab.bundle();
        bundle.config["ociVersion"] = version.into();
        assert_eq!(bundle.look()["pid"], 1, "version {version}");
    }
}

fn other_major(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["ociVersion"] = "7.0.0".into();
    bundle.create().refused();
}

fn no_version(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["ociVersion"] = "newest".into();
    bundle.create().refused();
}

fn missing(lab: &Lab) {
    let bundle = lab.bundle();
    let complaint = bundle.runtime(&["create", &bundle.id]).refused();
    assert!(complaint.contains("config.json"), "{complaint}");
}

fn malformed(lab: &Lab) {
    let bundle = lab.bundle();
    fs::write(bundle.path().join("config.json"), "{\"ociVersion\": ").unwrap();
    bundle.runtime(&["create", &bundle.id]).refused();
    assert!(bundle.state().is_null());
}

fn unknown_members(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["x-unknown"] = json!({ "deep": [1, 2] });
    bundle.config["process"]["unknown"] = true.into();
    bundle.config["linux"]["unknown"] = "yes".into();
    assert_eq!(bundle.look()["pid"], 1);
}

fn no_process(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config.as_object_mut().unwrap().remove("process");
    let created = bundle.create();
    if created.code == Some(0) {
        bundle.runtime(&["start", &bundle.id]).refused();
    } else {
        created.refused();
    }
}

fn hostname(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["hostname"] = "gty-inside".into();
    assert_eq!(bundle.look()["hostname"], "gty-inside");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "gty-inside");
}

fn hostname_of_host(lab: &Lab) {
    let mut bundle = lab.bundle();
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    bundle.without_namespace("uts").create().refused();
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

fn domainname(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["domainname"] = "example.invalid".into();
    assert_eq!(bundle.look()["domainname"], "example.invalid");
}

fn annotations(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["annotations"] = json!({ "org.gantry.color": "blue", "empty": "" });
    bundle.create().ok();
    assert_eq!(bundle.state()["annotations"], bundle.config["annotations"]);
}

fn unknown_annotations(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["annotations"] = json!({ "run.oci.something": "1", "com.example/x": "ü", "a": "b" });
    assert_eq!(bundle.look()["pid"], 1);
}
