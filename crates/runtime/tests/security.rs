//! The attacks that runtimes fell to, and what a container may not do. Needs root.

mod harness;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::{Command, Stdio},
};

use gantry_runtime::oci::{self, Mount, Seccomp, SeccompAction, SyscallRule, defaults};
use harness::{RUNTIME, Sandbox, copy_of_the_runtime, leftovers, text};

fn bind(source: &str, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some("bind".into()),
        source: Some(source.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

#[test]
fn capabilities_filter_and_no_new_privileges_are_dockers() {
    let sandbox = Sandbox::script("cat /proc/self/status");
    let status = sandbox.stdout();
    let line =
        |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().split('\t').nth(1).unwrap();
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(line(set), "00000000a80425fb", "{set}");
    }
    assert_eq!((line("CapInh:"), line("CapAmb:")), ("0000000000000000", "0000000000000000"));
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1", "2"));
}

#[test]
fn the_filter_is_loaded_with_and_without_new_privileges_and_for_users() {
    for no_new_privileges in [true, false] {
        for uid in [0, 33] {
            let mut sandbox =
                Sandbox::script("id -u; grep -E 'Seccomp:|CapEff' /proc/self/status; unshare -U true");
            std::os::unix::fs::symlink("busybox", sandbox.rootfs().join("bin/grep")).unwrap();
            sandbox.process().no_new_privileges = no_new_privileges;
            sandbox.process().user =
                oci::User { uid, gid: uid, umask: Some(0o027), additional_gids: vec![7, 8] };
            let output = sandbox.run();
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert!(out.starts_with(&format!("{uid}\n")) && out.contains("Seccomp:\t2"), "{out} {err}");
            assert!(uid == 0 || out.contains("CapEff:\t0000000000000000"), "{out}");
            assert!(err.contains("Operation not permitted"), "CLONE_NEWUSER is refused: {err}");
        }
    }
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let mut sandbox = Sandbox::script("grep -E 'CapEff|CapAmb' /proc/self/status; id");
    symlink("busybox", sandbox.rootfs().join("bin/grep")).unwrap();
    let bind_service = vec!["CAP_NET_BIND_SERVICE".to_owned()];
    sandbox.process().user = oci::User { uid: 33, gid: 33, umask: None, additional_gids: vec![50] };
    sandbox.process().capabilities = Some(oci::Capabilities {
        bounding: bind_service.clone(),
        effective: bind_service.clone(),
        inheritable: bind_service.clone(),
        permitted: bind_service.clone(),
        ambient: bind_service,
    });
    let out = sandbox.stdout();
    assert!(out.contains("CapEff:\t0000000000000400") && out.contains("CapAmb:\t0000000000000400"), "{out}");
    assert!(out.contains("groups=33(") || out.contains("groups=33,") || out.contains("50"), "{out}");
}

#[test]
fn ambient_capabilities_that_cannot_be_are_left_out() {
    // As `runc spec` of Debian writes them: ambient without inheritable.
    let mut sandbox = Sandbox::script("grep -E CapAmb /proc/self/status");
    symlink("busybox", sandbox.rootfs().join("bin/grep")).unwrap();
    sandbox.process().capabilities.as_mut().unwrap().ambient = vec!["CAP_KILL".to_owned()];
    assert_eq!(sandbox.stdout(), "CapAmb:\t0000000000000000\n");
}

#[test]
fn a_custom_filter_decides_as_written() {
    let mut sandbox = Sandbox::script("mkdir /tmp/x");
    sandbox.linux().seccomp = Some(Seccomp {
        default_action: SeccompAction::Allow,
        syscalls: vec![SyscallRule {
            names: vec!["mkdir".into(), "mkdirat".into()],
            action: SeccompAction::Errno,
            errno_ret: Some(95),
            args: Vec::new(),
        }],
        ..Seccomp::default()
    });
    let output = sandbox.run();
    assert!(text(&output.stderr).contains("not supported"), "{}", text(&output.stderr));
}

#[test]
fn masked_and_read_only_paths_hold() {
    let sandbox = Sandbox::script(
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; ls /proc/acpi | wc -l; \
         for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /sys/x /sys/firmware/x /sys/fs/cgroup/x; do \
         (echo 1 > $f) 2>/dev/null && echo WROTE $f; done; true",
    );
    let out = sandbox.stdout();
    assert_eq!(out, "0\n0\n0\n");
}

#[test]
fn a_mount_over_a_link_stays_inside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::script("ls /target-dir /etc/hosts && cat /etc/hosts");
    let source = sandbox.path("hosts");
    fs::write(&source, "content\n").unwrap();
    // The image points both at the host (CVE-2021-30465): both must end inside.
    symlink(outside.path(), sandbox.rootfs().join("target-dir")).unwrap();
    symlink(outside.path().join("hosts"), sandbox.rootfs().join("etc/hosts")).unwrap();
    sandbox.spec.mounts.push(Mount {
        destination: "/target-dir/deep".into(),
        kind: Some("tmpfs".into()),
        source: Some("tmpfs".into()),
        ..Mount::default()
    });
    let inside = sandbox.rootfs().join(outside.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("hosts"), "").unwrap();
    sandbox.spec.mounts.push(bind(source.to_str().unwrap(), "/etc/hosts", &["ro"]));
    let out = sandbox.stdout();
    assert!(out.contains("deep") && out.contains("content"), "{out}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was made on the host");
}

