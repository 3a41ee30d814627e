//! Everything that is decided about a container before its first process exists, so that this process only carries out.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use gantry_linux::{
    capability::{CapSet, Capability},
    cgroup::Cgroup,
    mount::{Depth, Detached},
    namespace::{self, Namespaces},
};
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{Act, Error, Result},
    filter::{self, Filter},
    monitor::Overlay,
    mount_options::{self, Kind, Options},
    oci::{self, Capabilities, NamespaceKind, Spec},
};

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

/// Where the root file system comes from.
#[derive(Debug)]
pub enum RootSource {
    /// A tree, cloned from the bundle.
    Tree(Detached),
    /// Made by the first process.
    Overlay(Overlay),
}

/// A mount with its source opened.
#[derive(Debug)]
pub struct PlannedMount {
    /// Where.
    pub destination: String,
    /// Type of the file system.
    pub kind: String,
    /// Source as the configuration names it.
    pub source: String,
    /// Options.
    pub options: Options,
    /// The tree of a bind mount, and whether it is a folder.
    pub tree: Option<(Detached, bool)>,
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
    /// container with fewer), are left out.
    pub fn from_oci(sets: Option<&Capabilities>) -> CapabilitySets {
        let Some(sets) = sets else { return CapabilitySets::default() };
        let all = CapSet::permitted();
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
    /// Namespaces to make with the clone.
    pub new: Namespaces,
    /// Whether the cgroup namespace is new; made when the cgroups are joined.
    pub new_cgroup_namespace: bool,
    /// Namespaces to join, with their names for messages.
    pub join: Vec<(Namespaces, OwnedFd, PathBuf)>,
    /// Root file system.
    pub root: RootSource,
    /// Mounts.
    pub mounts: Vec<PlannedMount>,
    /// Filter.
    pub filter: Option<Filter>,
    /// Capabilities.
    pub capabilities: CapabilitySets,
    /// The container's cgroup.
    pub group: Cgroup,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Start order.
    pub gate: Gate,
    /// Size of the terminal when the configuration does not say.
    pub console_size: Option<(u16, u16)>,
    /// Descriptors after the third that the program keeps.
    pub preserve_fds: i32,
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
    pub preserve_fds: i32,
    /// Do not use pivot_root.
    pub no_pivot: bool,
}

impl Plan {
    /// Decides everything and opens what the first process will need from the host.
    pub fn new(id: &str, bundle: &Path, spec: Spec, group: Cgroup, choices: Choices) -> Result<Plan> {
        let linux = spec.linux.clone().unwrap_or_default();
        let process = spec.process.as_ref().ok_or_else(|| config("process", "is missing"))?;
        if process.args.is_empty() {
            return Err(config("process.args", "is empty"));
        }
        if !process.cwd.starts_with('/') {
            return Err(config("process.cwd", &format!("{:?} is not absolute", process.cwd)));
        }
        let (mut new, join) = namespaces(&linux.namespaces)?;
        if !new.contains(Namespaces::MOUNT) {
            return Err(config("linux.namespaces", "a container needs a mount namespace of its own"));
        }
        let new_cgroup_namespace = new.contains(Namespaces::CGROUP);
        new = new.without(Namespaces::CGROUP);
        if new.contains(Namespaces::USER) && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty())
        {
            return Err(config("linux.uidMappings", "a user namespace needs id mappings"));
        }
        let root = root_source(bundle, &spec, choices.overlay)?;
        let mounts = spec.mounts.iter().map(|mount| plan_mount(bundle, mount)).collect::<Result<Vec<_>>>()?;
        let filter = linux.seccomp.as_ref().map(filter::compile).transpose()?;
        let capabilities = CapabilitySets::from_oci(process.capabilities.as_ref());
        Ok(Plan {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            spec,
            new,
            new_cgroup_namespace,
            join,
            root,
            mounts,
            filter,
            capabilities,
            group,
            stdio: choices.stdio,
            gate: choices.gate,
            console_size: choices.console_size,
            preserve_fds: choices.preserve_fds,
            no_pivot: choices.no_pivot,
            proc: open_proc()?,
        })
    }
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

fn config(field: &str, problem: &str) -> Error {
    Error::Config { field: field.to_owned(), problem: problem.to_owned() }
}

/// The number of a kind.
pub fn namespace_flag(kind: NamespaceKind) -> Namespaces {
    match kind {
        NamespaceKind::Pid => Namespaces::PID,
        NamespaceKind::Network => Namespaces::NETWORK,
        NamespaceKind::Mount => Namespaces::MOUNT,
        NamespaceKind::Ipc => Namespaces::IPC,
        NamespaceKind::Uts => Namespaces::UTS,
        NamespaceKind::User => Namespaces::USER,
        NamespaceKind::Cgroup => Namespaces::CGROUP,
        NamespaceKind::Time => Namespaces::TIME,
    }
}

type Joined = Vec<(Namespaces, OwnedFd, PathBuf)>;

fn namespaces(list: &[oci::Namespace]) -> Result<(Namespaces, Joined)> {
    let mut new = Namespaces::EMPTY;
    let mut join: Joined = Vec::new();
    let mut seen = Namespaces::EMPTY;
    for namespace in list {
        let flag = namespace_flag(namespace.kind);
        let name = format!("{:?}", namespace.kind).to_lowercase();
        if seen.contains(flag) {
            return Err(config("linux.namespaces", &format!("{name} is listed twice")));
        }
        seen |= flag;
        match namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty()) {
            None if flag == Namespaces::TIME => {
                return Err(config("linux.namespaces", "a new time namespace is not supported"));
            }
            None => new |= flag,
            Some(_) if matches!(namespace.kind, NamespaceKind::User | NamespaceKind::Mount) => {
                return Err(config(
                    "linux.namespaces",
                    &format!("joining a {name} namespace by path is not supported"),
                ));
            }
            Some(path) => {
                let fd = namespace::open(path).act(|| format!("open {name} namespace {}", path.display()))?;
                join.push((flag, fd, path.to_owned()));
            }
        }
    }
    Ok((new, join))
}

