//! Ways out through a descriptor of the runtime: as working folder, as program, as interpreter, or simply inherited.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, symlink},
    },
};

use crate::{
    Sentinel,
    harness::{Sandbox, text},
};

/// Descriptors that a runtime could have open.
const NUMBERS: std::ops::Range<u32> = 0..12;

#[test]
fn no_descriptor_is_a_working_folder_of_run_nor_of_exec() {
    // CVE-2024-21626: `/proc/self/fd/N` as cwd, as it is, behind a link of the image, and with dots.
    let sandbox = Sandbox::script("exec sleep 1000");
    for number in NUMBERS {
        symlink(format!("/proc/self/fd/{number}"), sandbox.rootfs().join(format!("fd{number}"))).unwrap();
    }
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    for number in NUMBERS {
        for cwd in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../.."),
            format!("/fd{number}"),
        ] {
            let output = sandbox.output(&["exec", "--cwd", &cwd, &sandbox.id, "/bin/ls", "-a", ".."]);
            assert!(!output.status.success(), "exec --cwd {cwd}: {}", text(&output.stdout));
            let mut other = Sandbox::script("ls -a ..");
            symlink(format!("/proc/self/fd/{number}"), other.rootfs().join(format!("fd{number}"))).unwrap();
            other.process().cwd.clone_from(&cwd);
            let output = other.run();
            assert!(!output.status.success(), "run in {cwd}: {}", text(&output.stdout));
        }
    }
}

#[test]
fn no_root_or_working_folder_of_another_process_is_a_working_folder() {
    for cwd in ["/proc/1/root", "/proc/self/root", "/proc/self/cwd", "/proc/1/cwd", "/proc/self/task/1/root"]
    {
        let mut sandbox = Sandbox::script("pwd");
        sandbox.process().cwd = cwd.into();
        assert!(!sandbox.run().status.success(), "{cwd}");
    }
}

/// A container that sleeps with the ordinary capabilities: its processes may be looked into by others alike it, if
/// these only find them. What it has is not to be had by another one.
fn victim() -> Sandbox {
    let victim = Sandbox::script("exec sleep 1000");
    assert!(victim.create().status.success());
    assert!(victim.output(&["start", &victim.id]).status.success());
    fs::copy("/bin/busybox", victim.rootfs().join("busybox")).unwrap();
    victim
}

#[test]
fn no_program_is_found_through_a_descriptor_of_the_runtime() {
    // Variants 3a and 3b of CVE-2024-21626, and what an open folder of the host's /proc would give: the files of others.
    let victim = victim();
    let pid = victim.state()["pid"].to_string();
    for number in NUMBERS {
        for path in [
            format!("/proc/self/fd/{number}/{pid}/root/busybox"),
            format!("/proc/self/fd/{number}/../{pid}/root/busybox"),
            format!("/proc/self/fd/{number}/bin/true"),
            format!("/proc/self/fd/{number}/busybox"),
        ] {
            let mut sandbox = Sandbox::new(&["/bin/busybox-link", "echo", "found"]);
            symlink(&path, sandbox.rootfs().join("bin/busybox-link")).unwrap();
            sandbox.linux().seccomp = None;
            let output = sandbox.run();
            assert!(!output.status.success(), "{path}: {}", text(&output.stdout));
        }
    }
}

#[test]
fn no_interpreter_is_found_through_a_descriptor_of_the_runtime() {
    // The kernel opens the interpreter of a script, as that of an executable, before it closes descriptors.
    let victim = victim();
    let pid = victim.state()["pid"].to_string();
    for number in NUMBERS {
        let script = format!("#!/proc/self/fd/{number}/{pid}/root/busybox echo\n");
        let sandbox = Sandbox::new(&["/bin/script"]);
        let path = sandbox.rootfs().join("bin/script");
        fs::write(&path, &script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let output = sandbox.run();
        assert!(!output.status.success(), "{script}: {}", text(&output.stdout));
    }
}

#[test]
fn what_the_caller_left_open_is_not_inherited() {
    let outside = Sentinel::new();
    let folder = fs::File::open(outside.path()).unwrap();
    let kept = rustix::io::fcntl_dupfd_cloexec(&folder, 50).unwrap();
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
    let number = kept.as_raw_fd();
    let sandbox = Sandbox::script("ls /proc/self/fd; ls /proc/1/fd; true");
    let out = sandbox.stdout();
    // ls has the folder open that it lists; the shell has its three.
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "0", "1", "2"], "{number}");
    let sandbox = Sandbox::script("exec sleep 1000");
    assert!(sandbox.create().status.success());
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let output = sandbox.output(&["exec", &sandbox.id, "/bin/ls", "/proc/self/fd"]);
    assert_eq!(text(&output.stdout).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let pid = sandbox.state()["pid"].to_string();
    let mut fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    fds.sort();
    assert_eq!(fds, ["0", "1", "2"]);
    drop(kept);
    outside.check();
}

#[test]
fn asked_for_descriptors_and_no_more_are_preserved() {
    let sandbox = Sandbox::script("ls /proc/1/fd; true");
    sandbox.save();
    let bundle = sandbox.bundle();
    let null = fs::File::open("/dev/null").unwrap();
    // Given as 3 and 4 by a shell; 4 is not asked for.
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec \"$@\" 3</dev/null 4</dev/null", "sh", crate::harness::RUNTIME, "--root"]);
    command.arg(sandbox.root()).args(["run", "--preserve-fds", "1", "--bundle"]).arg(bundle).arg(&sandbox.id);
    let output = command.stdin(null).output().unwrap();
    let out = text(&output.stdout);
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{}", text(&output.stderr));
}
