//! `maskedPaths`, `readonlyPaths`, `rootfsPropagation`.

use serde_json::json;
use std::fs;

use crate::config::mount_at;
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("linux/maskedPaths/file", "a hidden file shows nothing", masked_file),
    property("linux/maskedPaths/folder", "a hidden folder is empty and cannot be written", masked_folder),
    property("linux/maskedPaths/missing", "a hidden path that does not exist is ignored", masked_missing),
    property("linux/maskedPaths/proc", "files of /proc are hidden", masked_proc),
    property("linux/readonlyPaths", "a read-only path cannot be written, with everything below", readonly),
    property(
        "linux/readonlyPaths/flags",
        "a read-only path keeps the other flags of its mount",
        readonly_flags,
    ),
    property(
        "linux/readonlyPaths/missing",
        "a read-only path that does not exist is ignored",
        readonly_missing,
    ),
    property("linux/readonlyPaths/proc", "/proc/sys cannot be written", readonly_proc),
    property("linux/rootfsPropagation/private", "a private root", private),
    property("linux/rootfsPropagation/slave", "a slave root", slave),
    property("linux/rootfsPropagation/shared", "a shared root", shared),
    property("linux/rootfsPropagation/unbindable", "an unbindable root", unbindable),
    property("linux/rootfsPropagation/unknown", "an unknown propagation is refused", unknown_propagation),
];

fn masked_file(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::write(bundle.root("/etc/secret"), "secret").unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    let seen = bundle.probe(&["read", "/etc/secret", "--", "stat", "/etc/secret"]).seen();
    assert_ne!(seen["read"]["/etc/secret"], "secret");
    assert_eq!(seen["read"]["/etc/secret"], "");
    assert_eq!(fs::read_to_string(bundle.root("/etc/secret")).unwrap(), "secret");
}

fn masked_folder(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::create_dir(bundle.root("/etc/hidden")).unwrap();
    fs::write(bundle.root("/etc/hidden/file"), "secret").unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/hidden"]);
    let seen = bundle.probe(&["list", "/etc/hidden", "--", "try", "create:/etc/hidden/new"]).seen();
    assert_eq!(seen["list"]["/etc/hidden"], json!([]));
    assert_eq!(seen["try"]["create:/etc/hidden/new"], "EROFS");
}

fn masked_missing(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["maskedPaths"] = json!(["/no/such", "/etc/none"]);
    assert_eq!(bundle.look()["pid"], 1);
}

fn masked_proc(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/keys", "/proc/bus"]);
    let seen = bundle.probe(&["read", "/proc/keys", "--", "list", "/proc/bus"]).seen();
    assert_eq!(seen["read"]["/proc/keys"], "");
    assert_eq!(seen["list"]["/proc/bus"], json!([]));
}

fn readonly(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::create_dir_all(bundle.root("/etc/fixed/below")).unwrap();
    fs::write(bundle.root("/etc/file"), "text").unwrap();
    bundle.config["linux"]["readonlyPaths"] = json!(["/etc/fixed", "/etc/file"]);
    let calls =
        ["create:/etc/fixed/new", "create:/etc/fixed/below/new", "write:/etc/file", "create:/etc/new"];
    let seen = bundle.probe(&[&["try"], &calls[..]].concat()).seen();
    assert_eq!(seen["try"]["create:/etc/fixed/new"], "EROFS");
    assert_eq!(seen["try"]["create:/etc/fixed/below/new"], "EROFS");
    assert_eq!(seen["try"]["write:/etc/file"], "EROFS");
    assert_eq!(seen["try"]["create:/etc/new"], "ok");
}

fn readonly_flags(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/mnt"]);
    let look = bundle.look();
    let options = mount_at(&look, "/mnt")["options"].as_array().unwrap().clone();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.contains(&option.into()), "{option}: {options:?}");
    }
}

fn readonly_missing(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["readonlyPaths"] = json!(["/no/such", "/etc/none"]);
    assert_eq!(bundle.look()["pid"], 1);
}

fn readonly_proc(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/irq"]);
    let calls = ["write:/proc/sys/kernel/domainname", "write:/proc/irq/default_smp_affinity"];
    let seen = bundle.probe(&[&["try"], &calls[..]].concat()).seen();
    for call in calls {
        assert_eq!(seen["try"][call], "EROFS", "{call}");
    }
}

fn propagation(lab: &Lab, word: &str) -> String {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["rootfsPropagation"] = word.into();
    bundle.probe(&["look"]).save();
    // Under a shared parent, as systemd leaves it: then slave and private differ.
    let mut command = std::process::Command::new("/usr/bin/unshare");
    command.args(["--mount", "--propagation", "shared"]).arg(&lab.program).arg("--root");
    command.arg(bundle.beside("state")).args(["run", &bundle.id]).current_dir(bundle.path());
    let seen = crate::bundle::parse(&bundle.finish(command.stdin(std::process::Stdio::null())).ok());
    mount_at(&seen["look"], "/")["propagation"].to_string()
}

fn private(lab: &Lab) {
    assert_eq!(propagation(lab, "private"), "[]");
    assert_eq!(propagation(lab, "rprivate"), "[]");
}

fn slave(lab: &Lab) {
    for word in ["slave", "rslave"] {
        let seen = propagation(lab, word);
        assert!(!seen.contains("shared:") && !seen.contains("unbindable"), "{word}: {seen}");
    }
}

fn shared(lab: &Lab) {
    assert!(propagation(lab, "shared").contains("shared:"));
    assert!(propagation(lab, "rshared").contains("shared:"));
}

fn unbindable(lab: &Lab) {
    assert!(propagation(lab, "unbindable").contains("unbindable"));
    assert!(propagation(lab, "runbindable").contains("unbindable"));
}

fn unknown_propagation(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["rootfsPropagation"] = "sideways".into();
    bundle.create().refused();
}
