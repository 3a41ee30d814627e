//! `mounts`: sources, destinations, options, order.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("config/mounts/order", "mounts are made in the order in which they are listed", order),
    property("config/mounts/bind_folder", "a folder of the host is bound", bind_folder),
    property("config/mounts/bind_file", "a file of the host is bound", bind_file),
    property(
        "config/mounts/bind_kind_by_option",
        "`bind` among the options suffices, the type may be `none`",
        bind_by_option,
    ),
    property("config/mounts/rbind", "`rbind` takes the mounts below along, `bind` does not", rbind),
    property(
        "config/mounts/source/relative",
        "a relative source of a bind mount is relative to the bundle",
        relative_source,
    ),
    property(
        "config/mounts/source/missing",
        "a bind mount without source is refused, and named",
        missing_source,
    ),
    property("config/mounts/destination/made", "a destination that does not exist is made", destination_made),
    property(
        "config/mounts/destination/link",
        "a destination through a link stays inside the root",
        destination_link,
    ),
    property(
        "config/mounts/destination/dots",
        "a destination with `..` stays inside the root",
        destination_dots,
    ),
    property("config/mounts/destination/proc", "a mount over a part of /proc is refused", inside_proc),
    property("config/mounts/type/unknown", "an unknown file system is refused", unknown_type),
    property("config/mounts/tmpfs", "a tmpfs has the size and mode of its options", tmpfs),
    property("config/mounts/options/ro", "`ro` makes a mount read-only", ro),
    property(
        "config/mounts/options/ro_of_bind",
        "`ro` makes a bind mount read-only, not its source",
        ro_bind,
    ),
    property("config/mounts/options/flags", "nosuid, nodev, noexec, noatime, nodiratime are set", flags),
    property("config/mounts/options/flags_of_bind", "they are set on bind mounts too", flags_of_bind),
    property("config/mounts/options/noexec", "`noexec` is in force", noexec),
    property("config/mounts/options/nodev", "`nodev` is in force", nodev),
    property("config/mounts/options/last_wins", "of contradicting options the last one holds", last_wins),
    property(
        "config/mounts/options/nosymfollow",
        "`nosymfollow` keeps links from being followed",
        nosymfollow,
    ),
    property("config/mounts/options/rro", "`rro` makes the mounts below read-only too", rro),
    property("config/mounts/options/rnosuid", "recursive options reach the mounts below", rnosuid),
    property(
        "config/mounts/options/unknown",
        "an option that a file system does not know is refused",
        unknown_option,
    ),
    property("config/mounts/options/tmpcopyup", "`tmpcopyup` starts a tmpfs with what was below", tmpcopyup),
    property("config/mounts/propagation/private", "a mount is private without an option", private),
    property("config/mounts/propagation/shared", "`shared` and `rshared` share a mount", shared),
    property("config/mounts/propagation/slave", "`slave` makes a mount a slave", slave),
    property("config/mounts/propagation/unbindable", "`unbindable` makes a mount unbindable", unbindable),
    property("config/mounts/idmap", "a bind mount with mappings shows other owners", idmap),
    property("config/mounts/mqueue", "an mqueue is mounted", mqueue),
    property("config/mounts/sysfs", "sysfs is mounted, read-only when asked", sysfs),
    property("config/mounts/nothing_stays", "no mount stays on the host", nothing_stays),
];

/// The uppermost mount at a point.
pub fn at<'a>(look: &'a Value, point: &str) -> &'a Value {
    let mounts = look["mounts"].as_array().expect("mounts");
    let found = mounts.iter().rev().find(|mount| mount["point"] == point);
    found.unwrap_or_else(|| panic!("nothing is mounted at {point}: {mounts:#?}"))
}

fn has(mount: &Value, option: &str) -> bool {
    mount["options"].as_array().expect("options").contains(&option.into())
}

fn host_folder(bundle: &Bundle) -> String {
    let folder = bundle.beside("source");
    fs::create_dir_all(folder.join("below")).unwrap();
    fs::write(folder.join("file"), "of the host").unwrap();
    folder.to_string_lossy().into_owned()
}

