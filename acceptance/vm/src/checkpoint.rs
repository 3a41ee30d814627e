//! `checkpoint` and `restore` with Debian's criu: a program goes on where it was, with what was around it.

use crate::Case;
use crate::container::{Container, finish, until};
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The checks.
pub const CASES: &[Case] = &[
    ("this_kernel_has_what_criu_needs", criu_works),
    ("a_container_goes_on_where_it_was", goes_on),
    ("limits_masks_and_binds_are_there_again", surroundings),
    ("a_container_that_is_left_running_runs_on", left_running),
    ("memory_is_dumped_ahead_and_the_rest_refers_to_it", ahead),
    ("a_restore_in_the_foreground_ends_with_the_container", foreground),
    ("pipes_are_replaced_by_those_of_the_restorer", pipes),
    ("a_paused_container_is_frozen_to_files", paused),
    ("ids_of_a_user_namespace_are_mapped_again", user_namespace),
    ("a_connection_goes_on", connection),
    ("a_terminal_is_handed_to_the_console_socket", terminal),
    ("a_terminal_is_joined_to_a_restore_in_the_foreground", terminal_in_foreground),
    ("a_restore_that_fails_says_why_and_leaves_nothing", failure),
];

/// Counts in memory alone: what it writes says how far it is.
const COUNTER: &str = "i=0; while true; do i=$((i + 1)); echo $i > /tmp/count; sleep 0.1; done";

/// Keeps its count by the lines that it reads.
const ECHO: &str = "i=0; while read line; do i=$((i + 1)); echo \"line $i is $line\"; done";

fn criu_works() {
    let answer = finish(Command::new("criu").arg("check"));
    assert_eq!(answer.code, 0, "criu check: {} {}", answer.out, answer.err);
}

/// Starts it with the null device as its standard streams.
fn start(container: &Container, more: &[&str]) {
    container.save();
    let mut command = container.command(&[&["run", "--detach"], more, &[&container.id]].concat());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().unwrap_or_else(|e| panic!("start: {e}"));
    assert!(status.success(), "run --detach: {status}");
}

fn count(container: &Container) -> u64 {
    let text = fs::read_to_string(container.path("rootfs/tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn await_count(container: &Container, least: u64) {
    until(&format!("it counts to {least}"), || count(container) >= least);
}

/// The count at which it was frozen. The file stays: the program may have it open, and find nothing else in its place.
fn last_count(container: &Container, least: u64) -> u64 {
    // Frozen after it was emptied it shows nothing.
    count(container).max(least)
}

fn goes_on() {
    let container = Container::script(COUNTER);
    start(&container, &[]);
    await_count(&container, 3);
    container.ok(&["checkpoint", "--image-path", "images", "--work-path", "work", "ID"]);
    assert_ne!(container.call(&["state", "ID"]).code, 0, "it is still there");
    assert!(!container.group().exists());
    assert!(container.path("images/inventory.img").exists() && container.path("work/dump.log").exists());
    assert!(!container.path("images/dump.log").exists());
    let last = last_count(&container, 3);
    container.ok(&[
        "restore",
        "--detach",
        "--image-path",
        "images",
        "--work-path",
        "work",
        "--pid-file",
        "pid",
        "ID",
    ]);
    await_count(&container, last + 5);
    assert!(container.path("work/restore.log").exists());
    assert_eq!(container.state("status"), "running");
    let pid = fs::read_to_string(container.path("pid")).unwrap_or_else(|e| panic!("read pid: {e}"));
    assert_eq!(container.state("pid").to_string(), pid);
    assert_eq!(container.exec("echo $((1 + 1))").out, "2");
    container.ok(&["pause", "ID"]);
    assert_eq!(container.state("status"), "paused");
    container.ok(&["resume", "ID"]);
    container.ok(&["kill", "ID", "KILL"]);
    until("it ends", || container.state("status") == "stopped");
    container.ok(&["delete", "ID"]);
    assert!(!container.group().exists());
}

fn surroundings() {
    let mut container = Container::script(COUNTER)
        .limited(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 44}, "cpu": {"cpus": "0"}}));
    let data = container.path("data");
    fs::create_dir_all(&data).unwrap_or_else(|e| panic!("make data: {e}"));
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        mounts.push(
            json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]}),
        );
    }
    start(&container, &[]);
    await_count(&container, 3);
    let look = "cat /proc/self/cgroup; grep -E ' (/data|/proc/kcore|/proc/sys|/sys/firmware) ' /proc/mounts; hostname; \
                id; grep -E '^(Cap|Seccomp:)' /proc/1/status; readlink /proc/1/fd/0; ls /proc/1/fd";
    let before = container.exec(look);
    assert_eq!(before.code, 0, "{}", before.err);
    let mounts = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    fs::write(data.join("new"), "written while it was away\n").unwrap_or_else(|e| panic!("write: {e}"));
    container.ok(&["restore", "--detach", "--image-path", "images", "ID"]);
    let after = container.exec(look);
    assert_eq!(mounts(&after.out), mounts(&before.out));
    assert_eq!(container.group_file("memory.max"), "67108864");
    assert_eq!(container.group_file("pids.max"), "44");
    assert_eq!(container.group_file("cpuset.cpus"), "0");
    assert_eq!(container.exec("cat /data/new").out, "written while it was away");
    assert_ne!(container.exec("touch /data/mine").code, 0, "the bind is read-only no more");
    assert_eq!(container.exec("cat /proc/kcore").out, "", "what was hidden is in sight");
    assert_ne!(container.exec("chmod 600 /proc/kcore").code, 0, "the host's null device can be changed");
}

