//! Descriptors and signals that a program starts with.

use std::fs::File;
use std::os::fd::AsRawFd;

use serde_json::Value;

use crate::bundle::{Bundle, parse};
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("runtime/descriptors/three", "the program has descriptors 0, 1 and 2, and no others", three),
    property("runtime/descriptors/not_inherited", "descriptors of the caller do not leak in", not_inherited),
    property("runtime/descriptors/preserve", "`--preserve-fds` keeps as many as it says", preserve),
    property("runtime/descriptors/exec", "exec has no others either", of_exec),
    property("runtime/signals/default", "no signal is ignored or blocked", signals),
    property("runtime/stdio", "standard output and error are those of the caller", stdio),
    property(
        "runtime/environment/host_name_of_files",
        "nothing of the host's files is open",
        nothing_of_host,
    ),
];

fn numbers(look: &Value) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        look["fds"].as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn three(lab: &Lab) {
    assert_eq!(numbers(&lab.bundle().look()), [0, 1, 2]);
}

/// A command that starts the runtime with two more descriptors, 3 and 4; as a shell does it.
fn with_descriptors(bundle: &Bundle, lab: &Lab, words: &str) -> Value {
    bundle.save();
    let script = format!(
        "exec 3</etc/hostname 4</etc/hosts; exec {} --root {} {words} {}",
        lab.program.display(),
        bundle.beside("state").display(),
        bundle.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script]).current_dir(bundle.path()).stdin(std::process::Stdio::null());
    parse(&bundle.finish(&mut command).ok())["look"].clone()
}

fn not_inherited(lab: &Lab) {
    let bundle = lab.bundle();
    assert_eq!(numbers(&with_descriptors(&bundle, lab, "run")), [0, 1, 2]);
}

fn preserve(lab: &Lab) {
    let bundle = lab.bundle();
    let look = with_descriptors(&bundle, lab, "run --preserve-fds 1");
    assert_eq!(numbers(&look), [0, 1, 2, 3]);
    assert_eq!(look["fds"]["3"], "/etc/hostname");
}

fn of_exec(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    assert_eq!(numbers(&bundle.exec_seen(&[], &["look"])["look"]), [0, 1, 2]);
}

fn signals(lab: &Lab) {
    let mut bundle = lab.bundle();
    // 1 to 31: the two after them belong to the C library (nptl(7)).
    let mask = |text: &Value| u64::from_str_radix(text.as_str().unwrap(), 16).unwrap() & 0x7fff_ffff;
    // The probe itself ignores SIGPIPE (13: signal(7)), as every program of Rust does.
    let look = bundle.look();
    assert_eq!(mask(&look["signals"]["SigIgn"]) & !(1 << 12), 0, "{}", look["signals"]);
    assert_eq!(mask(&look["signals"]["SigBlk"]), 0, "{}", look["signals"]);
}

fn stdio(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["args"] =
        serde_json::json!(["/bin/busybox", "sh", "-c", "cat; echo on standard error >&2"]);
    bundle.config["process"]["env"] = serde_json::json!(["PATH=/bin"]);
    std::fs::hard_link(bundle.root("/bin/busybox"), bundle.root("/bin/cat")).unwrap();
    bundle.save();
    let input = bundle.beside("input");
    std::fs::write(&input, "on standard input").unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    let ended = bundle.finish(command.stdin(File::open(&input).unwrap()));
    assert!(ended.err.contains("on standard error"), "{}", ended.err);
    assert_eq!(ended.ok(), "on standard input");
}

fn nothing_of_host(lab: &Lab) {
    let mut bundle = lab.bundle();
    let secret = bundle.beside("secret");
    std::fs::write(&secret, "text").unwrap();
    // Open in this process, and not closed on exec would be needed for a leak: the runtime must not make one of its own.
    let open = File::open(&secret).unwrap();
    assert!(open.as_raw_fd() > 2);
    let look = bundle.look();
    let text = look["fds"].to_string();
    assert!(!text.contains("config.json") && !text.contains("state") && !text.contains("secret"), "{text}");
}
