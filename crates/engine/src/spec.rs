//! The OCI configuration of a container: everything decided, nothing done.

use crate::error::{Result, parameter};
use crate::limits;
use crate::merge::command_line;
use crate::mounts::{ContainerMount, Source};
use crate::record::Record;
use crate::security;
use gantry_linux::user::Identity;
use gantry_model::container::{HostConfig, Ulimit};
use gantry_runtime::oci::{self, NamespaceKind, defaults};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the environment of a container has decided before its configuration can be written.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Who runs the process.
    pub identity: Identity,
    /// Path of the network namespace; none: the host's.
    pub netns: Option<PathBuf>,
    /// Path of another container's ipc namespace, or the host's.
    pub ipc: Share,
    /// The same for process ids.
    pub pid: Share,
    /// The same for the host name.
    pub uts: Share,
    /// The folder that is /dev/shm inside; none: memory of its own.
    pub shm: Option<PathBuf>,
    /// Host name inside.
    pub hostname: String,
    /// Files bound over /etc/resolv.conf, /etc/hostname, /etc/hosts.
    pub etc: Vec<(&'static str, PathBuf)>,
    /// Mounts with the host paths of their sources.
    pub mounts: Vec<(ContainerMount, PathBuf)>,
    /// What sources lead through; must stay open until the mounts are made.
    pub _held: Vec<Arc<OwnedFd>>,
    /// Devices with their access (`rwm`).
    pub devices: Vec<(oci::Device, String)>,
    /// The init executable on the host and its arguments before the command.
    pub init: Option<(PathBuf, Vec<String>)>,
    /// Files in memory: path inside, host file.
    pub files: Vec<(String, PathBuf)>,
    /// The host has the unified cgroup hierarchy only.
    pub cgroup_v2: bool,
    /// `/gantry/ID`.
    pub cgroups_path: String,
    /// Engine-wide ulimits.
    pub default_ulimits: Vec<Ulimit>,
    /// Bytes of /dev/shm.
    pub default_shm_size: u64,
}

/// Whose namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Share {
    /// Its own.
    Own,
    /// The host's.
    Host,
    /// That at this path.
    Path(PathBuf),
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the init is mounted inside.
const INIT: &str = "/sbin/docker-init";

/// Writes the configuration.
pub(crate) fn build(record: &Record, around: &Surroundings) -> Result<oci::Spec> {
    let host = &record.host;
    let capabilities = security::capabilities(host)?;
    let options = security::Options::parse(&host.security_opt)?;
    let process = process(record, around, &capabilities, options.no_new_privileges)?;
    let own_uts = around.uts == Share::Own;
    let linux = oci::Linux {
        namespaces: namespaces(host, around),
        devices: around.devices.iter().map(|(device, _)| device.clone()).collect(),
        cgroups_path: Some(around.cgroups_path.clone()),
        resources: Some(resources(host, around)?),
        rootfs_propagation: rootfs_propagation(around),
        seccomp: options.filter(host.privileged, &capabilities)?,
        sysctl: host.sysctls.clone(),
        masked_paths: paths(host.masked_paths.as_ref(), host.privileged, defaults::masked_paths),
        readonly_paths: paths(host.readonly_paths.as_ref(), host.privileged, defaults::readonly_paths),
        ..oci::Linux::default()
    };
    let domain = record.config.domainname.clone();
    Ok(oci::Spec {
        oci_version: oci::OCI_VERSION.to_owned(),
        root: Some(oci::Root { path: "rootfs".into(), readonly: host.readonly_rootfs }),
        process: Some(process),
        hostname: own_uts.then(|| around.hostname.clone()),
        domainname: (own_uts && !domain.is_empty()).then_some(domain),
        mounts: mounts(host, around),
        hooks: None,
        annotations: host.annotations.clone(),
        linux: Some(linux),
    })
}

fn paths(asked: Option<&Vec<String>>, privileged: bool, default: fn() -> Vec<String>) -> Vec<String> {
    match asked {
        _ if privileged => Vec::new(),
        Some(asked) => asked.clone(),
        None => default(),
    }
}