fn left_running() {
    let container = Container::script(COUNTER);
    start(&container, &[]);
    await_count(&container, 3);
    container.ok(&["checkpoint", "--leave-running", "--image-path", "images", "ID"]);
    let dumped = count(&container);
    assert_eq!(container.state("status"), "running");
    await_count(&container, dumped + 20);
    container.ok(&["delete", "--force", "ID"]);
    let last = count(&container);
    container.ok(&["restore", "--detach", "--image-path", "images", "ID"]);
    until("it counts again", || ![0, last].contains(&count(&container)));
    let now = count(&container);
    assert!(now + 10 < last && now + 5 >= dumped, "{now}: dumped at about {dumped}, ended at {last}");
}

fn ahead() {
    // A megabyte that does not change is in the first images only, whatever else moves.
    let container = Container::script(&format!("big=$(head -c 1000000 /dev/zero | tr '\\0' x); {COUNTER}"));
    start(&container, &[]);
    await_count(&container, 3);
    container.ok(&["checkpoint", "--pre-dump", "--image-path", "ahead", "ID"]);
    assert_eq!(container.state("status"), "running");
    let before = count(&container);
    await_count(&container, before + 3);
    container.ok(&["checkpoint", "--parent-path", "../ahead", "--image-path", "images", "ID"]);
    let size = |folder: &str| -> u64 {
        let entries = fs::read_dir(container.path(folder)).unwrap_or_else(|e| panic!("list {folder}: {e}"));
        let pages = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("pages-"));
        pages.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
    };
    let (rest, ahead) = (size("images"), size("ahead"));
    assert!(ahead > 1_000_000 && rest < ahead / 2, "{rest} bytes of pages, {ahead} ahead");
    let last = last_count(&container, 3);
    container.ok(&["restore", "--detach", "--image-path", "images", "ID"]);
    await_count(&container, last + 3);
}

/// Starts the runtime with streams of its own.
fn spawn(container: &Container, words: &[&str], stdin: Stdio, stdout: Stdio) -> Child {
    let mut command = container.command(words);
    command.stdin(stdin).stdout(stdout).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("start {words:?}: {e}"))
}

fn foreground() {
    let container = Container::script(&format!("trap 'exit 7' TERM; {COUNTER}"));
    start(&container, &[]);
    await_count(&container, 3);
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    let last = last_count(&container, 3);
    let words = ["restore", "--image-path", "images", &container.id];
    let mut restore = spawn(&container, &words, Stdio::null(), Stdio::null());
    await_count(&container, last + 3);
    container.ok(&["kill", "ID", "TERM"]);
    let status = restore.wait().unwrap_or_else(|e| panic!("wait for restore: {e}"));
    assert_eq!(status.code(), Some(7));
    assert_ne!(container.call(&["state", "ID"]).code, 0, "it is still there");
}