fn order(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/mnt", "tmpfs", "first", &[]).mount("/mnt/a", "bind", &source, &["bind"]);
    bundle.mount("/over", "bind", &source, &["bind"]).mount("/over", "tmpfs", "second", &[]);
    let seen = bundle.probe(&["list", "/mnt", "/mnt/a", "/over"]).seen();
    assert_eq!(seen["list"]["/mnt"], json!(["a"]));
    assert_eq!(seen["list"]["/mnt/a"], json!(["below", "file"]));
    assert_eq!(seen["list"]["/over"], json!([]));
}

fn bind_folder(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/mnt", "bind", &source, &["bind"]);
    let seen = bundle.probe(&["read", "/mnt/file", "--", "try", "create:/mnt/new"]).seen();
    assert_eq!(seen["read"]["/mnt/file"], "of the host");
    assert_eq!(seen["try"]["create:/mnt/new"], "ok");
    assert!(bundle.beside("source/new").exists());
}

fn bind_file(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/etc/file", "bind", &format!("{source}/file"), &["bind"]);
    assert_eq!(bundle.probe(&["read", "/etc/file"]).seen()["read"]["/etc/file"], "of the host");
}

fn bind_by_option(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/a", "none", &source, &["bind"]);
    bundle.mount_as(json!({ "destination": "/b", "source": source, "options": ["rbind"] }));
    let seen = bundle.probe(&["list", "/a", "/b"]).seen();
    assert_eq!(seen["list"]["/a"], json!(["below", "file"]));
    assert_eq!(seen["list"]["/b"], json!(["below", "file"]));
}

fn rbind(lab: &Lab) {
    // /dev of the host has /dev/pts and more below it.
    let mut bundle = lab.bundle();
    bundle.mount("/one", "bind", "/dev", &["bind"]).mount("/all", "bind", "/dev", &["rbind"]);
    let seen = bundle.look();
    let below = |point: &str| {
        let mounts = seen["mounts"].as_array().unwrap();
        mounts.iter().filter(|mount| mount["point"].as_str().unwrap().starts_with(point)).count()
    };
    assert_eq!(below("/one/"), 0);
    assert!(below("/all/") > 0);
}

fn relative_source(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::create_dir(bundle.path().join("data")).unwrap();
    fs::write(bundle.path().join("data/file"), "of the bundle").unwrap();
    bundle.mount("/mnt", "bind", "data", &["bind"]);
    assert_eq!(bundle.probe(&["read", "/mnt/file"]).seen()["read"]["/mnt/file"], "of the bundle");
}

fn missing_source(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "bind", "/no/such/source", &["bind"]);
    let complaint = bundle.create().refused();
    assert!(complaint.contains("/no/such/source"), "{complaint}");
    assert!(bundle.state().is_null());
}

fn destination_made(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/a/b/c", "tmpfs", "tmpfs", &[]).mount(
        "/d/e/file",
        "bind",
        &format!("{source}/file"),
        &["bind"],
    );
    let seen = bundle.probe(&["stat", "/a/b/c", "/d/e/file"]).seen();
    assert_eq!(seen["stat"]["/a/b/c"]["type"], "d");
    assert_eq!(seen["stat"]["/d/e/file"]["type"], "f");
}

fn destination_link(lab: &Lab) {
    let mut bundle = lab.bundle();
    let outside = bundle.beside("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.root("/link")).unwrap();
    let source = host_folder(&bundle);
    bundle.mount("/link/mnt", "bind", &source, &["bind"]);
    let ended = bundle.probe(&["list", "/link/mnt"]).run();
    // Whether the link leads to a folder in the root or the mount is refused: it is not outside.
    if ended.code == Some(0) {
        assert_eq!(crate::bundle::parse(&ended.out)["list"]["/link/mnt"], json!(["below", "file"]));
    } else {
        ended.refused();
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

fn destination_dots(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/../../../../gty-dots", "bind", &source, &["bind"]);
    let ended = bundle.probe(&["list", "/gty-dots"]).run();
    if ended.code == Some(0) {
        assert_eq!(crate::bundle::parse(&ended.out)["list"]["/gty-dots"], json!(["below", "file"]));
    } else {
        ended.refused();
    }
    assert!(!std::path::Path::new("/gty-dots").exists());
}

fn inside_proc(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/proc/sys", "tmpfs", "tmpfs", &[]);
    let complaint = bundle.create().refused();
    assert!(complaint.contains("/proc"), "{complaint}");
}

fn unknown_type(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "gtyfs", "none", &[]);
    let complaint = bundle.create().refused();
    assert!(complaint.contains("mnt"), "{complaint}");
}

fn tmpfs(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["size=8192k", "mode=0700", "nr_inodes=100"]);
    let seen = bundle.probe(&["look", "--", "stat", "/mnt"]).seen();
    let mount = at(&seen["look"], "/mnt");
    assert_eq!(mount["type"], "tmpfs");
    assert!(mount["system"].as_array().unwrap().contains(&"size=8192k".into()), "{mount}");
    assert!(mount["system"].as_array().unwrap().contains(&"nr_inodes=100".into()), "{mount}");
    assert_eq!(seen["stat"]["/mnt"]["mode"], "700");
}

fn ro(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["ro"]);
    let seen = bundle.probe(&["look", "--", "try", "create:/mnt/file"]).seen();
    assert!(has(at(&seen["look"], "/mnt"), "ro"));
    assert_eq!(seen["try"]["create:/mnt/file"], "EROFS");
}

