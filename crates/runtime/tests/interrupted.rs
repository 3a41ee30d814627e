//! Commands that are killed, that come at the same time, or whose disk is full: nothing stays that cannot be deleted. Needs root.

mod harness;

use std::{
    fs,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use gantry_runtime::oci::{Hook, Hooks};
use harness::{PATIENCE, Sandbox, await_that, exists, leftovers, text};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Starts a command whose words go nowhere.
fn begin(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills a command unless it ends before.
fn kill_after(mut child: Child, time: Duration) -> Option<i32> {
    let pidfd = gantry_linux::process::pidfd(child.id().cast_signed()).unwrap();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let ended = poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap();
    if ended == 0 {
        child.kill().unwrap();
    }
    child.wait().unwrap().signal()
}

/// How long a command takes when nobody disturbs it.
fn time_of(sandbox: &Sandbox, args: &[&str]) -> Duration {
    let start = Instant::now();
    assert!(begin(sandbox, args).wait().unwrap().success(), "{args:?}");
    start.elapsed()
}

fn hook(script: String) -> Hook {
    let args = ["sh".to_owned(), "-c".to_owned(), script].to_vec();
    Hook { path: "/bin/sh".into(), args, ..Hook::default() }
}

#[test]
fn a_create_that_is_killed_at_any_moment_leaves_what_delete_takes_away() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec.hooks = Some(Hooks { create_runtime: vec![hook("exit 0".into())], ..Hooks::default() });
    sandbox.save();
    let id = sandbox.id.clone();
    let whole = time_of(&sandbox, &["create", &id]);
    assert!(sandbox.output(&["delete", &id]).status.success());
    let mut killed = 0;
    const STEPS: u32 = 60;
    for step in 0..STEPS {
        killed += u32::from(kill_after(begin(&sandbox, &["create", &id]), whole * step / STEPS).is_some());
        // The first process notices by itself that nobody waits for it any more.
        let deleted = || {
            let output = sandbox.output(&["delete", &id]);
            output.status.success() || text(&output.stderr).contains("does not exist")
        };
        await_that("delete", deleted);
        await_that(&format!("that nothing is left of step {step}"), || leftovers(&sandbox).is_empty());
    }
    assert!(killed > STEPS / 4, "{killed} of {STEPS} were killed");
}

#[test]
fn while_it_is_made_a_container_is_not_deleted_unless_by_force() {
    let mut sandbox = Sandbox::new(&["/bin/true"]);
    let fifo = sandbox.path("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let waits = hook(format!("read line < {}", fifo.display()));
    sandbox.spec.hooks = Some(Hooks { create_runtime: vec![waits], ..Hooks::default() });
    sandbox.save();
    let id = sandbox.id.clone();
    let create = begin(&sandbox, &["create", &id]);
    sandbox.await_status("creating");
    let refused = sandbox.output(&["delete", &id]);
    assert!(text(&refused.stderr).contains("creating"), "{}", text(&refused.stderr));
    assert_eq!(kill_after(create, Duration::ZERO), Some(9));
    // Nobody makes it any more.
    sandbox.await_status("stopped");
    fs::write(&fifo, "\n").unwrap();
    let deleted = sandbox.output(&["delete", &id]);
    assert!(deleted.status.success(), "{}", text(&deleted.stderr));
    await_that("that nothing is left", || leftovers(&sandbox).is_empty());
}

#[test]
fn a_folder_that_a_killed_command_left_is_taken_away_by_delete() {
    let sandbox = Sandbox::new(&["/bin/true"]);
    fs::create_dir_all(sandbox.root().join(&sandbox.id)).unwrap();
    // As with runc: there is no such container, and its name is free again.
    assert_eq!(sandbox.output(&["delete", &sandbox.id]).status.code(), Some(1));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn of_two_starts_at_once_one_starts_the_container_and_the_other_is_refused() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    let log = sandbox.path("poststart");
    let writes = hook(format!("echo x >> {}", log.display()));
    sandbox.spec.hooks = Some(Hooks { poststart: vec![writes], ..Hooks::default() });
    let id = sandbox.id.clone();
    for _ in 0..20 {
        assert!(sandbox.create().status.success());
        let both = [begin(&sandbox, &["start", &id]), begin(&sandbox, &["start", &id])];
        let codes = both.map(|mut start| start.wait().unwrap().code().unwrap());
        assert_eq!(codes.iter().sum::<i32>(), 1, "{codes:?}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "x\n");
        fs::remove_file(&log).unwrap();
        assert_eq!(sandbox.state()["status"], "running");
        assert!(sandbox.output(&["delete", "--force", &id]).status.success());
    }
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_start_that_is_killed_at_any_moment_leaves_a_container_that_says_what_it_is() {
    let sandbox = Sandbox::script("echo ran; exec sleep 1000");
    let id = sandbox.id.clone();
    assert!(sandbox.create().status.success());
    let whole = time_of(&sandbox, &["start", &id]);
    assert!(sandbox.output(&["delete", "--force", &id]).status.success());
    const STEPS: u32 = 30;
    for step in 0..STEPS {
        assert!(sandbox.create().status.success());
        kill_after(begin(&sandbox, &["start", &id]), whole * step / STEPS);
        // Either it waits for a start, and takes one, or it runs.
        if sandbox.state()["status"] == "created" {
            let again = sandbox.output(&["start", &id]);
            let running = text(&again.stderr).contains("it is running");
            assert!(again.status.success() || running, "step {step}: {}", text(&again.stderr));
        }
        await_that("the program", || fs::read_to_string(sandbox.path("out")).unwrap() == "ran\n");
        assert_eq!(sandbox.state()["status"], "running", "step {step}");
        assert!(sandbox.output(&["delete", "--force", &id]).status.success());
    }
    await_that("that nothing is left", || leftovers(&sandbox).is_empty());
}

#[test]
fn a_start_that_cannot_remember_it_starts_nothing() {
    let sandbox = Sandbox::script("echo ran; exec sleep 1000");
    let id = sandbox.id.clone();
    assert!(sandbox.create().status.success());
    // What a full disk does to the file.
    let obstacle = sandbox.root().join(&id).join("state.tmp");
    fs::create_dir(&obstacle).unwrap();
    let refused = sandbox.output(&["start", &id]);
    assert!(text(&refused.stderr).contains("state.json"), "{}", text(&refused.stderr));
    assert_eq!(sandbox.state()["status"], "created");
    assert_eq!(fs::read_to_string(sandbox.path("out")).unwrap(), "");
    fs::remove_dir(&obstacle).unwrap();
    assert!(sandbox.output(&["start", &id]).status.success());
    await_that("the program", || fs::read_to_string(sandbox.path("out")).unwrap() == "ran\n");
    assert!(sandbox.output(&["delete", "--force", &id]).status.success());
}

#[test]
fn an_exec_into_a_container_that_ends_says_so_with_a_code_of_its_own() {
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    let id = sandbox.id.clone();
    sandbox.save();
    for step in 0..20_u32 {
        assert!(begin(&sandbox, &["run", "--detach", &id]).wait().unwrap().success());
        let exec = sandbox
            .command(&["exec", &id, "/bin/true"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = gantry_linux::process::pidfd(exec.id().cast_signed()).unwrap();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(step) * 700_000 };
        poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap();
        sandbox.output(&["kill", &id, "KILL"]);
        let Output { status, stderr, .. } = exec.wait_with_output().unwrap();
        let told = text(&stderr);
        assert!(!told.contains("first process"), "{told}");
        match status.code() {
            Some(0 | 137) => assert_eq!(told, ""),
            code => assert_eq!(code, Some(255), "{told}"),
        }
        assert!(sandbox.output(&["delete", "--force", &id]).status.success());
    }
}

#[test]
fn a_program_that_waits_for_its_output_to_be_taken_does_not_hold_its_input_up() {
    let mut sandbox = Sandbox::script(
        "stty raw -echo; echo go; while read l; do echo $l$l$l$l$l$l$l$l$l$l$l$l$l$l$l$l; done",
    );
    sandbox.process().terminal = true;
    sandbox.save();
    let mut run = sandbox
        .command(&["run", &sandbox.id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (run.stdin.take().unwrap(), run.stdout.take().unwrap());
    // Before that the terminal would echo what it is given.
    let mut ready = [0_u8; 2];
    std::io::Read::read_exact(&mut output, &mut ready).unwrap();
    assert_eq!(ready, *b"go");
    let line = format!("{}\n", "x".repeat(999));
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        // Nobody to tell when the run is killed below.
        let _ = input.write_all(line.repeat(64).as_bytes());
        input
    });
    let start = Instant::now();
    let (mut count, mut buffer) = (0, [0_u8; 65536]);
    while count < 64 * 999 * 16 {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)).unwrap();
        if ready == 0 || start.elapsed() > PATIENCE {
            break;
        }
        let length = std::io::Read::read(&mut output, &mut buffer).unwrap();
        count += buffer[..length].iter().filter(|byte| **byte == b'x').count();
    }
    sandbox.output(&["kill", &sandbox.id, "KILL"]);
    run.wait().unwrap();
    drop(writer.join());
    assert_eq!(count, 64 * 999 * 16);
}

#[test]
fn pid_files_of_one_stem_do_not_meet_and_follow_no_link() {
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    let victim = sandbox.path("victim");
    fs::write(&victim, "precious").unwrap();
    // The name that a temporary file of one pid file had for all of one stem.
    std::os::unix::fs::symlink(&victim, sandbox.path("c.tmp")).unwrap();
    sandbox.save();
    let file = sandbox.path("c.pid");
    let args = ["run", "--detach", "--pid-file", file.to_str().unwrap(), &sandbox.id];
    assert!(begin(&sandbox, &args).wait().unwrap().success());
    let pid = fs::read_to_string(&file).unwrap();
    assert_eq!(sandbox.state()["pid"].to_string(), pid);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(exists(&sandbox.path("c.tmp")));
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    let left = Command::new("ls").arg("-A").arg(file.parent().unwrap()).output().unwrap();
    assert!(!text(&left.stdout).contains(".c.pid."), "{}", text(&left.stdout));
}
