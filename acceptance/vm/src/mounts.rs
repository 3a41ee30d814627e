//! Mounts that the guest can show: the container's own control group, ids mapped on ext4, overlay.

use crate::Case;
use crate::container::{Container, finish};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

/// The checks.
pub const CASES: &[Case] = &[
    ("the_group_is_mounted_as_version_2", group_is_mounted),
    ("ids_are_mapped_on_a_bind_mount_of_ext4", ids_are_mapped),
    ("ids_are_mapped_with_the_containers_own_namespace", ids_with_user_namespace),
    ("a_root_on_overlay_works", overlay_root),
];

fn group_is_mounted() {
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/x 2>/dev/null && echo writable; \
                  while read -r dev at kind rest; do [ $at = /sys/fs/cgroup ] && echo $kind; done < /proc/mounts; true";
    let container = Container::script(script).limited(json!({"pids": {"limit": 44}}));
    assert_eq!(container.output(), "0::/\n44\ncgroup2");
}

/// The guest's disk, mounted once, with a folder of this name that holds one file of user 1000.
fn folder_on_disk(name: &str) -> String {
    let disk = "/mnt-ext4";
    if !fs::exists(format!("{disk}/lost+found")).unwrap_or(false) {
        fs::create_dir_all(disk).unwrap_or_else(|e| panic!("make {disk}: {e}"));
        let mounted = finish(Command::new("mount").args(["-t", "ext4", "/dev/vda", disk]));
        assert_eq!(mounted.code, 0, "mount the disk: {}", mounted.err);
    }
    let folder = format!("{disk}/{name}");
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("make {folder}: {e}"));
    let file = format!("{folder}/file");
    fs::write(&file, "on disk\n").unwrap_or_else(|e| panic!("write {file}: {e}"));
    chown(&file, Some(1000), Some(1000)).unwrap_or_else(|e| panic!("chown {file}: {e}"));
    chown(&folder, Some(1000), Some(1000)).unwrap_or_else(|e| panic!("chown {folder}: {e}"));
    folder
}

fn ids_are_mapped() {
    let folder = folder_on_disk("mapped");
    let mut container = Container::script("stat -c %u:%g /v/file; touch /v/made; stat -c %u /v/made");
    // Ids on disk from 1000 on are shown from 0 on (mount_setattr(2), "ID mappings").
    let map = json!([{"containerID": 1000, "hostID": 0, "size": 1000}]);
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        mounts.push(json!({
            "destination": "/v", "type": "bind", "source": folder, "options": ["rbind", "rw"],
            "uidMappings": map, "gidMappings": map,
        }));
    }
    assert_eq!(container.output(), "0:0\n0");
    let made = fs::metadata(format!("{folder}/made")).unwrap_or_else(|e| panic!("made: {e}"));
    assert_eq!((made.uid(), made.gid()), (1000, 1000), "what root made belongs to 1000 on disk");
}

fn ids_with_user_namespace() {
    let folder = folder_on_disk("own");
    chown(format!("{folder}/file"), Some(7), Some(7)).unwrap_or_else(|e| panic!("chown: {e}"));
    chown(&folder, Some(0), Some(0)).unwrap_or_else(|e| panic!("chown: {e}"));
    let mut container =
        Container::script("stat -c %u:%g /v/file /plain/file; touch /v/made && stat -c %u /v/made");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    container.config["linux"]["uidMappings"] = map.clone();
    container.config["linux"]["gidMappings"] = map;
    if let Some(list) = container.config["linux"]["namespaces"].as_array_mut() {
        list.push(json!({"type": "user"}));
    }
    // Root of the namespace may not make folders in a root that belongs to the guest's.
    for name in ["v", "plain"] {
        fs::create_dir(container.path("rootfs").join(name)).unwrap_or_else(|e| panic!("make {name}: {e}"));
    }
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        mounts.push(json!({"destination": "/v", "type": "bind", "source": folder, "options": ["bind", "rw", "idmap"]}));
        mounts.push(
            json!({"destination": "/plain", "type": "bind", "source": folder, "options": ["bind", "ro"]}),
        );
    }
    // Without the mapping all are nobody's.
    assert_eq!(container.output(), "7:7\n65534:65534\n0");
    let made = fs::metadata(format!("{folder}/made")).unwrap_or_else(|e| panic!("made: {e}"));
    assert_eq!(made.uid(), 0);
}

fn overlay_root() {
    let container = Container::script("echo changed > /etc/new && cat /etc/new");
    for name in ["upper", "work", "merged"] {
        fs::create_dir(container.path(name)).unwrap_or_else(|e| panic!("make {name}: {e}"));
    }
    let at = |name: &str| container.path(name).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", at("rootfs"), at("upper"), at("work"));
    let mounted =
        finish(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, &at("merged")]));
    assert_eq!(mounted.code, 0, "{}", mounted.err);
    let merged = at("merged");
    let mut container = container;
    container.config["root"] = json!({"path": merged});
    let out = container.output();
    let unmounted = finish(Command::new("umount").arg(&merged));
    assert_eq!((out.as_str(), unmounted.code), ("changed", 0), "{}", unmounted.err);
    assert!(container.path("upper/etc/new").exists() && !container.path("rootfs/etc/new").exists());
}
