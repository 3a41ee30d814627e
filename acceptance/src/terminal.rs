//! A person at a terminal: a command under a real pseudo-terminal made by script(1), with something typed into it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Runs a command under a terminal of 33 rows and 101 columns, types this after the prompt of its shell, and gives exit code and screen.
///
/// The words of the command must not hold single quotes.
pub fn typed(command: &Command, input: &[u8]) -> (i32, String) {
    typed_at(command, "# ", input)
}

/// The same for a command with another prompt; an empty one is not waited for.
pub fn typed_at(command: &Command, prompt: &str, input: &[u8]) -> (i32, String) {
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
    while !String::from_utf8_lossy(&seen).contains(prompt) {
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