#[test]
fn proc_and_sys_of_an_image_may_not_be_links_nor_be_mounted_into() {
    let sandbox = Sandbox::new(&["/bin/true"]);
    fs::remove_dir(sandbox.rootfs().join("proc")).unwrap();
    symlink("/tmp", sandbox.rootfs().join("proc")).unwrap();
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("/proc of the image is not a folder"), "{error}");
    let mut sandbox = Sandbox::new(&["/bin/true"]);
    sandbox.spec.mounts.push(bind("/tmp", "/proc/sys/kernel", &["rbind"]));
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("inside /proc"), "{error}");
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn no_link_of_an_image_and_no_dots_lead_a_mount_into_proc() {
    // CVE-2019-16884: an image whose volume lies below a link to /proc.
    for destination in ["/link/sys/kernel", "/link", "/etc/../proc/sys/kernel"] {
        let mut sandbox = Sandbox::new(&["/bin/true"]);
        symlink("/proc", sandbox.rootfs().join("link")).unwrap();
        sandbox.spec.mounts.push(bind("/tmp", destination, &["rbind"]));
        let error = text(&sandbox.run().stderr);
        assert!(
            error.contains(&format!("{destination} cannot be mounted because it is inside /proc")),
            "{error}"
        );
    }
}

#[test]
fn the_hosts_null_device_cannot_be_changed_from_inside() {
    let facts = |path: &str| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.mode(), metadata.uid(), metadata.gid())
    };
    let before = facts("/dev/null");
    // A hidden file is the host's device, to be given what it has: that must fail, too. The standard descriptors are the container's own
    // device, which it may change.
    let sandbox = Sandbox::script(
        "for f in /proc/keys /proc/self/fd/0 /proc/self/fd/2; do \
         [ $(stat -L -c %d:%i $f) = $(stat -c %d:%i /dev/null) ] && echo own ${f##*/}; chmod 666 $f && echo changed $f; chown 0:0 $f && echo owned $f; done; \
         cat /dev/stdin && echo x > /proc/keys && echo usable",
    );
    symlink("busybox", sandbox.rootfs().join("bin/chmod")).unwrap();
    symlink("busybox", sandbox.rootfs().join("bin/chown")).unwrap();
    sandbox.save();
    let changed = |number: u32| format!("changed /proc/self/fd/{number}\nowned /proc/self/fd/{number}\n");
    let null = || Stdio::from(fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
    let bundle = sandbox.bundle();
    let mut command = sandbox.command(&["run", "--bundle", bundle.to_str().unwrap(), "null"]);
    let output = command.stdin(null()).stderr(null()).output().unwrap();
    assert_eq!(text(&output.stdout), format!("own 0\n{}own 2\n{}usable\n", changed(0), changed(2)));
    assert_eq!(facts("/dev/null"), before);
    let mut monitor = sandbox.monitor("m", &sandbox.monitor_config());
    monitor.created();
    let mut client = monitor.attach(gantry_runtime::monitor::Subscription::ALL);
    monitor.started();
    let (out, error, _) = client.rest();
    // Its pipe for errors is the container's own.
    assert_eq!(out, format!("own 0\n{}{}usable\n", changed(0), changed(2)), "{error}");
    assert_eq!(facts("/dev/null"), before);
}

#[test]
fn masked_files_do_not_depend_on_the_images_null_device() {
    // CVE-2025-31133: a link in place of /dev/null must not become what masked files show. /dev is a fresh tmpfs here;
    // without that mount the image's own /dev counts.
    let mut sandbox = Sandbox::script("cat /proc/keys; ls -l /dev/null");
    sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    symlink("/proc/sys/kernel/core_pattern", sandbox.rootfs().join("dev/null")).unwrap();
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("create device /dev/null") && error.contains("replace another file"), "{error}");
}

