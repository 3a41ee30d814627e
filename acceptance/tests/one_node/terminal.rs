//! Terminals: `docker run -it` and `docker exec -it` under a real pseudo-terminal made by script(1).

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("run_it_has_a_terminal_of_the_right_size", run_it_has_a_terminal_of_the_right_size),
    ("exec_it_has_a_terminal", exec_it_has_a_terminal),
    ("detach_keys_leave_it_running", detach_keys_leave_it_running),
];

/// Runs a docker line under a terminal of 33 rows and 101 columns with this typed into it.
fn typed(nodes: &Nodes, line: &str, input: &[u8]) -> (i32, String) {
    let docker = nodes.docker(1);
    let command = docker.command(line.split_whitespace());
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| format!("'{}'", w.to_string_lossy()))
        .collect();
    // An end for a terminal that nobody leaves.
    let mut script = Command::new("timeout");
    script.args(["20", "script"]);
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => script.env(key, value),
            None => script.env_remove(key),
        };
    }
    let shell = format!("stty rows 33 cols 101; {}", words.join(" "));
    let mut child = script
        .args(["-q", "-e", "-c", &shell, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start script: {e}"));
    let mut stdin = child.stdin.take().unwrap_or_else(|| panic!("script has no stdin"));
    let mut stdout = child.stdout.take().unwrap_or_else(|| panic!("script has no stdout"));
    // Keys that are typed before the client has made its terminal raw would be the line discipline's: wait for the prompt.
    let mut seen = Vec::new();
    let mut buffer = [0u8; 4096];
    while !seen.windows(2).any(|pair| pair == b"# ") {
        match stdout.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
        }
    }
    stdin.write_all(input).unwrap_or_else(|e| panic!("type: {e}"));
    stdout.read_to_end(&mut seen).unwrap_or_else(|e| panic!("read the terminal: {e}"));
    let status = child.wait().unwrap_or_else(|e| panic!("wait for script: {e}"));
    drop(stdin);
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&seen).into_owned())
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
