//! Containers of an ordinary user. Needs root, to become one.

mod harness;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use gantry_runtime::oci::{self, IdMapping, Memory, Mount, Namespace, NamespaceKind, NetDevice, TimeOffset};
use harness::{Sandbox, await_that, copy_of_the_runtime, text};

/// `nobody`, who owns nothing else and has no group of cgroups.
const USER: u32 = 65_534;

/// A sandbox that belongs to an ordinary user, with a configuration like that of `spec --rootless`.
struct Rootless {
    sandbox: Sandbox,
}

impl Rootless {
    fn new(script: &str) -> Rootless {
        let mut sandbox = Sandbox::script(script);
        sandbox.linux().cgroups_path = None;
        sandbox.linux().resources = None;
        sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
        sandbox.linux().uid_mappings = vec![IdMapping { container_id: 0, host_id: USER, size: 1 }];
        sandbox.linux().gid_mappings = vec![IdMapping { container_id: 0, host_id: USER, size: 1 }];
        for mount in &mut sandbox.spec.mounts {
            // Group 5 is not mapped.
            mount.options.retain(|option| option != "gid=5");
        }
        // Where the build is may be closed to others.
        copy_of_the_runtime(&sandbox.path("runtime"));
        fs::create_dir(sandbox.path("xdg")).unwrap();
        give(&sandbox.path(""), USER);
        Rootless { sandbox }
    }

    /// The runtime as that user, without `--root`, after further words of setpriv(1)'s caller.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
            .arg(self.sandbox.path("runtime"))
            .args(args)
            .env("XDG_RUNTIME_DIR", self.sandbox.path("xdg"))
            .current_dir(self.sandbox.bundle())
            .stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.sandbox.save();
        self.command(args).output().expect("package util-linux")
    }

    fn stdout(&self) -> String {
        let output = self.output(&["run", &self.sandbox.id]);
        assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    fn failure(&self) -> String {
        let output = self.output(&["run", &self.sandbox.id]);
        assert!(!output.status.success(), "{}", text(&output.stdout));
        assert!(!self.state_folder().exists(), "nothing is left");
        text(&output.stderr)
    }

    fn state_folder(&self) -> PathBuf {
        self.sandbox.path("xdg/gantry-runtime").join(&self.sandbox.id)
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.sandbox.id]).stderr(Stdio::null()).status();
    }
}

/// Gives a tree to a user.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

#[test]
fn an_ordinary_user_runs_a_container() {
    let rootless = Rootless::new(
        "id -u; id -g; busybox hostname; echo x > /dev/null; touch /tmp/made; busybox tr -s ' ' < /proc/self/uid_map; cat /proc/self/setgroups; \
         ls /sys/fs/cgroup | busybox head -n 1; busybox readlink /proc/self/exe; exit 0",
    );
    let out = rootless.stdout();
    assert!(out.starts_with("0\n0\ngantry\n 0 65534 1\ndeny\n"), "{out}");
    assert!(out.ends_with("/bin/busybox\n"), "{out}");
    let made = fs::metadata(rootless.sandbox.rootfs().join("tmp/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (USER, USER));
    assert!(!rootless.state_folder().exists());
}

#[test]
fn all_commands_work_for_an_ordinary_user() {
    let rootless = Rootless::new("echo begun > /tmp/begun; sleep 1000");
    let id = rootless.sandbox.id.clone();
    rootless.sandbox.save();
    let run = |args: &[&str]| {
        let output = rootless.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let out = fs::File::create(rootless.sandbox.path("out")).unwrap();
    let mut create = rootless.command(&["create", &id]);
    let status = create.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(rootless.sandbox.path("out")).unwrap());
    let state = || -> serde_json::Value { serde_json::from_str(&run(&["state", &id])).unwrap() };
    assert_eq!(state()["status"], "created");
    run(&["start", &id]);
    assert_eq!(state()["status"], "running");
    await_that("the program has begun", || rootless.sandbox.rootfs().join("tmp/begun").exists());
    assert!(run(&["list", "-q"]).contains(&id));
    let inside = run(&[
        "exec",
        &id,
        "/bin/sh",
        "-c",
        "id -u; cat /proc/1/cmdline | busybox tr '\\0' ' '; busybox readlink /proc/self/ns/user; busybox readlink /proc/1/ns/user",
    ]);
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(lines[0], "0");
    let (command, own) = lines[1].split_once("user:").unwrap_or((lines[1], ""));
    assert!(command.contains("sleep 1000"), "{inside}");
    assert_eq!(lines.last().unwrap().trim_start_matches("user:"), own, "the same user namespace: {inside}");
    run(&["kill", &id, "KILL"]);
    await_that("the end", || state()["status"] == "stopped");
    run(&["delete", &id]);
    assert!(!rootless.state_folder().exists());
}

#[test]
fn clocks_and_networks_of_an_ordinary_user_are_his_own() {
    let mut rootless = Rootless::new(
        "cat /proc/uptime; cat /proc/sys/net/ipv4/ip_forward; mount -t tmpfs x /tmp 2>&1; busybox ip link | busybox grep -c lo:",
    );
    rootless.sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::Time, path: None });
    let offset = TimeOffset { secs: 7_000_000, nanosecs: 0 };
    rootless.sandbox.linux().time_offsets.insert("boottime".into(), offset);
    rootless.sandbox.linux().sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    let out = rootless.stdout();
    let mut lines = out.lines();
    let uptime: f64 = lines.next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 7_000_000.0, "{out}");
    assert_eq!(lines.next(), Some("1"), "{out}");
}