fn process(
    record: &Record,
    around: &Surroundings,
    capabilities: &[String],
    no_new_privileges: bool,
) -> Result<oci::Process> {
    let config = &record.config;
    let mut args = command_line(config);
    if let Some((_, before)) = &around.init {
        args.splice(0..0, std::iter::once(INIT.to_owned()).chain(before.iter().cloned()));
    }
    let [rows, columns] = record.host.console_size;
    Ok(oci::Process {
        terminal: config.tty,
        console_size: (config.tty && rows > 0 && columns > 0)
            .then_some(oci::ConsoleSize { height: rows, width: columns }),
        user: user(&around.identity),
        args,
        env: environment(&config.env, config.tty, &around.hostname, &around.identity.home),
        cwd: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() },
        capabilities: Some(defaults::capability_sets(capabilities)),
        rlimits: limits::rlimits(&record.host.resources.ulimits, &around.default_ulimits)?,
        no_new_privileges,
        oom_score_adj: Some(record.host.oom_score_adj),
        ..oci::Process::default()
    })
}

pub(crate) fn user(identity: &Identity) -> oci::User {
    oci::User { uid: identity.uid, gid: identity.gid, umask: None, additional_gids: identity.groups.clone() }
}

/// The variables of a process: what every container has, then its own over it.
pub(crate) fn environment(own: &[String], tty: bool, hostname: &str, home: &str) -> Vec<String> {
    let key = |v: &str| v.split_once('=').map_or(v, |(k, _)| k).to_owned();
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        all.push("TERM=xterm".to_owned());
    }
    for variable in own {
        let mine = key(variable);
        match all.iter_mut().find(|v| key(v) == mine) {
            Some(place) => place.clone_from(variable),
            None => all.push(variable.clone()),
        }
    }
    if !all.iter().any(|v| v.starts_with("HOME=")) {
        all.push(format!("HOME={home}"));
    }
    all
}

fn namespaces(host: &HostConfig, around: &Surroundings) -> Vec<oci::Namespace> {
    let mut list = vec![oci::Namespace { kind: NamespaceKind::Mount, path: None }];
    let mut add = |kind, share: &Share| match share {
        Share::Own => list.push(oci::Namespace { kind, path: None }),
        Share::Path(path) => list.push(oci::Namespace { kind, path: Some(path.clone()) }),
        Share::Host => {}
    };
    add(NamespaceKind::Network, &around.netns.clone().map_or(Share::Host, Share::Path));
    add(NamespaceKind::Uts, &around.uts);
    add(NamespaceKind::Pid, &around.pid);
    add(NamespaceKind::Ipc, &around.ipc);
    // Docker: private by default on cgroup v2, the host's on v1.
    let private = match host.cgroupns_mode.as_str() {
        "private" => true,
        "host" => false,
        _ => around.cgroup_v2 && !host.privileged,
    };
    if private {
        add(NamespaceKind::Cgroup, &Share::Own);
    }
    list
}

fn resources(host: &HostConfig, around: &Surroundings) -> Result<oci::Resources> {
    let mut resources = limits::to_oci(&host.resources)?;
    if host.privileged {
        resources.devices = defaults::privileged_device_rules();
        return Ok(resources);
    }
    resources.devices = defaults::device_rules();
    for (device, access) in &around.devices {
        resources.devices.push(oci::DeviceRule {
            allow: true,
            kind: Some(device.kind.clone()),
            major: device.major,
            minor: device.minor,
            access: Some(access.clone()),
        });
    }
    for rule in &host.resources.device_cgroup_rules {
        resources.devices.push(device_rule(rule)?);
    }
    Ok(resources)
}