fn root_source(bundle: &Path, spec: &Spec, overlay: Option<Overlay>) -> Result<RootSource> {
    if let Some(overlay) = overlay {
        return Ok(RootSource::Overlay(overlay));
    }
    let path = rootfs_path(bundle, spec)?;
    let tree = Detached::bind(&path, Depth::Recursive)
        .act(|| format!("open root file system {}", path.display()))?;
    let metadata = rustix::fs::fstat(&tree).act(|| format!("examine {}", path.display()))?;
    if !rustix::fs::FileType::from_raw_mode(metadata.st_mode).is_dir() {
        return Err(config("root.path", &format!("{} is not a folder", path.display())));
    }
    Ok(RootSource::Tree(tree))
}

/// The folder that `root.path` names.
pub fn rootfs_path(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let root = spec.root.as_ref().ok_or_else(|| config("root", "is missing"))?;
    Ok(bundle.join(&root.path))
}

fn plan_mount(bundle: &Path, mount: &oci::Mount) -> Result<PlannedMount> {
    if !mount.destination.starts_with('/') {
        return Err(config("mounts", &format!("destination {:?} is not absolute", mount.destination)));
    }
    let kind = mount.kind.clone().unwrap_or_default();
    let mut options = mount_options::parse(&mount.options, kind == "bind");
    if kind.is_empty() && options.kind == Kind::New {
        options.kind = Kind::Bind(Depth::This);
    }
    if options.copy_up {
        return Err(config("mounts", "option tmpcopyup is not supported"));
    }
    if options.map_ids.is_some() || !mount.uid_mappings.is_empty() {
        return Err(config("mounts", "id-mapped mounts are not supported"));
    }
    let source = mount.source.clone().unwrap_or_default();
    let tree = match options.kind {
        Kind::New => None,
        Kind::Bind(depth) => {
            let path = bundle.join(&source);
            let words = || format!("mount {source} to {}", mount.destination);
            let tree = Detached::bind(&path, depth).act(words)?;
            let mode = rustix::fs::fstat(&tree).act(words)?.st_mode;
            Some((tree, rustix::fs::FileType::from_raw_mode(mode).is_dir()))
        }
    };
    Ok(PlannedMount { destination: mount.destination.clone(), kind, source, options, tree })
}
