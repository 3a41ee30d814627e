//! `process.terminal`: a pseudo-terminal, its size, and the way it is handed over.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use serde_json::json;

use crate::bundle::{self, Bundle};
use crate::lab::Lab;
use crate::receiver::Receiver;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property(
        "config/process/terminal/false",
        "without a terminal the standard descriptors are the runtime's",
        none,
    ),
    property(
        "config/process/terminal/true",
        "the program has a pseudo-terminal of the container's devpts",
        terminal,
    ),
    property(
        "config/process/terminal/controlling",
        "it is the controlling terminal of a new session",
        controlling,
    ),
    property("config/process/terminal/console", "/dev/console is the terminal", console),
    property(
        "config/process/terminal/socket_needed",
        "`create` with a terminal needs a console socket",
        socket_needed,
    ),
    property(
        "config/process/terminal/socket_unneeded",
        "a console socket without a terminal is refused",
        socket_unneeded,
    ),
    property("config/process/terminal/owner", "the terminal belongs to the user of the process", owner),
    property("config/process/consoleSize", "the terminal has the size of `consoleSize`", size),
];

fn none(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = bundle.waiting(&["look"]);
    assert!(seen["look"]["terminal"].is_null());
    for (number, file) in [("1", "container.out"), ("2", "container.err")] {
        assert!(seen["look"]["fds"][number].as_str().unwrap().ends_with(file), "{}", seen["look"]["fds"]);
    }
}

/// Runs the steps under a terminal, and returns its first line of JSON.
fn under_terminal(bundle: &mut Bundle, steps: &[&str]) -> serde_json::Value {
    bundle.config["process"]["terminal"] = true.into();
    bundle.probe(&[steps, &["--", "wait"]].concat());
    let receiver = Receiver::listen(&bundle.beside("console"));
    let socket = receiver.path.to_string_lossy().into_owned();
    bundle.create_with(&["--console-socket", &socket]).ok();
    let master = receiver.receive().descriptors.pop().expect("the master of the terminal");
    bundle.runtime(&["start", &bundle.id]).ok();
    bundle::parse(&first_line(master))
}

fn first_line(master: OwnedFd) -> String {
    let mut master = File::from(master);
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while !text.contains(&b'\n') {
        crate::receiver::await_readable(&master, "a line from the terminal");
        let count = master.read(&mut piece).expect("read the terminal");
        text.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn terminal(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = under_terminal(&mut bundle, &["look"]);
    let name = seen["look"]["terminal"]["name"].as_str().expect("a terminal");
    assert!(name == "/dev/console" || name.starts_with("/dev/pts/"), "{name}");
    for number in ["0", "1", "2"] {
        assert!(
            seen["look"]["fds"][number].as_str().unwrap().starts_with("/dev/"),
            "{}",
            seen["look"]["fds"]
        );
    }
}

fn controlling(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = under_terminal(&mut bundle, &["look", "--", "try", "open:/dev/tty"]);
    assert_eq!(seen["look"]["sessionLeader"], true);
    assert_eq!(seen["try"]["open:/dev/tty"], "ok");
}

fn console(lab: &Lab) {
    let mut bundle = lab.bundle();
    let seen = under_terminal(&mut bundle, &["stat", "/dev/console"]);
    assert_eq!(seen["stat"]["/dev/console"]["type"], "c");
    // Pseudo-terminals have major number 136 (Documentation/admin-guide/devices.txt).
    assert_eq!(seen["stat"]["/dev/console"]["major"], 136);
}

fn socket_needed(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["terminal"] = true.into();
    bundle.create().refused();
}

fn socket_unneeded(lab: &Lab) {
    let bundle = lab.bundle();
    let receiver = Receiver::listen(&bundle.beside("console"));
    bundle.create_with(&["--console-socket", &receiver.path.to_string_lossy()]).refused();
}

fn owner(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let seen = under_terminal(&mut bundle, &["stat", "/dev/console", "--", "try", "write:/dev/console"]);
    assert_eq!(seen["stat"]["/dev/console"]["uid"], 1000);
    assert_eq!(seen["try"]["write:/dev/console"], "ok");
}

fn size(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["consoleSize"] = json!({ "height": 33, "width": 101 });
    let seen = under_terminal(&mut bundle, &["look"]);
    assert_eq!(seen["look"]["terminal"]["rows"], 33);
    assert_eq!(seen["look"]["terminal"]["columns"], 101);
}