#[test]
fn what_only_root_may_have_is_refused_with_the_reason() {
    let mut rootless = Rootless::new("true");
    rootless.sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::User);
    rootless.sandbox.linux().uid_mappings.clear();
    rootless.sandbox.linux().gid_mappings.clear();
    assert!(rootless.failure().contains("a container of an ordinary user needs a user namespace"));

    let mut rootless = Rootless::new("true");
    let memory = Memory { limit: Some(64 << 20), ..Memory::default() };
    rootless.sandbox.linux().resources = Some(oci::Resources { memory: Some(memory), ..Default::default() });
    let error = rootless.failure();
    assert!(error.contains("limits need cgroups, and this user may not make any here"), "{error}");

    let mut rootless = Rootless::new("true");
    rootless.sandbox.linux().net_devices.insert("eth0".into(), NetDevice::default());
    assert!(rootless.failure().contains("an ordinary user cannot move network devices"));

    let mut rootless = Rootless::new("true");
    let map = vec![IdMapping { container_id: 0, host_id: USER, size: 1 }];
    rootless.sandbox.spec.mounts.push(Mount {
        destination: "/t".into(),
        source: Some("/tmp".into()),
        options: vec!["bind".into(), "idmap".into()],
        uid_mappings: map.clone(),
        gid_mappings: map,
        ..Mount::default()
    });
    let error = rootless.failure();
    assert!(error.contains("/t: id-mapped mounts need more rights than an ordinary user has"), "{error}");

    let mut rootless = Rootless::new("true");
    rootless.sandbox.process().user.additional_gids = vec![7];
    let error = rootless.failure();
    assert!(error.contains("set groups [7]: Operation not permitted"), "{error}");
}

