//! What Docker gives a container unless it is told otherwise: capabilities, paths, mounts, devices, namespaces.

use super::{Capabilities, Device, DeviceRule, Mount, Namespace, NamespaceKind};

/// Capabilities of an ordinary container.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Capabilities of an ordinary container as names.
pub fn capabilities() -> Vec<String> {
    CAPABILITIES.iter().map(|name| (*name).to_owned()).collect()
}

/// Every capability that this kernel knows and the caller has, as `--privileged` and `--cap-add ALL` give them.
pub fn all_capabilities() -> Vec<String> {
    gantry_linux::capability::CapSet::permitted().iter().map(|cap| cap.name().to_owned()).collect()
}

/// The sets of a process that has these capabilities, as Docker fills them: no inheritable ones (CVE-2022-29162).
///
/// For a user other than root the effective and permitted sets are cleared by the kernel at setuid and exec, as Docker users expect.
pub fn capability_sets(names: &[String]) -> Capabilities {
    Capabilities {
        bounding: names.to_vec(),
        effective: names.to_vec(),
        permitted: names.to_vec(),
        inheritable: Vec::new(),
        ambient: Vec::new(),
    }
}

/// Paths that an ordinary container cannot see.
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// Paths that an ordinary container cannot see, those of newer Docker versions included.
pub fn masked_paths() -> Vec<String> {
    MASKED_PATHS
        .iter()
        .map(|path| (*path).to_owned())
        .chain(["/sys/devices/virtual/powercap".to_owned()])
        .collect()
}

/// Paths that an ordinary container cannot change.
pub fn readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).to_vec()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Mounts of an ordinary container: /proc, /dev, /dev/pts, /sys, /sys/fs/cgroup, /dev/mqueue, /dev/shm (64 MiB).
pub fn mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ]
}

/// Namespaces of an ordinary container; the caller adds a path to the network one, and cgroup or user ones.
pub fn namespaces() -> Vec<Namespace> {
    [NamespaceKind::Mount, NamespaceKind::Network, NamespaceKind::Uts, NamespaceKind::Pid, NamespaceKind::Ipc]
        .map(|kind| Namespace { kind, path: None })
        .to_vec()
}

fn device(path: &str, major: i64, minor: i64) -> Device {
    Device {
        kind: "c".to_owned(),
        path: path.to_owned(),
        major: Some(major),
        minor: Some(minor),
        file_mode: Some(0o666),
        uid: Some(0),
        gid: Some(0),
    }
}

/// Device nodes that every container has.
pub fn devices() -> Vec<Device> {
    vec![
        device("/dev/null", 1, 3),
        device("/dev/zero", 1, 5),
        device("/dev/full", 1, 7),
        device("/dev/random", 1, 8),
        device("/dev/urandom", 1, 9),
        device("/dev/tty", 5, 0),
    ]
}

/// Those, unless a configuration has its own at their place, and what it lists.
pub fn devices_with(listed: &[Device]) -> impl Iterator<Item = Device> {
    let given = |path: &str| listed.iter().any(|device| device.path == path);
    devices().into_iter().filter(move |device| !given(&device.path)).chain(listed.iter().cloned())
}

fn rule(allow: bool, kind: Option<&str>, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, kind: kind.map(str::to_owned), major, minor, access: Some(access.to_owned()) }
}

/// Device rules of an ordinary container: nothing, then making nodes, then using the default ones.
pub fn device_rules() -> Vec<DeviceRule> {
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    rules.extend(runtime_device_rules());
    rules
}

/// Device rules of a privileged container.
pub fn privileged_device_rules() -> Vec<DeviceRule> {
    vec![rule(true, None, None, None, "rwm")]
}

/// What the runtime always allows after the rules of the configuration, as runc does.
pub fn runtime_device_rules() -> Vec<DeviceRule> {
    let mut rules = vec![rule(true, Some("c"), None, None, "m"), rule(true, Some("b"), None, None, "m")];
    // /dev/{null,zero,full,random,urandom,tty,console,ptmx}, the pseudo-terminals, as Documentation/admin-guide/devices.txt numbers them.
    let numbers =
        [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(1))];
    rules.extend(numbers.iter().map(|(major, minor)| rule(true, Some("c"), Some(*major), *minor, "rwm")));
    rules.push(rule(true, Some("c"), Some(136), None, "rwm"));
    rules.push(rule(true, Some("c"), Some(5), Some(2), "rwm"));
    rules
}