#[test]
fn the_console_is_mounted_over_nothing_that_the_image_chose() {
    // CVE-2025-52565: /dev/console as a link.
    let mut sandbox = Sandbox::script("true");
    sandbox.process().terminal = true;
    sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    symlink("/proc/sysrq-trigger", sandbox.rootfs().join("dev/console")).unwrap();
    let mut config = sandbox.monitor_config();
    config.terminal = true;
    let mut monitor = sandbox.monitor("m", &config);
    let report = monitor.report();
    // The mount lands on the link itself or is refused; never on what it points at.
    if let gantry_runtime::monitor::Report::Failed { message, .. } = &report {
        assert!(message.contains("/dev/console"), "{message}");
    }
}

#[test]
fn the_working_folder_cannot_lead_out_through_a_descriptor() {
    // CVE-2024-21626.
    for number in 3..12 {
        let mut sandbox = Sandbox::script("pwd; ls -a ..");
        sandbox.process().cwd = format!("/proc/self/fd/{number}");
        let output = sandbox.run();
        assert!(!output.status.success(), "{}", text(&output.stdout));
    }
}

#[test]
fn no_descriptor_of_the_runtime_reaches_the_program() {
    let sandbox = Sandbox::script("ls /proc/self/fd | wc -l");
    // Three, and the one that ls opens itself.
    assert_eq!(sandbox.stdout().trim(), "4");
}

#[test]
fn the_runtimes_file_cannot_be_overwritten_from_inside() {
    // CVE-2019-5736: the container executes /proc/self/exe, which is the runtime, and tries to write to it.
    let before = fs::metadata(RUNTIME).map(|metadata| (metadata.mtime(), metadata.size())).unwrap();
    let mut sandbox = Sandbox::script("exec sleep 1000");
    sandbox.linux().seccomp = None;
    sandbox.process().capabilities = Some(defaults::capability_sets(&defaults::all_capabilities()));
    assert!(sandbox.create().status.success());
    sandbox.output(&["start", &sandbox.id]);
    let script = "i=0; while [ $i -lt 400 ]; do for p in /proc/[0-9]*; do \
                  case $(ls -l $p/exe 2>/dev/null) in *gantry*) echo found; (echo x >> $p/exe) 2>/dev/null && echo WROTE;; esac; \
                  done; i=$((i+1)); done";
    let mut attacker = sandbox.command(&["exec", &sandbox.id, "/bin/sh", "-c", script]);
    let attacker = attacker.stdout(std::process::Stdio::piped()).spawn().unwrap();
    for _ in 0..20 {
        let link = sandbox.output(&["exec", &sandbox.id, "/proc/self/exe", "spec"]);
        drop(link);
    }
    // A direct try, by a program that is the runtime itself and runs as root of the container.
    let direct =
        sandbox.output(&["exec", &sandbox.id, "/bin/sh", "-c", "(echo x >> /proc/1/exe) 2>&1; true"]);
    drop(direct);
    sandbox.output(&["delete", "--force", &sandbox.id]);
    let seen = text(&attacker.wait_with_output().unwrap().stdout);
    assert!(!seen.contains("WROTE"), "{seen}");
    assert_eq!(fs::metadata(RUNTIME).map(|metadata| (metadata.mtime(), metadata.size())).unwrap(), before);
}

