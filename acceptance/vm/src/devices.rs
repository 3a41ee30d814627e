//! Devices on version 2: a BPF program at the group decides.

use crate::Case;
use crate::container::{Container, disk};
use serde_json::{Value, json};

/// The checks.
pub const CASES: &[Case] = &[
    ("default_devices_work_and_others_are_refused", default_devices),
    ("a_rule_gives_rights_one_by_one", rights_one_by_one),
    ("a_later_rule_wins", later_rule_wins),
    ("an_exec_is_filtered_too", exec_is_filtered),
];

/// Opens the disk for reading and for writing.
const TRY: &str = "(: < /n) 2>/dev/null && echo read; (: >> /n) 2>/dev/null && echo write; true";

fn tried(rules: &Value) -> String {
    let (major, minor) = disk();
    let container = Container::script(&format!("mknod /n b {major} {minor} || echo no node; {TRY}"));
    container.limited(json!({ "devices": rules })).output()
}

fn default_devices() {
    let script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; test -c /dev/ptmx && echo ptmx";
    assert_eq!(Container::script(script).output(), "4\n4\nptmx");
    let (major, minor) = disk();
    // Nodes may be made everywhere, as Docker's and runc's defaults have it; opening them is what is refused.
    let script = format!("mknod /n b {major} {minor} && echo made; {TRY}");
    assert_eq!(Container::script(&script).output(), "made");
}

fn rule(allow: bool, access: &str) -> Value {
    let (major, minor) = disk();
    json!({"allow": allow, "type": "b", "major": major, "minor": minor, "access": access})
}

fn everything(allow: bool) -> Value {
    json!({"allow": allow, "access": "rwm"})
}

fn rights_one_by_one() {
    assert_eq!(tried(&json!([everything(false), rule(true, "rm")])), "read");
    assert_eq!(tried(&json!([everything(false), rule(true, "wm")])), "write");
    assert_eq!(tried(&json!([everything(false), rule(true, "rwm")])), "read\nwrite");
}

fn later_rule_wins() {
    assert_eq!(tried(&json!([everything(true), rule(false, "w")])), "read");
    let any_minor = json!({"allow": true, "type": "b", "major": disk().0, "access": "rwm"});
    assert_eq!(tried(&json!([everything(false), any_minor])), "read\nwrite");
    assert_eq!(tried(&json!([everything(false), rule(false, "w"), everything(true)])), "read\nwrite");
}

fn exec_is_filtered() {
    let container = Container::sleeper();
    container.start();
    assert_eq!(container.exec("echo x > /dev/null").code, 0);
    let (major, minor) = disk();
    assert_eq!(container.exec(&format!("mknod /n b {major} {minor}; {TRY}")).out, "");
}
