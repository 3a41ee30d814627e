//! `checkpoint` and `restore`, with a stand-in for criu, which does not work on every kernel. Needs root.

mod harness;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

use harness::{Sandbox, await_that, leftovers, text};

/// Writes down what it is asked; ends what it is to freeze, and makes a process for what it is to bring back.
const STAND_IN: &str = r#"#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
command=$1
while [ $# -gt 0 ]; do
    case $1 in
        --images-dir) images=$2 ;;
        --tree) tree=$2 ;;
        --pidfile) pidfile=$2 ;;
    esac
    shift
done
case $command in
    dump) touch "$images/inventory.img"; kill -KILL "$tree" ;;
    restore)
        [ -e "$images/inventory.img" ] || { echo "(00.1) Error (criu/image.c): no inventory" > "$images/restore.log"; exit 1; }
        setsid sh -c 'echo $$ > "$0"; exec sleep 1000' "$pidfile" &
        while [ ! -s "$pidfile" ]; do :; done ;;
esac
"#;

fn stand_in(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.path("criu");
    fs::write(&path, STAND_IN).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_container_is_frozen_deleted_and_brought_back() {
    let sandbox = Sandbox::script("exec sleep 1000");
    let criu = stand_in(&sandbox);
    let (criu, images) = (criu.to_str().unwrap(), sandbox.path("images"));
    let images = images.to_str().unwrap();
    assert!(sandbox.create().status.success());
    let early = sandbox.output(&["--criu", criu, "checkpoint", "--image-path", images, &sandbox.id]);
    assert!(text(&early.stderr).contains("it is created"), "{}", text(&early.stderr));
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let dumped = sandbox.output(&[
        "--criu",
        criu,
        "checkpoint",
        "--image-path",
        images,
        "--tcp-established",
        "--empty-ns",
        "network",
        &sandbox.id,
    ]);
    assert!(dumped.status.success(), "{}", text(&dumped.stderr));
    assert!(leftovers(&sandbox).is_empty());
    let asked = || fs::read_to_string(sandbox.path("asked")).unwrap();
    assert!(asked().contains("--tcp-established") && asked().contains("--empty-ns net"), "{}", asked());
    assert!(
        asked().contains(&format!("--freeze-cgroup /sys/fs/cgroup/freezer/gantry-test/{}", sandbox.id)),
        "{}",
        asked()
    );
    let pid_file = sandbox.path("pid");
    let status = sandbox
        .command(&["--criu", criu, "restore", "--detach", "--image-path", images, "--pid-file"])
        .arg(&pid_file)
        .arg(&sandbox.id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(asked().contains(&format!("--cgroup-root /gantry-test/{}", sandbox.id)), "{}", asked());
    assert_eq!(sandbox.state()["status"], "running");
    assert_eq!(sandbox.state()["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_restore_in_the_foreground_ends_with_the_container() {
    let sandbox = Sandbox::script("exec sleep 1000");
    sandbox.save();
    let criu = stand_in(&sandbox);
    let images = sandbox.path("images");
    fs::create_dir(&images).unwrap();
    fs::write(images.join("inventory.img"), "").unwrap();
    let mut restore = sandbox
        .command(&[
            "--criu",
            criu.to_str().unwrap(),
            "restore",
            "--image-path",
            images.to_str().unwrap(),
            &sandbox.id,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    await_that("the container", || sandbox.state()["status"] == "running");
    assert!(sandbox.output(&["kill", &sandbox.id, "KILL"]).status.success());
    assert_eq!(restore.wait().unwrap().code(), Some(137));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn without_criu_without_images_and_with_its_errors_the_reason_is_told_and_nothing_is_left() {
    let sandbox = Sandbox::script("exec sleep 1000");
    let criu = stand_in(&sandbox);
    let criu = criu.to_str().unwrap();
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let images = sandbox.path("images");
    let images = images.to_str().unwrap();
    let missing =
        sandbox.output(&["--criu", "/nonexistent/criu", "checkpoint", "--image-path", images, &sandbox.id]);
    assert!(text(&missing.stderr).contains("need CRIU"), "{}", text(&missing.stderr));
    // The container goes on.
    assert_eq!(sandbox.state()["status"], "running");
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    let failed = sandbox.output(&["--criu", criu, "restore", "--image-path", images, &sandbox.id]);
    assert!(text(&failed.stderr).contains("no inventory"), "{}", text(&failed.stderr));
    assert!(leftovers(&sandbox).is_empty());
    let nowhere = sandbox.output(&["--criu", criu, "restore", "--image-path", "/nonexistent", &sandbox.id]);
    assert!(text(&nowhere.stderr).contains("there are no images"), "{}", text(&nowhere.stderr));
}
