//! `spec`: writes a configuration to begin with.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{next, path};
use crate::{
    error::{Act, Error, Result},
    oci::{
        IdMapping, Linux, Namespace, NamespaceKind, OCI_VERSION, Process, Resources, Rlimit, Root, Spec,
        defaults, docker_seccomp,
    },
};

/// A configuration like that of an ordinary Docker container that runs these arguments.
pub fn ordinary(args: &[&str]) -> Spec {
    let caps = defaults::capabilities();
    let mut namespaces = defaults::namespaces();
    namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: None });
    Spec {
        oci_version: OCI_VERSION.to_owned(),
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        process: Some(Process {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cwd: "/".to_owned(),
            capabilities: Some(defaults::capability_sets(&caps)),
            rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), soft: 1024, hard: 1024 }],
            no_new_privileges: true,
            ..Process::default()
        }),
        hostname: Some("gantry".to_owned()),
        mounts: defaults::mounts(),
        linux: Some(Linux {
            namespaces,
            resources: Some(Resources { devices: defaults::device_rules(), ..Resources::default() }),
            masked_paths: defaults::masked_paths(),
            readonly_paths: defaults::readonly_paths(),
            seccomp: Some(docker_seccomp(&caps)),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

/// Who will run the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Root,
    Caller,
}

/// Leaves out what an ordinary user may not ask for: he is root in a user namespace, on the host's network, without
/// cgroups of his own.
fn without_root(spec: &mut Spec, uid: u32, gid: u32) {
    let linux = spec.linux.get_or_insert_default();
    linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
    linux.resources = None;
    for mount in &mut spec.mounts {
        // Ids that are not mapped cannot own anything.
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        if mount.destination == "/sys" {
            // A new sysfs belongs to a network namespace of the container's own.
            mount.kind = Some("none".to_owned());
            mount.source = Some("/sys".to_owned());
            mount.options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
        }
    }
    spec.mounts.retain(|mount| mount.kind.as_deref() != Some("cgroup"));
}

/// Runs the command.
pub fn run(mut parser: lexopt::Parser) -> Result<i32> {
    let (mut bundle, mut rights) = (PathBuf::from("."), Rights::Root);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('b') | Long("bundle") => bundle = path(&mut parser)?,
            Long("rootless") => {
                // A switch here, but an option with a value before the command.
                let value = parser.optional_value().unwrap_or_else(|| "true".into());
                if value != "false" && value != "0" {
                    rights = Rights::Caller;
                }
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let file = bundle.join("config.json");
    let mut spec = ordinary(&["sh"]);
    if let Some(process) = spec.process.as_mut() {
        process.terminal = true;
        process.env.push("TERM=xterm".to_owned());
    }
    if rights == Rights::Caller {
        without_root(&mut spec, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    }
    let text =
        serde_json::to_string_pretty(&spec).map_err(|source| Error::State { path: file.clone(), source })?;
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .act(|| format!("create {}", file.display()))?;
    std::io::Write::write_all(&mut out, text.as_bytes()).act(|| format!("write {}", file.display()))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_without_root_asks_for_nothing_that_only_root_may_have() {
        let mut spec = ordinary(&["sh"]);
        without_root(&mut spec, 1000, 100);
        let linux = spec.linux.unwrap();
        assert_eq!((linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id), (1000, 100));
        assert!(linux.resources.is_none());
        assert!(!linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Network));
        assert!(!spec.mounts.iter().any(|mount| mount.kind.as_deref() == Some("sysfs")));
        assert!(
            !spec.mounts.iter().flat_map(|mount| &mount.options).any(|option| option.starts_with("gid="))
        );
    }
}