/// `c 1:3 rwm`, `b 8:* r`, `a *:* rwm`.
fn device_rule(text: &str) -> Result<oci::DeviceRule> {
    let bad = || parameter(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = words[..] else { return Err(bad()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |n: &str| if n == "*" { Ok(None) } else { n.parse().map(Some).map_err(|_| bad()) };
    if !matches!(kind, "a" | "b" | "c") || access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(bad());
    }
    Ok(oci::DeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major: number(major)?,
        minor: number(minor)?,
        access: Some(access.to_owned()),
    })
}

/// Mounts that propagate need a root mount that does.
fn rootfs_propagation(around: &Surroundings) -> Option<String> {
    let has = |words: &[&str]| around.mounts.iter().any(|(m, _)| words.contains(&m.propagation.as_str()));
    if has(&["shared", "rshared"]) {
        Some("shared".to_owned())
    } else if has(&["slave", "rslave"]) {
        Some("rslave".to_owned())
    } else {
        None
    }
}

fn mounts(host: &HostConfig, around: &Surroundings) -> Vec<oci::Mount> {
    let covered = |path: &str| around.mounts.iter().any(|(m, _)| m.destination == path);
    let mut list: Vec<oci::Mount> = Vec::new();
    for mut mount in defaults::mounts() {
        match mount.destination.as_str() {
            "/dev/shm" => shm(&mut mount, host, around),
            "/sys" | "/sys/fs/cgroup" if host.privileged => {
                mount.options.retain(|option| option != "ro");
                mount.options.push("rw".to_owned());
            }
            _ => {}
        }
        // What the user mounts there replaces it.
        if !covered(&mount.destination) {
            list.push(mount);
        }
    }
    for (inside, path) in &around.etc {
        if !covered(inside) {
            list.push(file(inside, path, &["rbind", "rprivate"]));
        }
    }
    for (mount, source) in &around.mounts {
        list.push(one(mount, source));
    }
    for (inside, path) in &around.files {
        list.push(file(inside, path, &["bind", "rprivate", "ro"]));
    }
    if let Some((path, _)) = &around.init {
        list.push(file(INIT, path, &["bind", "ro"]));
    }
    list
}

fn bind(mount: &mut oci::Mount, source: &Path) {
    mount.kind = Some("bind".to_owned());
    mount.source = Some(source.to_string_lossy().into_owned());
    mount.options = ["rbind", "nosuid", "noexec", "nodev"].map(str::to_owned).to_vec();
}

fn shm(mount: &mut oci::Mount, host: &HostConfig, around: &Surroundings) {
    if let Some(folder) = &around.shm {
        return bind(mount, folder);
    }
    let size = u64::try_from(host.shm_size).ok().filter(|n| *n > 0).unwrap_or(around.default_shm_size);
    mount.options.retain(|option| !option.starts_with("size="));
    mount.options.push(format!("size={size}"));
}

fn file(inside: &str, path: &Path, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: inside.to_owned(),
        kind: Some("bind".to_owned()),
        source: Some(path.to_string_lossy().into_owned()),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..oci::Mount::default()
    }
}

fn one(mount: &ContainerMount, source: &Path) -> oci::Mount {
    let access = if mount.rw { "rw" } else { "ro" };
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { mount.propagation.as_str() };
    match &mount.source {
        Source::Tmpfs { options } => {
            let mut all = options.clone();
            all.push(access.to_owned());
            oci::Mount {
                destination: mount.destination.clone(),
                kind: Some("tmpfs".to_owned()),
                source: Some("tmpfs".to_owned()),
                options: all,
                ..oci::Mount::default()
            }
        }
        _ => {
            let alone = matches!(mount.source, Source::Bind { non_recursive: true, .. });
            let bind = if alone { "bind" } else { "rbind" };
            // Without a word about it what the host mounts read-only stays so.
            let options = if mount.rw { &[bind, propagation][..] } else { &[bind, propagation, "ro"] };
            file(&mount.destination, source, options)
        }
    }
}

/// A host configuration as inspect shows it: what was left open filled in with what holds.
pub(crate) fn shown(mut host: HostConfig, cgroup_v2: bool) -> HostConfig {
    if host.cgroupns_mode.is_empty() {
        let mode = if cgroup_v2 && !host.privileged { "private" } else { "host" };
        mode.clone_into(&mut host.cgroupns_mode);
    }
    if !host.privileged {
        host.masked_paths.get_or_insert_with(defaults::masked_paths);
        host.readonly_paths.get_or_insert_with(defaults::readonly_paths);
    }
    host.resources.memory_swap = limits::swap(&host.resources).unwrap_or_default();
    // Docker writes null for "as the kernel has it".
    host.resources.memory_swappiness = host.resources.memory_swappiness.filter(|value| *value >= 0);
    host.resources.pids_limit = host.resources.pids_limit.filter(|limit| *limit > 0);
    host
}

