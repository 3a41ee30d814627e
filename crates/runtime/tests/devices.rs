//! Device nodes, and the links of /dev. Needs root.

mod harness;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink},
    process::{Command, Stdio},
};

use gantry_runtime::oci::{Device, IdMapping, Namespace, NamespaceKind};
use harness::{Sandbox, leftovers, text};

fn device(kind: &str, path: &str, numbers: Option<(i64, i64)>) -> Device {
    Device {
        kind: kind.into(),
        path: path.into(),
        major: numbers.map(|(major, _)| major),
        minor: numbers.map(|(_, minor)| minor),
        ..Device::default()
    }
}

/// Type, mode, owner and numbers of files.
fn stat(files: &str) -> String {
    format!("for f in {files}; do busybox stat -c '%F %a %u:%g %t:%T' $f; done; ")
}

fn failure(sandbox: &Sandbox) -> String {
    let output = sandbox.run();
    assert!(!output.status.success(), "{}", text(&output.stdout));
    assert!(leftovers(sandbox).is_empty());
    text(&output.stderr)
}

#[test]
fn the_default_devices_and_links_are_there() {
    let script = stat("/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty")
        + "for l in fd stdin stdout stderr ptmx; do busybox readlink /dev/$l; done; ls /dev";
    let sandbox = Sandbox::script(&script);
    let out = sandbox.stdout();
    let numbers = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
    let nodes: String = numbers.map(|number| format!("character special file 666 0:0 {number}\n")).concat();
    assert!(out.starts_with(&nodes), "{out}");
    let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert!(out.contains(links), "{out}");
    // Nothing of the host's.
    assert!(!out.contains("kmsg") && !out.contains("console"), "{out}");
}

/// Says of each standard stream whether it lies on a mount of the container (proc_pid_fdinfo(5), `mnt_id`).
const WHERE: &str = "for n in 0 1 2; do id=$(busybox sed -n 's/^mnt_id:[[:space:]]*//p' /proc/self/fdinfo/$n); \
                     busybox grep -q \"^$id \" /proc/self/mountinfo && echo $n inside; done > /seen; true";

#[test]
fn streams_that_are_the_null_device_are_the_containers_own() {
    let sandbox = Sandbox::script(&format!("{WHERE}; exec sleep 1000"));
    let null = |command: &mut Command| {
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success());
    };
    sandbox.save();
    let seen = || fs::read_to_string(sandbox.rootfs().join("seen")).unwrap_or_default();
    null(&mut sandbox.command(&["run", "--detach", &sandbox.id]));
    harness::await_that("the script", || seen().contains('2'));
    assert_eq!(seen(), "0 inside\n2 inside\n");
    fs::remove_file(sandbox.rootfs().join("seen")).unwrap();
    null(&mut sandbox.command(&["exec", &sandbox.id, "sh", "-c", WHERE]));
    assert_eq!(seen(), "0 inside\n2 inside\n");
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
}

#[test]
fn listed_devices_have_their_type_numbers_mode_and_owner() {
    let mut sandbox = Sandbox::script(
        &(stat("/dev/deep/er/c /dev/b /dev/u /dev/p /dev/null") + "cat /dev/p & echo through > /dev/p; wait"),
    );
    sandbox.linux().devices = vec![
        Device {
            file_mode: Some(0o640),
            uid: Some(33),
            gid: Some(44),
            ..device("c", "/dev/deep/er/c", Some((1, 5)))
        },
        Device { file_mode: Some(0o060600), ..device("b", "/dev/b", Some((7, 300))) },
        device("u", "/dev/u", Some((1, 7))),
        Device { file_mode: Some(0o622), ..device("p", "/dev/p", None) },
        // In place of the default one.
        Device { file_mode: Some(0o600), ..device("c", "/dev/null", Some((1, 3))) },
    ];
    assert_eq!(
        sandbox.stdout(),
        "character special file 640 33:44 1:5\nblock special file 600 0:0 7:12c\ncharacter special file 666 0:0 1:7\n\
         fifo 622 0:0 0:0\ncharacter special file 600 0:0 1:3\nthrough\n"
    );
}