#[test]
fn further_ids_come_from_newuidmap() {
    let mut rootless = Rootless::new(
        "busybox tr -s ' ' < /proc/self/uid_map; busybox tr -s ' ' < /proc/self/gid_map; id -u; id -G",
    );
    rootless.sandbox.linux().uid_mappings.push(IdMapping { container_id: 1, host_id: 700_000, size: 1000 });
    rootless.sandbox.linux().gid_mappings.push(IdMapping { container_id: 1, host_id: 700_000, size: 1000 });
    rootless.sandbox.process().user = oci::User { uid: 33, gid: 44, umask: None, additional_gids: vec![55] };
    rootless.sandbox.save();
    // Who is not listed gets none.
    let error = rootless.failure();
    assert!(error.contains("newuidmap: exit status: 1"), "package uidmap: {error}");
    // Without the program.
    let output = rootless.command(&["run", &rootless.sandbox.id]).env("PATH", "/nowhere").output();
    let error = text(&output.unwrap().stderr);
    assert!(error.contains("newuidmap is needed") && error.contains("Debian package uidmap"), "{error}");
    // The machine's own files stay as they are.
    let granted = rootless.sandbox.path("granted");
    fs::write(&granted, "nobody:700000:1000\n").unwrap();
    chown(&granted, Some(0), Some(0)).unwrap();
    let script = "mount --bind ../granted /etc/subuid; mount --bind ../granted /etc/subgid; exec \"$@\"";
    let run = rootless.command(&["run", &rootless.sandbox.id]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]);
    command.arg(run.get_program()).args(run.get_args()).current_dir(rootless.sandbox.bundle());
    command.env("XDG_RUNTIME_DIR", rootless.sandbox.path("xdg")).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(
        text(&output.stdout),
        " 0 65534 1\n 1 700000 1000\n 0 65534 1\n 1 700000 1000\n33\n44 55\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_runtime_of_an_ordinary_user_is_protected_too() {
    // The container's root is the owner of the runtime's file: what it could reach by /proc/PID/exe is a sealed copy.
    let rootless = Rootless::new("true");
    let id = rootless.sandbox.id.clone();
    rootless.sandbox.save();
    let out = fs::File::create(rootless.sandbox.path("out")).unwrap();
    let status =
        rootless.command(&["create", &id]).stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(rootless.sandbox.path("out")).unwrap());
    let state = text(&rootless.command(&["state", &id]).output().unwrap().stdout);
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let executable = PathBuf::from(format!("/proc/{}/exe", state["pid"]));
    let name = fs::read_link(&executable).unwrap();
    assert!(name.to_str().unwrap().starts_with("/memfd:executable"), "{name:?}");
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&executable)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
    assert!(written.is_err());
}

#[test]
fn a_runtime_under_an_engine_that_is_root_of_a_user_namespace_only() {
    // As rootless Podman calls it: root of a user namespace that the engine has made, and no word of it in the configuration.
    let mut rootless = Rootless::new(
        "id -u; echo x > /dev/null; touch /tmp/made; busybox hostname; ls /sys/fs/cgroup | busybox head -n 1; busybox tr -s ' ' < /proc/self/uid_map",
    );
    let linux = rootless.sandbox.linux();
    linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::User);
    linux.uid_mappings.clear();
    linux.gid_mappings.clear();
    linux.resources = Some(oci::Resources { devices: oci::defaults::device_rules(), ..Default::default() });
    rootless.sandbox.save();
    let script = "$RUNTIME run $ID; \
         sed -i 's/id -u.*self.uid_map/sleep 1000/' config.json; \
         $RUNTIME create $ID-2 > /dev/null 2>&1 < /dev/null && $RUNTIME start $ID-2 && \
         $RUNTIME exec $ID-2 /bin/sh -c 'cat /proc/1/cmdline | busybox tr -d \"\\0\"; readlink() { busybox readlink $1; }; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid'; \
         $RUNTIME delete --force $ID-2";
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
        .args([
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-euc",
            script,
        ])
        .env("RUNTIME", rootless.sandbox.path("runtime"))
        .env("ID", &rootless.sandbox.id)
        .env("XDG_RUNTIME_DIR", rootless.sandbox.path("xdg"))
        .env("USER", "nobody")
        .current_dir(rootless.sandbox.bundle())
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out} {}", text(&output.stderr));
    let (first, second) = out.split_once(" 0 65534 1\n").unwrap_or_else(|| panic!("{out}"));
    assert!(first.starts_with("0\ngantry\n"), "{out}");
    // The pid namespace is the container's, from which the runtime itself could not return.
    let (command, namespaces) = second.split_once("pid:").unwrap_or_else(|| panic!("{out}"));
    assert!(command.contains("sleep1000"), "{out}");
    let namespaces: Vec<&str> = namespaces.lines().map(|line| line.trim_start_matches("pid:")).collect();
    assert_eq!(namespaces[0], namespaces[1]);
    assert_eq!(fs::metadata(rootless.sandbox.rootfs().join("tmp/made")).unwrap().uid(), USER);
    assert_eq!(
        fs::read_dir(rootless.sandbox.path("xdg/gantry-runtime")).unwrap().count(),
        0,
        "nothing is left"
    );
}
