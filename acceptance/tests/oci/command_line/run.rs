//! `create` and `run`: exit codes and options.

use std::fs;

use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("command/run/exit_code", "`run` ends with the program's exit code", exit_code),
    property("command/run/signal", "`run` ends with 128 and the signal that ended the program", signal),
    property("command/run/deletes", "`run` deletes the container at the end", deletes),
    property("command/run/keep", "`run --keep` does not", keep),
    property("command/run/detach", "`run --detach` returns while the program runs", detach),
    property("command/run/bundle", "`--bundle` names the bundle", bundle_option),
    property("command/run/forwards_signals", "`run` passes signals on to the program", forwards),
    property("command/create/pid_file", "`--pid-file` holds the pid of the first process", pid_file),
    property("command/create/no_pivot", "`--no-pivot` works without pivot_root", no_pivot),
    property("command/create/new_keyring", "a container has a session keyring of its own", keyring),
    property("command/create/no_new_keyring", "`--no-new-keyring` leaves it the caller's", no_keyring),
    property("command/create/no_id", "a missing id is refused", no_id),
];

fn exit_code(lab: &Lab) {
    let mut bundle = lab.bundle();
    for code in [0, 1, 42, 255] {
        assert_eq!(bundle.probe(&["exit", &code.to_string()]).run().code, Some(code));
    }
}

fn signal(lab: &Lab) {
    let mut bundle = lab.bundle();
    // Process 1 of a namespace is not killed by itself: a child of a shell is, and the shell says so.
    bundle.without_namespace("pid");
    bundle.config["process"]["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(bundle.run().code, Some(137));
}

fn deletes(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["exit", "0"]).run().ok();
    assert!(bundle.state().is_null());
    assert!(!lab.cgroup("pids", &bundle.id).exists());
}

fn keep(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["exit", "0"]).save();
    bundle.runtime(&["run", "--keep", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "stopped");
}

fn detach(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["wait"]).save();
    bundle.runtime(&["run", "--detach", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "running");
}

fn bundle_option(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["look"]).save();
    let path = bundle.path().to_string_lossy().into_owned();
    let mut command = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    let printed = bundle.finish(command.current_dir("/")).ok();
    assert_eq!(crate::bundle::parse(&printed)["look"]["pid"], 1);
}

fn forwards(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["try", "create:/ready", "--", "wait"]).save();
    let mut command = bundle.command(&["run", &bundle.id]);
    let file = fs::File::create(bundle.beside("out")).unwrap();
    let mut child = command.stdout(file).spawn().unwrap();
    crate::bundle::await_value("the probe to be ready", || {
        fs::read_to_string(bundle.beside("out")).ok().filter(|text| text.contains("try"))
    });
    let pidfd = gantry_linux::process::pidfd(child.id().cast_signed()).unwrap();
    gantry_linux::process::signal(std::os::fd::AsFd::as_fd(&pidfd), 15).unwrap();
    crate::receiver::await_readable(&pidfd, "the end of run");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

fn pid_file(lab: &Lab) {
    let mut bundle = lab.bundle();
    let file = bundle.beside("pid").to_string_lossy().into_owned();
    bundle.probe(&["wait"]).create_with(&["--pid-file", &file]).ok();
    assert_eq!(fs::read_to_string(file).unwrap(), bundle.pid().to_string());
}

fn no_pivot(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["look", "--", "list", "/", "/.."]).save();
    let seen = crate::bundle::parse(&bundle.runtime(&["run", "--no-pivot", &bundle.id]).ok());
    assert_eq!(seen["look"]["pid"], 1);
    assert_eq!(seen["list"]["/"], seen["list"]["/.."]);
    assert!(seen["list"]["/"].as_array().unwrap().contains(&"probe".into()));
}

fn session_keyrings(text: &serde_json::Value) -> Vec<String> {
    let lines = text.as_str().unwrap_or_default().lines();
    lines.filter(|line| line.contains(" keyring ")).map(str::to_owned).collect()
}

fn keyring(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.look();
    let rings = session_keyrings(&seen["keys"]);
    assert!(rings.iter().any(|ring| ring.contains(&bundle.id)), "{rings:?}");
}

fn no_keyring(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["look"]).save();
    let seen = crate::bundle::parse(&bundle.runtime(&["run", "--no-new-keyring", &bundle.id]).ok());
    let rings = session_keyrings(&seen["look"]["keys"]);
    assert!(!rings.iter().any(|ring| ring.contains(&bundle.id)), "{rings:?}");
}

fn no_id(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.save();
    bundle.runtime(&["create"]).refused();
}
