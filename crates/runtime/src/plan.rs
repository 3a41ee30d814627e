//! Everything that is decided about a container before its first process exists, so that this process only carries out.

mod mounts;
mod namespaces;
pub mod sysctls;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use gantry_linux::{
    capability::{CapSet, Capability},
    cgroup::Cgroup,
    namespace::Namespaces,
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Act, Error, Result},
    filter::{self, Filter},
    hooks,
    inherited::Inherited,
    init::{identity, priority::Priority},
    log,
    monitor::Overlay,
    oci::{Capabilities, Linux, Spec},
};
pub use mounts::{PlannedMount, RootSource, rootfs_path};
pub use namespaces::{IdMaps, Joined, NamespacePlan, flag_of, joined, path_of};
use sysctls::Sysctl;

/// Standard input, output and error of the program.
#[derive(Debug)]
pub enum Stdio {
    /// Those of the runtime.
    Inherit,
    /// Given ones, in this order.
    Given([OwnedFd; 3]),
    /// A terminal of the container; its master comes back.
    Terminal,
}

/// Who gives the start order.
#[derive(Debug)]
pub enum Gate {
    /// The runtime, through the channel.
    Channel,
    /// Whoever connects to this socket.
    Socket(OwnedFd),
}

/// The session keyring of a container's processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyring {
    /// One of the container's own.
    #[default]
    New,
    /// That of the caller.
    Inherited,
}

/// Capability sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct CapabilitySets {
    /// Upper limit.
    pub bounding: CapSet,
    /// In force.
    pub effective: CapSet,
    /// Inherited.
    pub inheritable: CapSet,
    /// May be put in force.
    pub permitted: CapSet,
    /// Kept.
    pub ambient: CapSet,
}

impl CapabilitySets {
    /// From names; ones that this kernel does not know, or that the runtime itself does not have (in a virtual machine or a
    /// container with fewer), are left out. Names that are none at all are told, as runc tells them.
    pub fn from_oci(sets: Option<&Capabilities>) -> CapabilitySets {
        let Some(sets) = sets else { return CapabilitySets::default() };
        let all = CapSet::permitted();
        let mut unknown: Vec<&str> =
            [&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient]
                .into_iter()
                .flatten()
                .filter(|name| Capability::from_name(name).is_none())
                .map(String::as_str)
                .collect();
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            log::warning(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
        }
        let set = |names: &[String]| {
            names.iter().filter_map(|name| Capability::from_name(name)).collect::<CapSet>().intersection(all)
        };
        CapabilitySets {
            bounding: set(&sets.bounding),
            effective: set(&sets.effective),
            inheritable: set(&sets.inheritable),
            permitted: set(&sets.permitted),
            ambient: set(&sets.ambient),
        }
    }
}

/// The whole plan.
#[derive(Debug)]
pub struct Plan {
    /// Name of the container.
    pub id: String,
    /// The bundle.
    pub bundle: PathBuf,
    /// The configuration.
    pub spec: Spec,
    /// Namespaces.
    pub namespaces: NamespacePlan,
    /// Root file system.
    pub root: RootSource,
    /// Kernel parameters.
    pub sysctls: Vec<Sysctl>,
    /// SELinux label of new file systems, where SELinux is.
    pub mount_label: Option<String>,
    /// Mounts.
    pub mounts: Vec<PlannedMount>,
    /// Filter.
    pub filter: Option<Filter>,
    /// Capabilities.
    pub capabilities: CapabilitySets,
    /// The container's cgroup, as it is shown.
    pub group: Cgroup,
    /// Whether the container is moved to it; else it is there already, with its runtime.
    pub joins_group: bool,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Start order.
    pub gate: Gate,
    /// Size of the terminal when the configuration does not say.
    pub console_size: Option<(u16, u16)>,
    /// Descriptors after the third that the program keeps.
    pub inherited: Inherited,
    /// Session keyring.
    pub keyring: Keyring,
    /// Limits and scheduling.
    pub priority: Priority,
    /// Do not use pivot_root.
    pub no_pivot: bool,
    /// The host's /proc.
    pub proc: OwnedFd,
}

/// What the caller chooses beside the configuration.
#[derive(Debug)]
pub struct Choices {
    /// Root file system in place of the bundle's.
    pub overlay: Option<Overlay>,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Start order.
    pub gate: Gate,
    /// Size of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// Descriptors after the third that the program keeps.
    pub inherited: Inherited,
    /// Session keyring.
    pub keyring: Keyring,
    /// Do not use pivot_root.
    pub no_pivot: bool,
    /// Who makes the cgroup.
    pub manager: Manager,
}

/// Who makes the cgroups of new containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// The runtime itself.
    #[default]
    Files,
    /// systemd, over D-Bus.
    Systemd,
}

impl Plan {
    /// Decides everything and opens what the first process will need from the host.
    pub fn new(id: &str, bundle: &Path, spec: Spec, group: Cgroup, choices: Choices) -> Result<Plan> {
        spec.check_version().map_err(|problem| config("ociVersion", &problem))?;
        let linux = spec.linux.clone().unwrap_or_default();
        let process = spec.process.as_ref().ok_or_else(|| config("process", "is missing"))?;
        if process.args.is_empty() {
            return Err(config("process.args", "is empty"));
        }
        if !process.cwd.starts_with('/') {
            return Err(config("process.cwd", &format!("{:?} is not absolute", process.cwd)));
        }
        if let Some(hooks) = &spec.hooks {
            hooks::check(hooks)?;
        }
        let namespaces = NamespacePlan::of(&spec, &linux)?;
        if choices.overlay.is_some() && !namespaces.separate.contains(Namespaces::MOUNT) {
            return Err(config("linux.namespaces", "an overlay needs a mount namespace"));
        }
        let sysctls = sysctls::of(&linux, namespaces.separate)?;
        let root = mounts::root_source(bundle, &spec, choices.overlay, &namespaces)?;
        let mounts = mounts::plan(bundle, &spec, &namespaces)?;
        let filter = linux.seccomp.as_ref().map(filter::compile).transpose()?;
        let capabilities = CapabilitySets::from_oci(process.capabilities.as_ref());
        let priority = Priority::of(process, Some(&linux))?;
        identity::check(process)?;
        Ok(Plan {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            spec,
            namespaces,
            root,
            sysctls,
            mount_label: mount_label(&linux),
            mounts,
            filter,
            capabilities,
            group,
            joins_group: true,
            stdio: choices.stdio,
            gate: choices.gate,
            console_size: choices.console_size,
            inherited: choices.inherited,
            keyring: choices.keyring,
            priority,
            no_pivot: choices.no_pivot,
            proc: open_proc()?,
        })
    }
}

/// A label without SELinux would be an option that no file system knows.
fn mount_label(linux: &Linux) -> Option<String> {
    let label = linux.mount_label.clone().filter(|label| !label.is_empty());
    label.filter(|_| Path::new("/sys/fs/selinux").exists())
}

/// The host's /proc, verified to be one (CVE-2025-52881): everything that is written to /proc goes through it.
pub fn open_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).act(|| "open /proc".to_owned())?;
    let kind = rustix::fs::fstatfs(&proc).act(|| "examine /proc".to_owned())?.f_type;
    if kind != rustix::fs::PROC_SUPER_MAGIC {
        return Err(config("host", "/proc is not a proc file system"));
    }
    Ok(proc)
}

pub(crate) fn config(field: &str, problem: &str) -> Error {
    Error::Config { field: field.to_owned(), problem: problem.to_owned() }
}
