//! Terminals: `docker run -it` and `docker exec -it` under a real pseudo-terminal made by script(1).

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::terminal;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("run_it_has_a_terminal_of_the_right_size", run_it_has_a_terminal_of_the_right_size),
    ("exec_it_has_a_terminal", exec_it_has_a_terminal),
    ("detach_keys_leave_it_running", detach_keys_leave_it_running),
];

/// Runs a docker line under a terminal with this typed into it.
fn typed(nodes: &Nodes, line: &str, input: &[u8]) -> (i32, String) {
    terminal::typed(&nodes.docker(1).command(line.split_whitespace()), input)
}

fn run_it_has_a_terminal_of_the_right_size(nodes: &Nodes) {
    let (code, out) =
        typed(nodes, &format!("run -it --rm {IMAGE} sh"), b"tty; stty size; echo $((40+2)); exit 11\n");
    assert_eq!(code, 11, "{out}");
    assert!(out.contains("/dev/pts/0") && out.contains("33 101") && out.contains("42"), "{out}");
}

fn exec_it_has_a_terminal(nodes: &Nodes) {
    nodes.docker(1).ok(&format!("run -d --name screen {IMAGE} sleep 300"));
    let (code, out) = typed(nodes, "exec -it screen sh", b"tty && stty size; exit 12\n");
    assert_eq!(code, 12, "{out}");
    assert!(out.contains("/dev/pts/") && out.contains("33 101"), "{out}");
    nodes.docker(1).ok("rm -f screen");
}

fn detach_keys_leave_it_running(nodes: &Nodes) {
    let (_, out) = typed(nodes, &format!("run -it --name left {IMAGE} sh"), b"\x10\x11");
    let seen = nodes.docker(1).inspect("left");
    assert_eq!(seen["State"]["Status"], "running", "{out}");
    nodes.docker(1).ok("rm -f left");
}