fn ro_bind(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/mnt", "bind", &source, &["bind", "ro"]).mount("/writable", "bind", &source, &["bind"]);
    let seen = bundle.probe(&["try", "create:/mnt/a", "create:/writable/b"]).seen();
    assert_eq!(seen["try"]["create:/mnt/a"], "EROFS");
    assert_eq!(seen["try"]["create:/writable/b"], "ok");
}

fn flags(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "noatime", "nodiratime"]);
    let look = bundle.look();
    for option in ["nosuid", "nodev", "noexec", "noatime", "nodiratime"] {
        assert!(has(at(&look, "/mnt"), option), "{option}: {}", at(&look, "/mnt"));
    }
}

fn flags_of_bind(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/mnt", "bind", &source, &["bind", "nosuid", "nodev", "noexec", "noatime"]);
    let look = bundle.look();
    for option in ["rw", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(has(at(&look, "/mnt"), option), "{option}: {}", at(&look, "/mnt"));
    }
}

fn noexec(lab: &Lab) {
    let mut bundle = lab.bundle();
    let root = bundle.root("/bin").to_string_lossy().into_owned();
    bundle.mount("/no", "bind", &root, &["bind", "noexec"]).mount("/yes", "bind", &root, &["bind"]);
    let seen = bundle.probe(&["try", "exec:/no/busybox", "exec:/yes/busybox"]).seen();
    assert_eq!(seen["try"]["exec:/no/busybox"], "EACCES");
    assert_eq!(seen["try"]["exec:/yes/busybox"], "ok");
}

fn nodev(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/null", "bind", "/dev/null", &["bind", "nodev"]);
    let seen = bundle.probe(&["try", "open:/null", "open:/dev/null"]).seen();
    assert_eq!(seen["try"]["open:/null"], "EACCES");
    assert_eq!(seen["try"]["open:/dev/null"], "ok");
}

fn last_wins(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/a", "tmpfs", "tmpfs", &["ro", "nosuid", "rw"]).mount(
        "/b",
        "tmpfs",
        "tmpfs",
        &["suid", "nosuid"],
    );
    let look = bundle.look();
    assert!(has(at(&look, "/a"), "rw") && has(at(&look, "/a"), "nosuid"));
    assert!(has(at(&look, "/b"), "nosuid"));
}

fn nosymfollow(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    symlink("file", bundle.beside("source/link")).unwrap();
    bundle.mount("/mnt", "bind", &source, &["bind", "nosymfollow"]);
    let seen = bundle.probe(&["try", "open:/mnt/link", "open:/mnt/file"]).seen();
    assert_eq!(seen["try"]["open:/mnt/link"], "ELOOP");
    assert_eq!(seen["try"]["open:/mnt/file"], "ok");
}

/// A container that binds /dev of the host, with its mounts below, with an option.
fn with_mounts_below(lab: &Lab, option: &str) -> Vec<Value> {
    let mut bundle = lab.bundle();
    bundle.mount("/all", "bind", "/dev", &["rbind", option]);
    let look = bundle.look();
    let mounts = look["mounts"].as_array().unwrap();
    let below: Vec<Value> =
        mounts.iter().filter(|mount| mount["point"].as_str().unwrap().starts_with("/all")).cloned().collect();
    assert!(below.len() > 1, "{mounts:?}");
    below
}

