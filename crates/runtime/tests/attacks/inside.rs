//! What a container sees and may do when nobody has made a mistake: its rights, its /proc and /sys, its keys, its parent.

use std::{fs, process::Stdio};

use gantry_runtime::oci::{self, Capabilities, defaults};

use crate::{
    applets,
    harness::{Sandbox, text},
};

fn line<'t>(status: &'t str, name: &str) -> &'t str {
    status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {status}"))
}

#[test]
fn nothing_is_inheritable_unless_asked_for() {
    // CVE-2022-29162: inheritable capabilities by default, which a file with inheritable ones turns into rights. What the
    // caller of the runtime has inheritable or ambient goes to nobody.
    let sandbox = Sandbox::script("cat /proc/self/status");
    assert!(sandbox.spec.process.as_ref().unwrap().capabilities.as_ref().unwrap().inheritable.is_empty());
    sandbox.save();
    for tool in ["/sbin/capsh", "/usr/sbin/capsh", "/usr/bin/setpriv"] {
        if !fs::exists(tool).unwrap() {
            continue;
        }
        let mut command = std::process::Command::new(tool);
        match tool.ends_with("setpriv") {
            true => command.args(["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin", "--"]),
            false => command.args([
                "--inh=cap_net_admin",
                "--addamb=cap_net_admin",
                "--",
                "-c",
                "exec \"$@\"",
                "sh",
            ]),
        };
        command.arg(crate::harness::RUNTIME).arg("--root").arg(sandbox.root());
        command.args(["run", "--bundle"]).arg(sandbox.bundle()).arg(&sandbox.id).stdin(Stdio::null());
        let output = command.output().unwrap();
        let status = text(&output.stdout);
        assert!(output.status.success(), "{tool}: {}", text(&output.stderr));
        assert_eq!(line(&status, "CapInh"), "CapInh:\t0000000000000000", "{tool}");
        assert_eq!(line(&status, "CapAmb"), "CapAmb:\t0000000000000000", "{tool}");
    }
}

#[test]
fn every_capability_set_is_what_was_asked_for() {
    let one = |name: &str| vec![name.to_owned()];
    let mut sandbox = Sandbox::script("cat /proc/self/status");
    sandbox.process().capabilities = Some(Capabilities {
        bounding: ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"].map(str::to_owned).to_vec(),
        permitted: ["CAP_KILL", "CAP_CHOWN"].map(str::to_owned).to_vec(),
        effective: one("CAP_KILL"),
        inheritable: one("CAP_CHOWN"),
        ambient: one("CAP_CHOWN"),
    });
    sandbox.process().user = oci::User { uid: 33, gid: 33, ..oci::User::default() };
    let status = sandbox.stdout();
    // A program without file capabilities has, for another user than root, the ambient ones (capabilities(7)).
    assert_eq!(line(&status, "CapBnd"), "CapBnd:\t00000000000000a1");
    assert_eq!(line(&status, "CapInh"), "CapInh:\t0000000000000001");
    assert_eq!(line(&status, "CapPrm"), "CapPrm:\t0000000000000001");
    assert_eq!(line(&status, "CapEff"), "CapEff:\t0000000000000001");
    assert_eq!(line(&status, "CapAmb"), "CapAmb:\t0000000000000001");
    let mut sandbox = Sandbox::script("cat /proc/self/status");
    sandbox.process().capabilities = None;
    let status = sandbox.stdout();
    for set in ["CapBnd", "CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(line(&status, set), format!("{set}:\t0000000000000000"), "without any asked for");
    }
    for ids in ["Uid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t0"] {
        assert!(status.contains(ids), "{status}");
    }
    assert_eq!(line(&status, "Groups").trim_end(), "Groups:", "none of the caller's");
}

/// Every file of /proc (but those of processes) and /sys that is there to be written to, and opens for it.
const WRITABLE: &str = "\
    find /proc /sys \\( -path '/proc/[0-9]*' -o -path /proc/self -o -path /proc/thread-self \\) -prune -o -type f -perm /222 -print \
    2>/dev/null | while read f; do (: >> \"$f\") 2>/dev/null && echo \"$f\"; done; true";

