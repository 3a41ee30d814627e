//! features.md: what a runtime says of itself.

use serde_json::Value;

use crate::bundle::parse;
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties of this chapter.
pub const PROPERTIES: &[&[Property]] = &[&[
    property("features/json", "`features` prints JSON with the range of versions", versions),
    property("features/hooks", "it names the kinds of hooks, and each of them runs", hooks),
    property("features/mountOptions", "it names the options of mounts", mount_options),
    property("features/namespaces", "it names the kinds of namespaces", namespaces),
    property("features/capabilities", "it names the capabilities", capabilities),
    property("features/cgroup", "it says which cgroups it can", cgroup),
    property("features/seccomp", "it names actions, operators, architectures", seccomp),
    property("features/mountExtensions", "what it says of id-mapped mounts is true", idmap),
]];

fn features(lab: &Lab) -> Value {
    let output = lab.command().arg("features").output().expect("run features");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn assert_lists(list: &Value, names: &[&str]) {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    for name in names {
        assert!(list.contains(&(*name).into()), "{name} is missing in {list:?}");
    }
}

fn versions(lab: &Lab) {
    let features = features(lab);
    for member in ["ociVersionMin", "ociVersionMax"] {
        let version = features[member].as_str().unwrap_or_else(|| panic!("no {member}"));
        assert_eq!(version.split('.').next(), Some("1"), "{version}");
    }
}

fn hooks(lab: &Lab) {
    let all = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_lists(&features(lab)["hooks"], &all);
}

fn mount_options(lab: &Lab) {
    let list = features(lab)["mountOptions"].clone();
    assert_lists(
        &list,
        &["bind", "rbind", "ro", "rw", "nosuid", "nodev", "noexec", "rprivate", "rslave", "rshared"],
    );
    // What is promised is understood: those that make sense on any tmpfs.
    let mut bundle = lab.bundle();
    for (number, option) in list.as_array().unwrap().iter().enumerate() {
        let option = option.as_str().unwrap();
        // Not all file systems know these, or they need more than an option.
        if !matches!(
            option,
            "bind"
                | "rbind"
                | "mand"
                | "remount"
                | "idmap"
                | "ridmap"
                | "iversion"
                | "tmpcopyup"
                | "copy-symlink"
        ) {
            bundle.mount(&format!("/mnt{number}"), "tmpfs", "tmpfs", &[option]);
        }
    }
    assert_eq!(bundle.look()["pid"], 1);
}

fn namespaces(lab: &Lab) {
    assert_lists(
        &features(lab)["linux"]["namespaces"],
        &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
    );
}

fn capabilities(lab: &Lab) {
    assert_lists(
        &features(lab)["linux"]["capabilities"],
        &["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_BPF"],
    );
}

fn cgroup(lab: &Lab) {
    let cgroup = features(lab)["linux"]["cgroup"].clone();
    assert_eq!(cgroup["v1"], true);
    assert_eq!(cgroup["v2"], true);
    assert!(cgroup["systemd"].is_boolean() && cgroup["systemdUser"].is_boolean(), "{cgroup}");
}

fn seccomp(lab: &Lab) {
    let seccomp = features(lab)["linux"]["seccomp"].clone();
    assert_eq!(seccomp["enabled"], true);
    assert_lists(
        &seccomp["actions"],
        &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY"],
    );
    assert_lists(&seccomp["operators"], &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]);
    assert_lists(&seccomp["archs"], &["SCMP_ARCH_X86_64"]);
}

fn idmap(lab: &Lab) {
    let said = features(lab)["linux"]["mountExtensions"]["idmap"]["enabled"].clone();
    let mut bundle = lab.bundle();
    let source = bundle.beside("source");
    std::fs::create_dir(&source).unwrap();
    let map = serde_json::json!([{ "containerID": 0, "hostID": 3000, "size": 1000 }]);
    bundle.mount_as(serde_json::json!({
        "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"], "uidMappings": map, "gidMappings": map,
    }));
    let ended = bundle.probe(&["stat", "/mnt"]).run();
    if said == true {
        assert_eq!(parse(&ended.ok())["stat"]["/mnt"]["uid"], 3000);
    } else {
        ended.refused();
    }
}