/// What comes from a descriptor, gathered beside the check.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn from(mut source: impl Read + Send + 'static) -> Heard {
        let heard = Heard::default();
        let all = heard.0.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            // A terminal ends with an error.
            while let Ok(length @ 1..) = source.read(&mut buffer) {
                if let Ok(mut all) = all.lock() {
                    all.extend_from_slice(&buffer[..length]);
                }
            }
        });
        heard
    }

    fn await_text(&self, text: &str) {
        let all = || self.0.lock().map(|all| String::from_utf8_lossy(&all).into_owned()).unwrap_or_default();
        until(&format!("it writes {text:?}"), || all().contains(text));
    }
}

fn say(to: &mut impl Write, text: &str) {
    to.write_all(text.as_bytes()).unwrap_or_else(|e| panic!("write {text:?}: {e}"));
}

fn pipes() {
    let container = Container::script(ECHO);
    container.save();
    let mut first = spawn(&container, &["run", &container.id], Stdio::piped(), Stdio::piped());
    let (mut input, output) = (first.stdin.take(), first.stdout.take());
    let heard = Heard::from(output.unwrap_or_else(|| panic!("no output")));
    say(input.as_mut().unwrap_or_else(|| panic!("no input")), "one\n");
    heard.await_text("line 1 is one");
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    // The foreground ends with the container.
    first.wait().unwrap_or_else(|e| panic!("wait for run: {e}"));
    let words = ["restore", "--image-path", "images", &container.id];
    let mut second = spawn(&container, &words, Stdio::piped(), Stdio::piped());
    let heard = Heard::from(second.stdout.take().unwrap_or_else(|| panic!("no output")));
    say(second.stdin.as_mut().unwrap_or_else(|| panic!("no input")), "two\n");
    heard.await_text("line 2 is two");
    drop(second.stdin.take());
    let status = second.wait().unwrap_or_else(|e| panic!("wait for restore: {e}"));
    assert_eq!(status.code(), Some(0), "the end of its input is its end");
}

fn paused() {
    let container = Container::script(COUNTER);
    start(&container, &[]);
    await_count(&container, 3);
    container.ok(&["pause", "ID"]);
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    let last = last_count(&container, 3);
    container.ok(&["restore", "--detach", "--image-path", "images", "ID"]);
    if container.state("status") == "paused" {
        container.ok(&["resume", "ID"]);
    }
    await_count(&container, last + 3);
}

fn user_namespace() {
    let mut container = Container::script(COUNTER);
    if let Some(namespaces) = container.config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    for maps in ["uidMappings", "gidMappings"] {
        container.config["linux"][maps] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    }
    for name in ["rootfs", "rootfs/tmp", "rootfs/dev", "rootfs/proc", "rootfs/sys", "rootfs/etc"] {
        let path = container.path(name);
        std::os::unix::fs::chown(&path, Some(100_000), Some(100_000))
            .unwrap_or_else(|e| panic!("give {} away: {e}", path.display()));
    }
    start(&container, &[]);
    await_count(&container, 3);
    let look = "tr -s ' ' < /proc/self/uid_map; id -u; grep -cE ' /proc/kcore .* ro[, ]' /proc/mounts; grep CapEff /proc/1/status";
    let before = container.exec(look);
    assert!(before.out.starts_with(" 0 100000 65536\n0\n1\n"), "{} {}", before.out, before.err);
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    let last = last_count(&container, 3);
    container.ok(&["restore", "--detach", "--image-path", "images", "ID"]);
    await_count(&container, last + 3);
    assert_eq!(container.exec(look).out, before.out);
    assert!(!fs::read_dir("/run").is_ok_and(|mut run| run.any(|entry| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("gantry-runtime-null"))
    })));
}

/// Sends numbers to itself over TCP; what comes back is in a file.
const TALK: &str = "(while true; do nc -l -p 99 -e cat; echo again >> /tmp/ended; done) & sleep 1; i=0; \
                    (while true; do i=$((i + 1)); echo $i; sleep 0.1; done) | nc 127.0.0.1 99 > /tmp/count; \
                    echo over >> /tmp/ended; sleep 1000";