#[test]
fn nothing_of_the_host_is_writable_in_proc_and_sys() {
    let mut sandbox = Sandbox::new(&["/bin/sh", "-c", WRITABLE]);
    applets(&sandbox, &["find"]);
    // Also with every right that the mounts alone would have to stop.
    for capabilities in [defaults::capabilities(), defaults::all_capabilities()] {
        let all = capabilities.len() > 20;
        sandbox.process().capabilities = Some(defaults::capability_sets(&capabilities));
        let out = sandbox.stdout();
        let writable: Vec<&str> = out.lines().collect();
        let unexpected: Vec<_> = writable
            .iter()
            .filter(|path| {
                // Whoever has every capability could as well load a module; the memory types are a matter of that.
                !(LEFT_OPEN.contains(path) || all && **path == "/proc/mtrr")
            })
            .collect();
        assert!(unexpected.is_empty(), "all capabilities: {all}: {unexpected:?}");
    }
}

/// Whoever opens these for writing asks to be told of pressure, and changes nothing (Documentation/accounting/psi.rst).
const LEFT_OPEN: [&str; 4] =
    ["/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/irq", "/proc/pressure/memory"];

#[test]
fn a_container_has_nobody_above_it_to_read() {
    let sandbox = Sandbox::script(
        "echo ppid $PPID; for p in 0 1; do cat /proc/$p/mem > /dev/null; done; \
         cat /proc/$PPID/environ; echo all /proc/[0-9]*; cat /proc/self/environ",
    );
    sandbox.save();
    let mut command = sandbox.command(&["run", &sandbox.id]);
    let output = command.env("HOST_SECRET", "stolen").stdin(Stdio::null()).output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.starts_with("ppid 0\n"), "{out}");
    assert!(!out.contains("stolen") && !out.contains("HOST_SECRET"), "{out}");
    assert!(err.contains("/proc/0"), "{err}");
    assert!(out.contains("\nall /proc/1\n"), "it is alone: {out}");
}

#[test]
fn no_process_of_the_host_is_seen_through_proc() {
    let sandbox = Sandbox::script("echo /proc/[0-9]*; cat /proc/mounts; cat /proc/self/cgroup");
    let out = sandbox.stdout();
    assert!(out.starts_with("/proc/1\n"), "{out}");
    assert!(!out.contains(sandbox.bundle().to_str().unwrap()), "the host's paths are shown: {out}");
    assert!(!out.contains("gantry-test"), "the cgroup's path is shown: {out}");
    let roots = out.lines().filter(|line| line.split(' ').nth(1) == Some("/")).count();
    assert_eq!(roots, 1, "the host's root is not below the container's: {out}");
}

#[test]
fn masked_files_show_nothing_and_stay_masked() {
    let mut sandbox = Sandbox::script(
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do \
            [ -e $f ] && head -c 1 $f | wc -c; done; \
         for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware; do [ -d $d ] && ls $d | wc -l; done; \
         umount /proc/keys 2>/dev/null && echo UNMOUNTED; umount /proc/sys 2>/dev/null && echo UNMOUNTED; \
         mount -o remount,rw /proc/sys 2>/dev/null && echo REMOUNTED; true",
    );
    applets(&sandbox, &["umount"]);
    let out = sandbox.stdout();
    assert!(!out.is_empty() && out.lines().all(|line| line == "0"), "{out}");
    // The filter has nothing to do with it: without one the rights are missing.
    sandbox.linux().seccomp = None;
    let out = sandbox.stdout();
    assert!(!out.is_empty() && out.lines().all(|line| line == "0"), "{out}");
}

#[test]
fn the_program_is_no_longer_hidden_from_itself() {
    // PR_SET_DUMPABLE of the runtime must not stay: debuggers and /proc/self belong to the user's program.
    let mut sandbox = Sandbox::script(
        "ls -ld /proc/self/fd | head -n 1; cat /proc/self/environ > /dev/null && echo readable",
    );
    sandbox.process().user = oci::User { uid: 33, gid: 33, ..oci::User::default() };
    let out = sandbox.stdout();
    assert!(out.contains("readable") && out.contains(" 33 "), "{out}");
}

#[test]
fn no_signal_reaches_a_process_outside() {
    let sandbox = Sandbox::script("kill -0 -1 2>&1; kill -9 -1 2>&1; echo survived");
    assert!(sandbox.stdout().contains("survived"));
}
