//! Namespaces that are joined or made with settings of their own. Needs root.

mod harness;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gantry_runtime::oci::{IdMapping, Namespace, NamespaceKind, TimeOffset};
use harness::{Sandbox, await_that, leftovers, text};

/// A process that keeps namespaces alive.
struct Holder(Child);

impl Holder {
    /// With new namespaces, as unshare(1) names them.
    fn new(flags: &[&str]) -> Holder {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", "echo ready; exec sleep 1000"]).stdout(Stdio::piped());
        let mut holder = Holder(command.spawn().expect("package util-linux"));
        let mut line = String::new();
        let output = holder.0.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        holder
    }

    fn namespace(&self, file: &str) -> PathBuf {
        format!("/proc/{}/ns/{file}", self.0.id()).into()
    }

    /// Maps root and 65535 more to 100000 on.
    fn map_ids(&self) {
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", self.0.id()), "0 100000 65536").unwrap();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn identity(path: &Path) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

/// Asks for a namespace in place of any of its kind.
fn use_namespace(sandbox: &mut Sandbox, kind: NamespaceKind, path: Option<PathBuf>) {
    let namespaces = &mut sandbox.linux().namespaces;
    namespaces.retain(|namespace| namespace.kind != kind);
    namespaces.push(Namespace { kind, path });
}

fn map_ids(sandbox: &mut Sandbox) {
    let map = IdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
    sandbox.linux().uid_mappings = vec![map];
    sandbox.linux().gid_mappings = vec![map];
}

/// Lets the users of a user namespace reach the root file system, and own it.
fn give_rootfs(sandbox: &Sandbox) {
    let rootfs = sandbox.rootfs();
    for folder in rootfs.ancestors().take(3) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["", "dev", "proc", "sys", "tmp"] {
        std::os::unix::fs::chown(rootfs.join(name), Some(100_000), Some(100_000)).unwrap();
    }
}

#[test]
fn every_kind_is_joined_by_its_path() {
    for (kind, flags, file, inside) in [
        (NamespaceKind::Network, &["--net"][..], "net", "net"),
        (NamespaceKind::Ipc, &["--ipc"], "ipc", "ipc"),
        (NamespaceKind::Uts, &["--uts"], "uts", "uts"),
        (NamespaceKind::Cgroup, &["--cgroup"], "cgroup", "cgroup"),
        (NamespaceKind::Mount, &["--mount"], "mnt", "mnt"),
        (NamespaceKind::Time, &["--time", "--fork", "--kill-child"], "time_for_children", "time"),
        (NamespaceKind::Pid, &["--pid", "--fork", "--kill-child"], "pid_for_children", "pid"),
    ] {
        let holder = Holder::new(flags);
        let mut sandbox = Sandbox::script(&format!("busybox readlink /proc/self/ns/{inside}"));
        sandbox.spec.hostname = None;
        let path = holder.namespace(file);
        let wanted = identity(&path);
        use_namespace(&mut sandbox, kind, Some(path));
        assert_eq!(sandbox.stdout().trim(), wanted, "{kind:?}");
        assert!(leftovers(&sandbox).is_empty());
    }
}

#[test]
fn a_user_namespace_is_joined_with_one_that_belongs_to_it() {
    let holder = Holder::new(&["--user", "--net"]);
    holder.map_ids();
    let mut sandbox = Sandbox::script(
        "busybox readlink /proc/self/ns/user; busybox readlink /proc/self/ns/net; busybox tr -s ' ' < /proc/self/uid_map; id -u; echo x > /dev/null; \
         touch /tmp/made; mount -t tmpfs x /tmp || echo refused",
    );
    let (user, net) = (identity(&holder.namespace("user")), identity(&holder.namespace("net")));
    use_namespace(&mut sandbox, NamespaceKind::Network, Some(holder.namespace("net")));
    use_namespace(&mut sandbox, NamespaceKind::User, Some(holder.namespace("user")));
    give_rootfs(&sandbox);
    assert_eq!(sandbox.stdout(), format!("{user}\n{net}\n 0 100000 65536\n0\nrefused\n"));
    // A further process finds its way too, and the container ends like any other.
    sandbox.process().args = ["sleep", "1000"].map(str::to_owned).to_vec();
    assert!(sandbox.create().status.success(), "{}", text(&fs::read(sandbox.path("err")).unwrap()));
    sandbox.output(&["start", &sandbox.id]);
    let exec = sandbox.output(&["exec", &sandbox.id, "/bin/busybox", "readlink", "/proc/self/ns/user"]);
    assert_eq!(text(&exec.stdout).trim(), user, "{}", text(&exec.stderr));
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_new_user_namespace_goes_with_joined_ones_of_the_host() {
    // An ipc and a pid namespace of root: both can be joined only before the user namespace exists.
    let holder = Holder::new(&["--ipc", "--pid", "--fork", "--kill-child"]);
    let mut sandbox =
        Sandbox::script("busybox readlink /proc/self/ns/ipc; busybox tr -s ' ' < /proc/self/gid_map; id -u");
    let ipc = identity(&holder.namespace("ipc"));
    use_namespace(&mut sandbox, NamespaceKind::Ipc, Some(holder.namespace("ipc")));
    use_namespace(&mut sandbox, NamespaceKind::User, None);
    // A message queue of the host's namespace cannot be mounted anew from a user namespace.
    sandbox.spec.mounts.retain(|mount| mount.kind.as_deref() != Some("mqueue"));
    map_ids(&mut sandbox);
    give_rootfs(&sandbox);
    assert_eq!(sandbox.stdout(), format!("{ipc}\n 0 100000 65536\n0\n"));
}

#[test]
fn clocks_of_a_new_time_namespace_are_offset() {
    let uptime = || -> f64 {
        let text = fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    for user in [false, true] {
        let mut sandbox = Sandbox::script("cat /proc/uptime; busybox tr -s ' ' < /proc/self/timens_offsets");
        use_namespace(&mut sandbox, NamespaceKind::Time, None);
        let offsets = &mut sandbox.linux().time_offsets;
        offsets.insert("boottime".into(), TimeOffset { secs: 7_000_000, nanosecs: 5 });
        offsets.insert("monotonic".into(), TimeOffset { secs: 3, nanosecs: 0 });
        if user {
            use_namespace(&mut sandbox, NamespaceKind::User, None);
            map_ids(&mut sandbox);
            give_rootfs(&sandbox);
        }
        let before = uptime();
        let out = sandbox.stdout();
        let inside: f64 = out.split(' ').next().unwrap().parse().unwrap();
        let ahead = inside - before;
        assert!((7_000_000.0..7_000_100.0).contains(&ahead), "{ahead}");
        assert!(out.ends_with("monotonic 3 0\nboottime 7000000 5\n"), "{out}");
    }
    // Without offsets it is only another namespace.
    let mut sandbox = Sandbox::script("busybox readlink /proc/self/ns/time");
    use_namespace(&mut sandbox, NamespaceKind::Time, None);
    assert_ne!(sandbox.stdout().trim(), identity(Path::new("/proc/self/ns/time")));
}

#[test]
fn an_offset_that_the_kernel_refuses_is_told_and_leaves_nothing() {
    let mut sandbox = Sandbox::script("true");
    use_namespace(&mut sandbox, NamespaceKind::Time, None);
    // It would put the clock before zero.
    sandbox.linux().time_offsets.insert("monotonic".into(), TimeOffset { secs: -1_000_000_000, nanosecs: 0 });
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("set the time offsets \"monotonic -1000000000 0\": Numerical result"), "{error}");
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn without_a_mount_namespace_only_the_root_changes() {
    let mut sandbox = Sandbox::script("echo /*; ls /dev; echo x > /dev/null");
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Mount);
    let error = text(&sandbox.run().stderr);
    assert!(
        error.contains("mounts: without a mount namespace this would change the host's mounts"),
        "{error}"
    );
    sandbox.spec.mounts.clear();
    sandbox.linux().masked_paths.clear();
    sandbox.linux().readonly_paths.clear();
    let out = sandbox.stdout();
    assert!(out.starts_with("/bin /dev /etc /proc /root /sys /tmp\n") && out.contains("urandom"), "{out}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(sandbox.bundle().to_str().unwrap()), "{mounts}");
}

#[test]
fn parameters_of_joined_namespaces_are_set_and_those_of_the_host_refused() {
    let holder = Holder::new(&["--net", "--uts"]);
    let mut sandbox = Sandbox::script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname");
    sandbox.spec.hostname = None;
    use_namespace(&mut sandbox, NamespaceKind::Network, Some(holder.namespace("net")));
    use_namespace(&mut sandbox, NamespaceKind::Uts, Some(holder.namespace("uts")));
    let sysctl = &mut sandbox.linux().sysctl;
    sysctl.insert("net/ipv4/ip_forward".into(), "1".into());
    sysctl.insert("kernel.domainname".into(), "gty.example".into());
    assert_eq!(sandbox.stdout(), "1\ngty.example\n");
    use_namespace(&mut sandbox, NamespaceKind::Network, Some("/proc/self/ns/net".into()));
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("is not allowed in the host's network namespace"), "{error}");
}

#[test]
fn a_domain_name_is_set_beside_the_host_name() {
    let mut sandbox = Sandbox::script("busybox hostname; cat /proc/sys/kernel/domainname");
    sandbox.spec.hostname = Some("gty-host".into());
    sandbox.spec.domainname = Some("gty.example".into());
    assert_eq!(sandbox.stdout(), "gty-host\ngty.example\n");
}

#[test]
fn a_container_in_the_hosts_pid_namespace_is_killed_whole() {
    let mut sandbox = Sandbox::script("sleep 1000 & exec sleep 1000");
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Pid);
    assert!(sandbox.create().status.success());
    sandbox.output(&["start", &sandbox.id]);
    let group = PathBuf::from("/sys/fs/cgroup/pids/gantry-test").join(&sandbox.id).join("cgroup.procs");
    await_that("two processes", || fs::read_to_string(&group).is_ok_and(|text| text.lines().count() == 2));
    assert!(sandbox.output(&["delete", "--force", &sandbox.id]).status.success());
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_further_process_is_in_every_namespace_of_the_container() {
    // Each kind is new or joined, so that the process must enter all eight.
    let holder = Holder::new(&["--user", "--net"]);
    holder.map_ids();
    let mut sandbox = Sandbox::script("exec sleep 1000");
    use_namespace(&mut sandbox, NamespaceKind::Network, Some(holder.namespace("net")));
    use_namespace(&mut sandbox, NamespaceKind::User, Some(holder.namespace("user")));
    use_namespace(&mut sandbox, NamespaceKind::Time, None);
    sandbox.linux().time_offsets.insert("boottime".into(), TimeOffset { secs: 5, nanosecs: 0 });
    give_rootfs(&sandbox);
    assert!(sandbox.create().status.success(), "{}", text(&fs::read(sandbox.path("err")).unwrap()));
    assert!(sandbox.output(&["start", &sandbox.id]).status.success());
    let pid = sandbox.state()["pid"].to_string();
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let script = kinds.map(|kind| format!("busybox readlink /proc/self/ns/{kind}; ")).concat();
    let exec = sandbox.output(&["exec", &sandbox.id, "/bin/sh", "-c", &script]);
    let wanted = kinds.map(|kind| identity(Path::new(&format!("/proc/{pid}/ns/{kind}"))) + "\n").concat();
    assert_eq!(text(&exec.stdout), wanted, "{}", text(&exec.stderr));
    for kind in kinds {
        let own = identity(Path::new(&format!("/proc/self/ns/{kind}")));
        assert!(!wanted.contains(&own), "{kind}");
    }
}

#[test]
fn a_monitor_stays_with_a_container_that_a_stage_has_made() {
    let mut sandbox = Sandbox::script("cat /proc/uptime; exit 7");
    use_namespace(&mut sandbox, NamespaceKind::Time, None);
    sandbox.linux().time_offsets.insert("boottime".into(), TimeOffset { secs: 7_000_000, nanosecs: 0 });
    let mut monitor = sandbox.monitor("monitor", &sandbox.monitor_config());
    monitor.created();
    monitor.started();
    assert_eq!(monitor.exit_status().exit_code, 7);
    let log: String = sandbox.log().into_iter().map(|(_, text)| text).collect();
    let uptime: f64 = log.split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 7_000_000.0, "{log}");
}
