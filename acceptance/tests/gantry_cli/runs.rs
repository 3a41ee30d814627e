//! `gantry run` and `gantry create`: output, exit codes, terminals, files of variables.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("run_keeps_the_two_outputs_apart", run_keeps_the_two_outputs_apart),
    (
        "run_exits_as_the_container_or_says_why_it_could_not",
        run_exits_as_the_container_or_says_why_it_could_not,
    ),
    ("run_d_prints_the_id_and_rm_leaves_nothing", run_d_prints_the_id_and_rm_leaves_nothing),
    ("run_i_reads_its_input_to_the_end", run_i_reads_its_input_to_the_end),
    ("run_it_has_a_terminal", run_it_has_a_terminal),
    ("exec_it_has_a_terminal", exec_it_has_a_terminal),
    ("detach_keys_leave_the_container_running", detach_keys_leave_the_container_running),
    ("variables_and_labels_come_from_flags_and_files", variables_and_labels_come_from_flags_and_files),
    ("create_start_attach_pass_the_exit_code", create_start_attach_pass_the_exit_code),
    ("a_signal_to_the_command_reaches_the_container", a_signal_to_the_command_reaches_the_container),
];

fn run_keeps_the_two_outputs_apart(nodes: &Nodes) {
    let answer = nodes.cli(1).try_run(["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (7, "out\n", "err\n"));
}

fn run_exits_as_the_container_or_says_why_it_could_not(nodes: &Nodes) {
    let (gantry, docker) = (nodes.cli(1), nodes.docker(1));
    for (line, code, reason) in [
        (
            format!("run --rm {IMAGE} no-such-program"),
            127,
            "\"no-such-program\": executable file not found in $PATH",
        ),
        (format!("run --rm {IMAGE} /etc/passwd"), 126, "permission denied"),
        (format!("run --rm {IMAGE} /etc"), 126, "is a directory"),
        ("run --rm --pull=never no-such-image".to_owned(), 125, "No such image: no-such-image"),
        (format!("run --rm --network no-such-network {IMAGE}"), 125, "network no-such-network not found"),
        (format!("run --rm --memory 1k {IMAGE}"), 125, "Minimum memory limit allowed is 6MB"),
        (format!("run --rm -p 99999:1 {IMAGE}"), 125, "99999"),
        (
            format!("run --rm -v relative/path:/x {IMAGE}"),
            125,
            "includes invalid characters for a local volume name",
        ),
        (format!("run --rm --no-such-flag {IMAGE}"), 125, "--no-such-flag"),
        (format!("run --rm --restart always {IMAGE}"), 125, "--rm"),
    ] {
        let own = gantry.try_run(line.split_whitespace());
        assert_eq!(own.code, code, "gantry {line}: {}", own.err);
        assert!(own.err.contains(reason) && own.out.is_empty(), "gantry {line}: {}{}", own.out, own.err);
        assert_eq!(docker.try_run(line.split_whitespace()).code, code, "docker {line}");
    }
    let killed = gantry.try_run(["run", "--rm", IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    assert_eq!(killed.code, 137, "{}", killed.err);
}

fn run_d_prints_the_id_and_rm_leaves_nothing(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let id = gantry.ok(&format!("run -d --rm --name brief {IMAGE} sleep 300"));
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(gantry.ok("ps -q --no-trunc --filter name=brief"), id);
    assert_eq!(gantry.ok("stop brief"), "brief");
    wait::until("the container is removed", Duration::from_secs(5), || {
        let left = gantry.ok("ps -aq --filter name=brief");
        wait::that(left.is_empty(), left)
    });
    let file = nodes.path("brief.id");
    let id = gantry.ok(&format!("run -d --cidfile {} --name brief {IMAGE} sleep 300", file.display()));
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), id);
    let again = gantry.fails(&format!("run -d --cidfile {} {IMAGE} true", file.display()));
    assert!(again.code == 125 && again.err.contains("brief.id"), "{}", again.err);
    gantry.ok("rm -f brief");
}

fn run_i_reads_its_input_to_the_end(nodes: &Nodes) {
    let input: Vec<u8> = (0..200_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let answer = nodes.cli(1).with_input(&format!("run -i --rm {IMAGE} wc -c"), &input);
    assert_eq!((answer.code, answer.out.trim()), (0, input.len().to_string().as_str()), "{}", answer.err);
}

fn run_it_has_a_terminal(nodes: &Nodes) {
    let keys = b"tty; stty size; echo $((40+2)); exit 11\n";
    let (code, out) = nodes.cli(1).typed(&format!("run -it --rm {IMAGE} sh"), "# ", keys);
    assert_eq!(code, 11, "{out}");
    assert!(out.contains("/dev/pts/0") && out.contains("33 101") && out.contains("42"), "{out}");
}

fn exec_it_has_a_terminal(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run -d --name screen {IMAGE} sleep 300"));
    let (code, out) =
        gantry.typed("exec -it -w /tmp -e WHO=me screen sh", "# ", b"pwd; echo $WHO; stty size; exit 12\n");
    assert_eq!(code, 12, "{out}");
    assert!(out.contains("/tmp\r\n") && out.contains("me\r\n") && out.contains("33 101"), "{out}");
    let refused = gantry.fails("exec -it screen sh");
    assert!(refused.err.contains("TTY") || refused.err.contains("terminal"), "{}", refused.err);
    gantry.ok("rm -f screen");
}

fn detach_keys_leave_the_container_running(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let (_, out) = gantry.typed(&format!("run -it --name left {IMAGE} sh"), "# ", b"\x10\x11");
    assert_eq!(gantry.inspect("left")["State"]["Status"], "running", "{out}");
    // Back by attach: the shell still listens. A prompt comes only after something was typed.
    let (code, out) = gantry.typed("attach --detach-keys ctrl-a left", "", b"\nexit 4\n");
    assert_eq!(code, 4, "{out}");
    gantry.ok("rm -f left");
}

fn variables_and_labels_come_from_flags_and_files(nodes: &Nodes) {
    let (gantry, file) = (nodes.cli(1), nodes.path("variables"));
    std::fs::write(&file, "# a comment\nONE=1\nTWO=two words\nHOME\n")
        .unwrap_or_else(|e| panic!("write a file: {e}"));
    let path = file.display().to_string();
    let out = gantry.ok_args(&["run", "--rm", "--env-file", &path, "-e", "THREE=3", IMAGE, "env"]);
    for line in ["ONE=1", "TWO=two words", "THREE=3"] {
        assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
    }
    gantry.ok_args(&["create", "--name", "labelled", "--label-file", &path, "-l", "plain", IMAGE]);
    let labels = gantry.inspect("labelled")["Config"]["Labels"].clone();
    assert!(labels["TWO"] == "two words" && labels["plain"] == "", "{labels}");
    gantry.ok("rm labelled");
}

fn create_start_attach_pass_the_exit_code(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok_args(&[
        "create",
        "-i",
        "--name",
        "asked",
        IMAGE,
        "sh",
        "-c",
        "read word; echo got $word; exit 5",
    ]);
    let answer = gantry.with_input("start -ai asked", b"this\n");
    assert_eq!((answer.code, answer.out.as_str()), (5, "got this\n"), "{}", answer.err);
    assert_eq!(gantry.ok("wait asked"), "5");
    gantry.ok("rm asked");
}

fn a_signal_to_the_command_reaches_the_container(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let script = "trap 'echo caught; exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    let child = gantry
        .command(["run", "--name", "signalled", IMAGE, "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start gantry: {e}"));
    wait::until("the trap is set", Duration::from_secs(20), || {
        let log = gantry.try_run(["logs", "signalled"]).out;
        wait::that(log.contains("ready"), log)
    });
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.unwrap_or_else(|| panic!("the command has no process id"));
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap_or_else(|e| panic!("kill: {e}"));
    let output = child.wait_with_output().unwrap_or_else(|e| panic!("wait for gantry: {e}"));
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), out.as_ref()), (Some(6), "ready\ncaught\n"));
    gantry.ok("rm signalled");
}