#[test]
fn devices_that_cannot_be_are_refused() {
    for (bad, words) in [
        (device("x", "/dev/x", Some((1, 1))), "/dev/x has unknown type \"x\""),
        (device("c", "/dev/x", None), "/dev/x has no major number"),
        (device("c", "/dev/x", Some((1, -1))), "/dev/x has no minor number"),
        (device("c", "dev/x", Some((1, 1))), "dev/x is not an absolute path"),
    ] {
        let mut sandbox = Sandbox::script("true");
        sandbox.linux().devices = vec![bad];
        let error = failure(&sandbox);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn an_existing_node_is_kept_when_it_matches_and_refused_when_not() {
    // The root itself is the place: no tmpfs over /dev.
    let rootfs_dev = |sandbox: &mut Sandbox| {
        sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        sandbox.rootfs().join("dev")
    };
    let mut sandbox = Sandbox::script(&stat("/dev/null /dev/own"));
    let dev = rootfs_dev(&mut sandbox);
    for name in ["null", "own"] {
        assert!(
            Command::new("mknod")
                .args(["-m", "604"])
                .arg(dev.join(name))
                .args(["c", "1", "3"])
                .status()
                .unwrap()
                .success()
        );
    }
    sandbox.linux().devices = vec![device("c", "/dev/own", Some((1, 3)))];
    assert_eq!(sandbox.stdout(), "character special file 604 0:0 1:3\n".repeat(2));
    for other in ["regular file", "other numbers", "link"] {
        let mut sandbox = Sandbox::script("true");
        let dev = rootfs_dev(&mut sandbox);
        let place = dev.join("zero");
        match other {
            "regular file" => fs::write(&place, "content").unwrap(),
            "link" => symlink("/etc/passwd", &place).unwrap(),
            _ => assert!(Command::new("mknod").arg(&place).args(["c", "1", "3"]).status().unwrap().success()),
        }
        let error = failure(&sandbox);
        assert!(error.contains("create device /dev/zero: replace another file"), "{other}: {error}");
        assert!(!fs::symlink_metadata(&place).unwrap().file_type().is_block_device());
    }
}

#[test]
fn an_image_has_no_terminals_of_the_hosts() {
    let mut sandbox = Sandbox::script("busybox readlink /dev/ptmx");
    sandbox.spec.mounts.retain(|mount| mount.destination != "/dev");
    let dev = sandbox.rootfs().join("dev");
    assert!(Command::new("mknod").arg(dev.join("ptmx")).args(["c", "5", "2"]).status().unwrap().success());
    assert_eq!(sandbox.stdout(), "pts/ptmx\n");
}

#[test]
fn a_user_namespace_shows_the_hosts_devices_and_makes_fifos() {
    let mut sandbox = Sandbox::script("true");
    sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    let map = IdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
    sandbox.linux().uid_mappings = vec![map];
    sandbox.linux().gid_mappings = vec![map];
    let rootfs = sandbox.rootfs();
    for folder in rootfs.ancestors().take(3) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["", "dev", "proc", "sys", "tmp"] {
        chown(rootfs.join(name), Some(100_000), Some(100_000)).unwrap();
    }
    sandbox.linux().devices = vec![device("p", "/dev/p", None), device("c", "/dev/full", Some((1, 7)))];
    let script =
        stat("/dev/null /dev/full /dev/p") + "echo x > /dev/null && busybox head -c 3 /dev/zero | wc -c";
    sandbox.process().args[2] = script;
    // The host's owner has no number inside.
    assert_eq!(
        sandbox.stdout(),
        "character special file 666 65534:65534 1:3\ncharacter special file 666 65534:65534 1:7\nfifo 666 0:0 0:0\n3\n"
    );
    // What has the name on the host must be the device that is meant.
    sandbox.linux().devices = vec![device("c", "/dev/full", Some((1, 5)))];
    assert!(
        failure(&sandbox).contains("/dev/full of the host, which a user namespace shows, is another device")
    );
}

#[test]
fn the_hosts_dev_is_left_as_it_is() {
    let mut sandbox = Sandbox::script("echo x > /dev/null; ls /dev | wc -l");
    sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    sandbox.spec.mounts.push(gantry_runtime::oci::Mount {
        destination: "/dev/".into(),
        kind: Some("bind".into()),
        source: Some("/dev".into()),
        options: vec!["rbind".into()],
        ..Default::default()
    });
    sandbox.linux().devices = vec![device("c", "/dev/gty-made", Some((1, 5)))];
    assert!(sandbox.run().status.success());
    assert!(!fs::exists("/dev/gty-made").unwrap());
}