#[test]
fn a_descriptor_of_the_runtime_kept_from_its_time_as_first_process_stays_read_only() {
    // The second half of CVE-2019-5736: the file is no longer being executed, so nothing but the mount protects it.
    let sandbox = Sandbox::script("exec sleep 1000");
    let copy = sandbox.path("runtime-copy");
    copy_of_the_runtime(&copy);
    sandbox.save();
    let created = Command::new(&copy)
        .arg("--root")
        .arg(sandbox.root())
        .args(["create", "--bundle"])
        .arg(sandbox.bundle())
        .arg(&sandbox.id)
        .status()
        .unwrap();
    assert!(created.success());
    let kept = fs::File::open(format!("/proc/{}/exe", sandbox.state()["pid"])).unwrap();
    assert_eq!(
        kept.metadata().unwrap().ino(),
        fs::metadata(&copy).unwrap().ino(),
        "the first process is the runtime"
    );
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let error = fs::OpenOptions::new().append(true).open(path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
}

#[test]
fn devices_are_those_of_the_rules() {
    let sandbox = Sandbox::script(
        "echo x > /dev/null && head -c 1 /dev/zero | wc -c; \
         busybox mknod /tmp/mem c 1 1; (cat /tmp/mem > /dev/null) 2>&1; ls -l /dev/tty",
    );
    let out = sandbox.stdout();
    assert!(out.starts_with("1\n") && out.contains("Operation not permitted"), "{out}");
    assert!(out.contains("crw-rw-rw-"), "{out}");
}

#[test]
fn a_read_only_root_and_read_only_mounts_refuse_writing() {
    let mut sandbox =
        Sandbox::script("(echo x > /x) 2>&1; (echo x > /ro/x) 2>&1; (echo x > /rw/x) && echo wrote; pwd");
    sandbox.spec.root = Some(oci::Root { path: "rootfs".into(), readonly: true });
    let volume = sandbox.path("volume");
    fs::create_dir(&volume).unwrap();
    sandbox.spec.mounts.push(bind(volume.to_str().unwrap(), "/ro", &["rbind", "ro", "rprivate"]));
    sandbox.spec.mounts.push(bind(volume.to_str().unwrap(), "/rw", &["rbind", "rprivate"]));
    sandbox.process().cwd = "/work/folder".into();
    let out = sandbox.stdout();
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
    assert!(out.contains("wrote") && out.contains("/work/folder"), "{out}");
    assert!(volume.join("x").exists());
}

#[test]
fn sysctls_of_own_namespaces_are_set_and_others_refused() {
    let mut sandbox =
        Sandbox::script("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    sandbox.linux().sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    sandbox.linux().sysctl.insert("kernel.shmmni".into(), "77".into());
    assert_eq!(sandbox.stdout(), "0\n77\n");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap().trim(), "77");
    sandbox.linux().sysctl.insert("kernel.core_pattern".into(), "x".into());
    assert!(text(&sandbox.run().stderr).contains("not in a separate kernel namespace"));
}

#[test]
fn a_privileged_container_sees_and_may_everything() {
    let mut sandbox = Sandbox::script(
        "mount -t tmpfs t /tmp && grep CapEff /proc/self/status; (echo > /proc/sys/x) 2>&1; true",
    );
    symlink("busybox", sandbox.rootfs().join("bin/grep")).unwrap();
    let linux = sandbox.linux();
    linux.seccomp = None;
    linux.masked_paths.clear();
    linux.readonly_paths.clear();
    linux.resources.as_mut().unwrap().devices = defaults::privileged_device_rules();
    let caps = defaults::all_capabilities();
    sandbox.process().capabilities = Some(defaults::capability_sets(&caps));
    sandbox.process().no_new_privileges = false;
    let out = sandbox.stdout();
    let bits = gantry_linux::capability::CapSet::permitted().bits();
    assert!(out.contains(&format!("CapEff:\t{bits:016x}")), "{out}");
}

#[test]
fn namespaces_and_limits_are_the_containers_own() {
    let mut sandbox = Sandbox::script(
        "cat /proc/self/cgroup | head -n 3; cat /proc/self/limits; readlink /proc/self/ns/* | head -n 30",
    );
    symlink("busybox", sandbox.rootfs().join("bin/readlink")).unwrap();
    sandbox.spec.process.as_mut().unwrap().rlimits =
        vec![oci::Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 123, hard: 456 }];
    let out = sandbox.stdout();
    assert!(out.contains(":/\n"), "a cgroup namespace of its own: {out}");
    assert!(
        out.lines()
            .any(|line| line.starts_with("Max open files") && line.contains("123") && line.contains("456"))
    );
    for name in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(!out.contains(host.to_str().unwrap()), "{name} is shared: {out}");
    }
    let mode = fs::metadata(sandbox.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_v2_device_filter_is_accepted_by_the_kernel() {
    // On this layout v1 decides about devices; the program for v2 is tried on a group of its own.
    use gantry_linux::cgroup::{Cgroup, DeviceAccess, DeviceKind, DeviceRule, Hierarchies, Limits, Version};
    let all = Hierarchies::detect().unwrap();
    let Some(mount) =
        all.iter().find(|hierarchy| hierarchy.version == Version::V2).map(|v2| v2.mount.clone())
    else {
        return;
    };
    let name = format!("gty-{}-devices", std::process::id());
    let unified = all.only_unified();
    let group = Cgroup::at(&unified, &name).unwrap();
    group.create().unwrap();
    let deny = DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    };
    let null = DeviceRule {
        allow: true,
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(3),
        access: DeviceAccess::ALL,
    };
    let limits = Limits { devices: vec![deny, null], ..Limits::default() };
    let applied = group.apply(&limits).and_then(|_| group.apply(&limits));
    let script = format!(
        "echo $$ > {}/{name}/cgroup.procs; echo x > /dev/null && echo null; head -c 1 /dev/zero > /dev/null || echo refused",
        mount.display()
    );
    let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    group.remove().unwrap();
    applied.unwrap();
    assert_eq!(text(&output.stdout), "null\nrefused\n", "{}", text(&output.stderr));
}
