//! The runtime's own file (CVE-2019-5736): a container may come to execute it, and to hold it open, but not to change it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::{
    applets,
    harness::{Sandbox, await_that, copy_of_the_runtime, exists, text},
};
use gantry_runtime::oci::defaults;

/// A container with everything a container may be given, and a copy of the runtime for it to attack.
struct Attack {
    sandbox: Sandbox,
    runtime: PathBuf,
    content: Vec<u8>,
}

impl Attack {
    fn new(args: &[&str]) -> Attack {
        let mut sandbox = Sandbox::new(args);
        applets(&sandbox, &["grep", "chmod", "readlink", "tail"]);
        symlink("/proc/self/exe", sandbox.rootfs().join("bin/evil")).unwrap();
        sandbox.linux().seccomp = None;
        sandbox.process().no_new_privileges = false;
        sandbox.process().capabilities = Some(defaults::capability_sets(&defaults::all_capabilities()));
        let runtime = sandbox.path("runtime-copy");
        copy_of_the_runtime(&runtime);
        let content = fs::read(&runtime).unwrap();
        Attack { sandbox, runtime, content }
    }

    /// As the test program is linked dynamically, what it needs must be in the image; the real one is static.
    fn with_libraries(mut self) -> Attack {
        for folder in ["/lib", "/lib64", "/usr/lib"] {
            self.sandbox.spec.mounts.push(crate::bind(folder.as_ref(), folder, &["rbind", "ro"]));
        }
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.sandbox.root()).args(args).current_dir(self.sandbox.bundle());
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn check(&self) {
        assert!(fs::read(&self.runtime).unwrap() == self.content, "the runtime's file has changed");
    }
}

/// Tries every way of writing to the file that process 1 executes, and holds it open for later.
const WRITE: &str = "\
    exec 9< /proc/1/exe || exit 3; \
    readlink /proc/1/exe; \
    for p in /proc/1/exe /proc/self/fd/9; do \
        (echo x >> $p) 2>/dev/null && echo WROTE; (: > $p) 2>/dev/null && echo WROTE; \
        chmod 777 $p 2>/dev/null && echo CHANGED; \
        mount -o remount,rw $p 2>/dev/null && echo REMOUNTED; \
        mount -o remount,bind,rw $p 2>/dev/null && echo REMOUNTED; \
    done; true";

#[test]
fn a_link_to_the_runtime_as_program_gives_nothing_to_write_to() {
    let attack = Attack::new(&["/bin/evil", "init", "/bin/sh", "-c", WRITE]).with_libraries();
    attack.sandbox.save();
    let output = attack.output(&["run", &attack.sandbox.id]);
    let out = text(&output.stdout);
    assert!(output.status.success() && !out.is_empty(), "{out}{}", text(&output.stderr));
    assert!(!out.contains("WROTE") && !out.contains("CHANGED") && !out.contains("REMOUNTED"), "{out}");
    attack.check();
}

#[test]
fn a_descriptor_kept_until_nobody_executes_the_file_stays_read_only() {
    // While it is executed the kernel answers ETXTBSY; afterwards nothing but the mount protects it.
    let attack = Attack::new(&["/bin/sleep", "1000"]).with_libraries();
    attack.sandbox.save();
    assert!(attack.command(&["create", &attack.sandbox.id]).status().unwrap().success());
    assert!(attack.output(&["start", &attack.sandbox.id]).status.success());
    // The bait: the runtime as the program of an exec, until the attacker has taken hold of it.
    let bait = "while ! [ -e /holding ]; do sleep 0.05; done";
    let attacker = "while ! [ -e /holding ]; do for p in /proc/[0-9]*; do \
                    case $(readlink $p/exe) in *busybox|'') ;; *) exec 9< $p/exe && touch /holding;; esac; done; done; \
                    while ! [ -e /now ]; do sleep 0.05; done; \
                    (echo x >> /proc/self/fd/9) 2> /answer; echo $? >> /answer; touch /done";
    let detached = |args: &[&str]| {
        let all = [&["exec", "--detach", attack.sandbox.id.as_str()], args].concat();
        assert!(attack.command(&all).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    };
    detached(&["/bin/evil", "init", "/bin/sh", "-c", bait]);
    detached(&["/bin/sh", "-c", attacker]);
    let root = attack.sandbox.rootfs();
    await_that("the attacker holds the file", || exists(&root.join("holding")));
    await_that("nobody executes it any more", || {
        // Opening for writing tells, and changes nothing.
        fs::OpenOptions::new().append(true).open(&attack.runtime).is_ok()
    });
    fs::write(root.join("now"), "").unwrap();
    await_that("the attacker has tried", || exists(&root.join("done")));
    let answer = fs::read_to_string(root.join("answer")).unwrap();
    assert!(answer.contains("Read-only file system") && answer.trim_end().ends_with('1'), "{answer}");
    attack.check();
}

#[test]
fn libraries_of_the_image_are_not_loaded_into_the_runtime() {
    // The variant with a hostile library: what runs before the exec comes from the host alone, so a preloaded or replaced
    // library of the image is at most that of the user's own program.
    let mut attack = Attack::new(&["/bin/sh", "-c", "echo ran"]);
    let library = attack.sandbox.rootfs().join("hostile.so");
    fs::write(&library, "not a library\n").unwrap();
    attack.sandbox.process().env.extend(["LD_PRELOAD=/hostile.so", "LD_LIBRARY_PATH=/"].map(str::to_owned));
    let output = {
        attack.sandbox.save();
        attack.output(&["run", &attack.sandbox.id])
    };
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("hostile"), "{}", text(&output.stderr));
    attack.check();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_static_executable_protects_itself_before_its_c_library_begins() {
    // `cargo xtask test` names the one that users get; the test program of cargo itself is linked dynamically.
    let Some(built) = std::env::var_os("GANTRY_RUNTIME").map(PathBuf::from) else {
        eprintln!("GANTRY_RUNTIME is not set: not looked at");
        return;
    };
    let sandbox = Sandbox::new(&["true"]);
    let runtime = sandbox.path("static");
    fs::copy(built, &runtime).unwrap();
    // With this mark the program itself does not try: it has come to a second run and is still on a writable mount.
    let run = |words: &[&str]| {
        let mut command = Command::new(&runtime);
        command.arg("--root").arg(sandbox.root()).args(words).env("_GANTRY_RUNTIME_PROTECTED", "1");
        text(&command.output().unwrap().stderr)
    };
    for command in ["create", "run", "exec", "monitor"] {
        let said = run(&[command, "nothing-of-this-name", "true"]);
        assert!(!said.is_empty() && !said.contains("writable mount"), "{command}: {said}");
    }
    // A word like a command costs an exec and nothing else.
    let said = run(&["state", "run"]);
    assert!(said.contains("run") && said.contains("does not exist"), "{said}");
}