fn rro(lab: &Lab) {
    assert!(with_mounts_below(lab, "rro").iter().all(|mount| has(mount, "ro")));
    let plain = with_mounts_below(lab, "ro");
    assert!(plain.iter().any(|mount| has(mount, "rw")), "`ro` is about the mount itself only");
}

fn rnosuid(lab: &Lab) {
    for (option, shown) in
        [("rnosuid", "nosuid"), ("rnoexec", "noexec"), ("rnodev", "nodev"), ("rnoatime", "noatime")]
    {
        assert!(with_mounts_below(lab, option).iter().all(|mount| has(mount, shown)), "{option}");
    }
}

fn unknown_option(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["gty_unknown=1"]);
    bundle.create().refused();
}

fn tmpcopyup(lab: &Lab) {
    let mut bundle = lab.bundle();
    fs::write(bundle.root("/etc/kept"), "text").unwrap();
    bundle.mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let seen = bundle.probe(&["look", "--", "read", "/etc/kept", "--", "try", "create:/etc/new"]).seen();
    assert_eq!(at(&seen["look"], "/etc")["type"], "tmpfs");
    assert_eq!(seen["read"]["/etc/kept"], "text");
    assert_eq!(seen["try"]["create:/etc/new"], "ok");
    assert!(!bundle.root("/etc/new").exists());
}

fn propagation(lab: &Lab, options: &[&str]) -> String {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    let all: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
    bundle.mount("/mnt", "bind", &source, &all);
    let look = bundle.look();
    at(&look, "/mnt")["propagation"].to_string()
}

fn private(lab: &Lab) {
    assert_eq!(propagation(lab, &["private"]), "[]");
    assert_eq!(propagation(lab, &["rprivate"]), "[]");
}

fn shared(lab: &Lab) {
    assert!(propagation(lab, &["shared"]).contains("shared:"));
    assert!(propagation(lab, &["rshared"]).contains("shared:"));
}

fn slave(lab: &Lab) {
    // A mount without a master of its own cannot be a slave: the host's is made shared first, in a namespace of its own.
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/mnt", "bind", &source, &["bind", "rslave"]);
    bundle.probe(&["look"]).save();
    let mut command = std::process::Command::new("/usr/bin/unshare");
    command.args(["--mount", "--propagation", "shared"]).arg(&lab.program).args(["--root"]);
    command.arg(bundle.beside("state")).args(["run", &bundle.id]).current_dir(bundle.path());
    let seen = crate::bundle::parse(&bundle.finish(command.stdin(std::process::Stdio::null())).ok());
    let of_mount = at(&seen["look"], "/mnt")["propagation"].to_string();
    assert!(of_mount.contains("master:") && !of_mount.contains("shared:"), "{of_mount}");
}

fn unbindable(lab: &Lab) {
    assert!(propagation(lab, &["unbindable"]).contains("unbindable"));
    assert!(propagation(lab, &["runbindable"]).contains("unbindable"));
}

fn idmap(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    let map = json!([{ "containerID": 0, "hostID": 3000, "size": 1000 }]);
    bundle.mount_as(json!({
        "destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "idmap"],
        "uidMappings": map, "gidMappings": map,
    }));
    let seen = bundle.probe(&["stat", "/mnt/file"]).seen();
    assert_eq!(seen["stat"]["/mnt/file"]["uid"], 3000);
    assert_eq!(seen["stat"]["/mnt/file"]["gid"], 3000);
}

fn mqueue(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
    assert_eq!(at(&bundle.look(), "/dev/mqueue")["type"], "mqueue");
}

fn sysfs(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    let look = bundle.look();
    assert_eq!(at(&look, "/sys")["type"], "sysfs");
    assert!(has(at(&look, "/sys"), "ro"));
}

fn nothing_stays(lab: &Lab) {
    let mut bundle = lab.bundle();
    let source = host_folder(&bundle);
    bundle.mount("/mnt", "bind", &source, &["bind", "rshared"]);
    bundle.waiting(&[]);
    let of_host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!of_host.contains(&bundle.path().to_string_lossy().into_owned()), "{of_host}");
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
}
