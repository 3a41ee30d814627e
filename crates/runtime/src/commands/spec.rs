//! `spec`: writes a configuration to begin with.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{next, path};
use crate::{
    error::{Act, Error, Result},
    oci::{
        Linux, Namespace, NamespaceKind, OCI_VERSION, Process, Resources, Rlimit, Root, Spec, defaults,
        docker_seccomp,
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

/// Runs the command.
pub fn run(mut parser: lexopt::Parser) -> Result<i32> {
    let mut bundle = PathBuf::from(".");
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('b') | Long("bundle") => bundle = path(&mut parser)?,
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let file = bundle.join("config.json");
    let mut spec = ordinary(&["sh"]);
    if let Some(process) = spec.process.as_mut() {
        process.terminal = true;
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