/// Refuses host specifications that contradict themselves, before anything is made.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    security::capabilities(host)?;
    security::Options::parse(&host.security_opt)?;
    limits::rlimits(&host.resources.ulimits, &[])?;
    for rule in &host.resources.device_cgroup_rules {
        device_rule(rule)?;
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(parameter(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return Err(parameter("SHM size can not be less than 0"));
    }
    sysctls(&host.sysctls, host)?;
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(parameter(format!(
            "Invalid isolation: {:?} - linux only supports 'default'",
            host.isolation
        )));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host" | "private") {
        return Err(parameter(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(parameter(format!("invalid userns mode: {}", host.userns_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return Err(parameter(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    let known = |mode: &str, words: &[&str]| {
        words.contains(&mode) || mode.strip_prefix("container:").is_some_and(|id| !id.is_empty())
    };
    if !known(&host.pid_mode, &["", "host", "private"]) {
        return Err(parameter(format!("invalid PID mode: {}", host.pid_mode)));
    }
    if !known(&host.ipc_mode, &["", "none", "private", "shareable", "host"]) {
        return Err(parameter(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if !host.storage_opt.is_empty() {
        return Err(parameter("--storage-opt is not supported: the storage has no quota for each container"));
    }
    Ok(())
}

/// Only kernel parameters that belong to a namespace of the container may be set.
fn sysctls(wanted: &BTreeMap<String, String>, host: &HostConfig) -> Result<()> {
    const IPC: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.msg_next_id",
    ];
    for key in wanted.keys() {
        let refused = |mode: &str| parameter(format!("sysctl '{key}' not allowed in host {mode} namespace"));
        if key.contains("..") || key.contains('\0') {
            return Err(parameter(format!("sysctl '{key}' is not allowed")));
        }
        if IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
            if host.ipc_mode == "host" {
                return Err(refused("IPC"));
            }
        } else if key.starts_with("net.") {
            if host.network_mode == "host" {
                return Err(refused("network"));
            }
        } else if matches!(key.as_str(), "kernel.hostname" | "kernel.domainname") {
            if host.uts_mode == "host" {
                return Err(refused("UTS"));
            }
        } else {
            return Err(parameter(format!("sysctl '{key}' is not in a separate kernel namespace")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_the_defaults_beneath_the_containers() {
        let env = environment(&["PATH=/x".into(), "A=1".into(), "A=2".into()], true, "h", "/root");
        assert_eq!(env, ["PATH=/x", "HOSTNAME=h", "TERM=xterm", "A=2", "HOME=/root"]);
    }

    #[test]
    fn device_rules_are_read() {
        let rule = device_rule("c 10:* rw").unwrap();
        assert_eq!((rule.major, rule.minor, rule.access.as_deref()), (Some(10), None, Some("rw")));
        for text in ["", "c 1 rwm", "x 1:1 r", "c 1:1 z", "c a:b r"] {
            assert!(device_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_left_open_is_shown_as_it_holds() {
        let mut host = HostConfig::default();
        host.resources.memory = 64 << 20;
        host.resources.memory_swappiness = Some(-1);
        host.resources.pids_limit = Some(0);
        let shown_host = shown(host.clone(), false);
        assert_eq!(shown_host.cgroupns_mode, "host");
        assert_eq!(shown(host.clone(), true).cgroupns_mode, "private");
        assert_eq!(shown_host.resources.memory_swap, 128 << 20);
        assert_eq!((shown_host.resources.memory_swappiness, shown_host.resources.pids_limit), (None, None));
        assert!(shown_host.masked_paths.unwrap().contains(&"/proc/kcore".to_owned()));
        host.privileged = true;
        assert_eq!(shown(host, true).masked_paths, None);
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_made() {
        let with = |change: fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            check(&host)
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|h| h.pid_mode = "container:".into()).is_err());
        assert!(with(|h| h.pid_mode = "container:x".into()).is_ok());
        assert!(with(|h| drop(h.sysctls.insert("vm.swappiness".into(), "1".into()))).is_err());
        assert!(with(|h| drop(h.sysctls.insert("net.ipv4.ip_forward".into(), "1".into()))).is_ok());
        assert!(with(|h| h.oom_score_adj = 2000).is_err());
        assert!(with(|h| h.isolation = "default".into()).is_ok());
        assert!(with(|h| h.isolation = "hyperv".into()).is_err());
    }
}