fn connection() {
    let container = Container::script(TALK);
    // The lines come one under another.
    let last_line = || {
        let text = fs::read_to_string(container.path("rootfs/tmp/count")).unwrap_or_default();
        text.lines().last().and_then(|line| line.parse::<u64>().ok()).unwrap_or(0)
    };
    start(&container, &[]);
    until("it talks", || last_line() >= 3);
    let refused = container.call(&["checkpoint", "--image-path", "refused", "ID"]);
    assert!(refused.code != 0 && refused.err.contains("TCP"), "{}", refused.err);
    assert_eq!(container.state("status"), "running", "what could not be frozen runs on");
    container.ok(&["checkpoint", "--tcp-established", "--image-path", "images", "ID"]);
    let last = last_line();
    container.ok(&["restore", "--tcp-established", "--detach", "--image-path", "images", "ID"]);
    until("it talks on", || last_line() >= last + 5);
    assert!(!container.path("rootfs/tmp/ended").exists(), "the connection was made anew");
}

/// The master that the runtime sends.
fn master(listener: &UnixListener) -> File {
    let (connection, _) = listener.accept().unwrap_or_else(|e| panic!("accept: {e}"));
    let received = gantry_runtime::channel::receive(connection.as_fd());
    let (_, fd) = received.unwrap_or_else(|e| panic!("receive the terminal: {e}"));
    File::from(fd.unwrap_or_else(|| panic!("no terminal came")))
}

fn listen(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap_or_else(|e| panic!("listen at {}: {e}", path.display()))
}

/// A container with a terminal, and what its first process has said.
fn at_terminal(container: &mut Container) {
    container.config["process"]["terminal"] = true.into();
    container.config["process"]["consoleSize"] = json!({"height": 33, "width": 101});
    let socket = container.path("first.sock");
    let listener = listen(&socket);
    start(container, &["--console-socket", &socket.to_string_lossy()]);
    let mut terminal = master(&listener);
    let heard = Heard::from(copy_of(&terminal));
    say(&mut terminal, "one\n");
    heard.await_text("line 1 is one");
    container.ok(&["checkpoint", "--image-path", "images", "ID"]);
    assert_ne!(container.call(&["state", "ID"]).code, 0, "it is still there");
}

fn copy_of(file: &File) -> File {
    file.try_clone().unwrap_or_else(|e| panic!("duplicate: {e}"))
}

fn terminal() {
    let mut container = Container::script(ECHO);
    at_terminal(&mut container);
    let refused = container.call(&["restore", "--detach", "--image-path", "images", "ID"]);
    assert!(refused.code != 0 && refused.err.contains("--console-socket"), "{}", refused.err);
    let socket: PathBuf = container.path("second.sock");
    let listener = listen(&socket);
    let path = socket.to_string_lossy().into_owned();
    container.ok(&["restore", "--detach", "--image-path", "images", "--console-socket", &path, "ID"]);
    let mut terminal = master(&listener);
    let heard = Heard::from(copy_of(&terminal));
    say(&mut terminal, "two\n");
    heard.await_text("line 2 is two");
    assert_eq!(container.state("status"), "running");
    assert_eq!(container.exec("echo from elsewhere > /dev/console").code, 0);
    heard.await_text("from elsewhere");
    // It is its controlling terminal still: the interrupt key reaches it.
    say(&mut terminal, "\u{3}");
    until("it is interrupted", || container.state("status") == "stopped");
}

fn terminal_in_foreground() {
    let mut container = Container::script(ECHO);
    at_terminal(&mut container);
    let words = ["restore", "--image-path", "images", &container.id];
    let mut restore = spawn(&container, &words, Stdio::piped(), Stdio::piped());
    let heard = Heard::from(restore.stdout.take().unwrap_or_else(|| panic!("no output")));
    say(restore.stdin.as_mut().unwrap_or_else(|| panic!("no input")), "two\n");
    heard.await_text("line 2 is two");
    container.ok(&["kill", "ID", "KILL"]);
    let status = restore.wait().unwrap_or_else(|e| panic!("wait for restore: {e}"));
    assert_eq!(status.code(), Some(137));
}

fn failure() {
    let container = Container::script(COUNTER);
    container.save();
    fs::create_dir_all(container.path("images")).unwrap_or_else(|e| panic!("make images: {e}"));
    let answer = container.call(&["restore", "--detach", "--image-path", "images", "ID"]);
    assert!(answer.code != 0 && answer.err.contains("criu restore"), "{}", answer.err);
    assert!(answer.err.contains("empty-image"), "{}", answer.err);
    assert!(!container.group().exists());
    assert_ne!(container.call(&["state", "ID"]).code, 0);
}
