//! `process.user`, capabilities and what else decides about privileges.

use serde_json::{Value, json};

use crate::lab::{Lab, skip};
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property(
        "config/process/user/uid_and_gid",
        "real, effective, saved and file system ids are `uid` and `gid`",
        ids,
    ),
    property(
        "config/process/user/additionalGids",
        "supplementary groups are `additionalGids`, and no others",
        groups,
    ),
    property(
        "config/process/user/no_groups",
        "without `additionalGids` none of the runtime's groups leak in",
        no_groups,
    ),
    property("config/process/user/umask", "`umask` is set", umask),
    property("config/process/user/umask/absent", "without `umask` it is 0022", no_umask),
    property("config/process/capabilities/bounding", "the bounding set is `bounding`", bounding),
    property(
        "config/process/capabilities/effective",
        "effective and permitted sets are as configured",
        effective,
    ),
    property("config/process/capabilities/inheritable", "the inheritable set is `inheritable`", inheritable),
    property("config/process/capabilities/ambient", "an ordinary user keeps what is ambient", ambient),
    property("config/process/capabilities/absent", "without `capabilities` there are none", no_capabilities),
    property(
        "config/process/capabilities/user",
        "an ordinary user has no effective ones that are not ambient",
        of_user,
    ),
    property(
        "config/process/capabilities/unknown",
        "an unknown capability is not given, and need not be refused",
        unknown,
    ),
    property("config/process/capabilities/in_force", "what is not there is refused by the kernel", in_force),
    property("config/process/noNewPrivileges", "`noNewPrivileges` is set", no_new_privileges),
    property("config/process/noNewPrivileges/absent", "it is not set otherwise", new_privileges),
    property(
        "config/process/apparmorProfile",
        "a profile without AppArmor is refused or ignored, never half applied",
        apparmor,
    ),
    property(
        "config/process/selinuxLabel",
        "a label without SELinux does not keep the container from running",
        selinux,
    ),
];

fn ids(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1234, "gid": 5678 });
    let seen = bundle.look();
    assert_eq!(seen["uids"], json!([1234, 1234, 1234, 1234]));
    assert_eq!(seen["gids"], json!([5678, 5678, 5678, 5678]));
}

fn groups(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1, "gid": 2, "additionalGids": [5, 1000, 77] });
    let mut seen: Vec<u64> = serde_json::from_value(bundle.look()["groups"].clone()).unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [5, 77, 1000]);
}

fn no_groups(lab: &Lab) {
    assert_eq!(lab.bundle().look()["groups"], json!([]));
}

fn umask(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"]["umask"] = 0o027.into();
    let seen = bundle.probe(&["look", "--", "try", "mkdir:/made", "--", "stat", "/made"]).seen();
    assert_eq!(seen["look"]["umask"], "0027");
    assert_eq!(seen["stat"]["/made"]["mode"], "750");
}

fn no_umask(lab: &Lab) {
    assert_eq!(lab.bundle().look()["umask"], "0022");
}

fn sets(lab: &Lab, sets: Value) -> Value {
    let mut bundle = lab.bundle();
    bundle.config["process"]["capabilities"] = sets;
    bundle.look()["capabilities"].clone()
}

fn bounding(lab: &Lab) {
    let seen = sets(lab, json!({ "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYS_TIME"] }));
    assert_eq!(seen["bounding"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYS_TIME"]));
}

fn effective(lab: &Lab) {
    let some = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"]);
    let seen = sets(lab, json!({ "bounding": some, "permitted": some, "effective": some }));
    // Root's exec gives it all of its bounding set (capabilities(7)).
    assert_eq!(seen["permitted"], some);
    assert_eq!(seen["effective"], some);
    assert_eq!(seen["inheritable"], json!([]));
    assert_eq!(seen["ambient"], json!([]));
}

fn inheritable(lab: &Lab) {
    let some = json!(["CAP_CHOWN", "CAP_KILL"]);
    let seen = sets(lab, json!({ "bounding": some, "permitted": some, "inheritable": ["CAP_KILL"] }));
    assert_eq!(seen["inheritable"], json!(["CAP_KILL"]));
}

fn ambient(lab: &Lab) {
    let mut bundle = lab.bundle();
    let some = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.config["process"]["capabilities"] = json!({ "bounding": some, "permitted": some, "effective": some, "inheritable": some, "ambient": some });
    let seen = bundle.look()["capabilities"].clone();
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(seen[set], some, "{set}");
    }
}

fn no_capabilities(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"].as_object_mut().unwrap().remove("capabilities");
    let seen = bundle.look()["capabilities"].clone();
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(seen[set], json!([]), "{set}");
    }
}

fn of_user(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let seen = bundle.look()["capabilities"].clone();
    assert_eq!(seen["effective"], json!([]));
    assert_eq!(seen["bounding"], json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"]));
}

fn unknown(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["capabilities"] = json!({ "bounding": ["CAP_LUCK", "CAP_KILL"] });
    bundle.probe(&["look"]);
    let ended = bundle.run();
    if ended.code == Some(0) {
        assert_eq!(crate::bundle::parse(&ended.out)["look"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
    } else {
        assert!(ended.refused().contains("CAP_LUCK"));
    }
}

fn in_force(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen =
        bundle.probe(&["try", "sethostname:other", "mount:/tmp", "chroot:/tmp", "chown:/probe:5"]).seen();
    for call in ["sethostname:other", "mount:/tmp", "chroot:/tmp", "chown:/probe:5"] {
        assert_eq!(seen["try"][call], "EPERM", "{call}");
    }
}

fn no_new_privileges(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["noNewPrivileges"] = true.into();
    assert_eq!(bundle.look()["noNewPrivileges"], "1");
}

fn new_privileges(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["noNewPrivileges"] = false.into();
    assert_eq!(bundle.look()["noNewPrivileges"], "0");
}

fn apparmor(lab: &Lab) {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        skip("this kernel has AppArmor, and no profile is loaded for the test");
    }
    let mut bundle = lab.bundle();
    bundle.config["process"]["apparmorProfile"] = "gty-none".into();
    bundle.probe(&["look"]);
    let ended = bundle.run();
    if ended.code == Some(0) {
        assert!(!crate::bundle::parse(&ended.out)["look"]["label"].to_string().contains("gty-none"));
    } else {
        assert!(ended.refused().to_lowercase().contains("apparmor"));
    }
}

fn selinux(lab: &Lab) {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip("this kernel has SELinux, and no policy is loaded for the test");
    }
    let mut bundle = lab.bundle();
    bundle.config["process"]["selinuxLabel"] = "system_u:system_r:container_t:s0".into();
    bundle.probe(&["look"]);
    let ended = bundle.run();
    if ended.code != Some(0) {
        assert!(ended.refused().to_lowercase().contains("selinux"));
    }
}
