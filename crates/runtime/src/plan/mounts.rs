//! The mounts of a container with their sources, and its root file system: opened before the first process exists, so that
//! nothing can be swapped afterwards.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use gantry_linux::{
    mount::{Depth, Detached, MountError},
    namespace::Namespaces,
};
use rustix::fs::{FileType, Mode, OFlags};

use super::{
    config,
    namespaces::{IdMaps, NamespacePlan},
};
use crate::{
    error::{Act, Error, Result},
    idmap,
    monitor::Overlay,
    mount_options::{self, Kind, Options},
    oci::{self, Spec},
};

/// Where the root file system comes from.
#[derive(Debug)]
pub enum RootSource {
    /// A tree, cloned from the bundle.
    Tree(Detached),
    /// Made by the first process.
    Overlay(Overlay),
    /// A folder that the first process clones: the runtime of an ordinary user has no right to.
    Later(PathBuf),
    /// The folder itself, of a container without a mount namespace.
    Folder(OwnedFd),
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
    /// Source of a bind mount on the host.
    pub path: PathBuf,
    /// Options.
    pub options: Options,
    /// The tree of a bind mount, and whether it is a folder.
    pub tree: Option<(Detached, bool)>,
}

impl PlannedMount {
    /// Clones the source of a bind mount, if that has not happened yet.
    pub fn open(&mut self) -> Result<()> {
        let (Kind::Bind(depth), None) = (self.options.kind, &self.tree) else { return Ok(()) };
        let words = || format!("mount {} to {}", self.source, self.destination);
        let tree = Detached::bind(&self.path, depth).act(words)?;
        let mode = rustix::fs::fstat(&tree).act(words)?.st_mode;
        self.tree = Some((tree, FileType::from_raw_mode(mode).is_dir()));
        Ok(())
    }
}

/// Decides about the root file system.
pub fn root_source(
    bundle: &Path,
    spec: &Spec,
    overlay: Option<Overlay>,
    namespaces: &NamespacePlan,
) -> Result<RootSource> {
    if let Some(overlay) = overlay {
        return Ok(RootSource::Overlay(overlay));
    }
    let path = rootfs_path(bundle, spec)?;
    let words = || format!("open root file system {}", path.display());
    if !namespaces.separate.contains(Namespaces::MOUNT) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return rustix::fs::open(&path, flags, Mode::empty()).act(words).map(RootSource::Folder);
    }
    match Detached::bind(&path, Depth::Recursive) {
        Ok(tree) => {
            let stat = rustix::fs::fstat(&tree).act(words)?;
            check_folder(&path, FileType::from_raw_mode(stat.st_mode))?;
            Ok(RootSource::Tree(tree))
        }
        Err(error) if is_for_later(&error, namespaces) => {
            let stat = rustix::fs::stat(&path).act(words)?;
            check_folder(&path, FileType::from_raw_mode(stat.st_mode))?;
            Ok(RootSource::Later(path))
        }
        Err(error) => Err(error).act(words),
    }
}

fn check_folder(path: &Path, kind: FileType) -> Result<()> {
    if kind.is_dir() {
        return Ok(());
    }
    Err(config("root.path", &format!("{} is not a folder", path.display())))
}

/// Whether the first process will have the right that the runtime does not have: in its own user namespace.
fn is_for_later(error: &MountError, namespaces: &NamespacePlan) -> bool {
    let denied =
        matches!(error, MountError::Bind { source, .. } if source.raw_os_error() == Some(libc::EPERM));
    denied && namespaces.has_user()
}

/// The folder that `root.path` names.
pub fn rootfs_path(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let root = spec.root.as_ref().ok_or_else(|| config("root", "is missing"))?;
    if root.path.as_os_str().is_empty() {
        return Err(config("root.path", "is missing"));
    }
    Ok(bundle.join(&root.path))
}

/// Decides about all mounts.
pub fn plan(bundle: &Path, spec: &Spec, namespaces: &NamespacePlan) -> Result<Vec<PlannedMount>> {
    let mut maps = idmap::Cache::default();
    spec.mounts.iter().map(|mount| plan_one(bundle, mount, namespaces, &mut maps)).collect()
}

fn plan_one(
    bundle: &Path,
    mount: &oci::Mount,
    namespaces: &NamespacePlan,
    maps: &mut idmap::Cache,
) -> Result<PlannedMount> {
    let kind = mount.kind.clone().unwrap_or_default();
    let mut options = mount_options::parse(&mount.options, kind == "bind");
    if kind.is_empty() && options.kind == Kind::New {
        options.kind = Kind::Bind(Depth::This);
    }
    let source = mount.source.clone().unwrap_or_default();
    // A relative destination counts from the root (config.md, "Mounts").
    let destination = match mount.destination.as_str() {
        "" => return Err(config("mounts", &format!("the mount of {source:?} has no destination"))),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    check_options(&destination, &kind, &options)?;
    let path = bundle.join(&source);
    let mut planned = PlannedMount { destination, kind, source, path, options, tree: None };
    match planned.open() {
        Err(Error::Mount { source, .. }) if is_for_later(&source, namespaces) => {}
        other => other?,
    }
    map_ids(&planned, mount, namespaces, maps)?;
    Ok(planned)
}

fn check_options(destination: &str, kind: &str, options: &Options) -> Result<()> {
    if options.copy_up && (options.kind != Kind::New || kind != "tmpfs") {
        return Err(config("mounts", &format!("{destination}: tmpcopyup is for tmpfs only")));
    }
    // The kernel would not even look at them.
    if let (Kind::Bind(_), Some(word)) = (options.kind, options.parameters.first()) {
        let problem = format!("{destination}: a bind mount has no file system option {word:?}");
        return Err(config("mounts", &problem));
    }
    Ok(())
}

/// Maps the ids of a mount whose tree nobody sees yet, which is when the kernel allows it (mount_setattr(2)).
fn map_ids(
    planned: &PlannedMount,
    mount: &oci::Mount,
    namespaces: &NamespacePlan,
    cache: &mut idmap::Cache,
) -> Result<()> {
    let own = !(mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty());
    // Maps without one of the options mean `idmap`, as in runc.
    let Some(depth) = planned.options.map_ids.or(own.then_some(Depth::This)) else { return Ok(()) };
    let refuse = |problem: &str| config("mounts", &format!("{}: {problem}", planned.destination));
    if !matches!(planned.options.kind, Kind::Bind(_)) {
        return Err(refuse("ids can be mapped for bind mounts only"));
    }
    let Some((tree, _)) = &planned.tree else {
        return Err(refuse("id-mapped mounts need more rights than an ordinary user has"));
    };
    let words = || format!("map the ids of {} at {}", planned.source, planned.destination);
    let apply = |namespace: &OwnedFd| tree.map_ids(depth, namespace.as_fd()).act(words);
    if own {
        let maps = IdMaps::of("mounts", &mount.uid_mappings, &mount.gid_mappings)?;
        return apply(cache.namespace_with(&maps)?);
    }
    match (&namespaces.maps, namespaces.joined(Namespaces::USER)) {
        (Some(maps), _) => apply(cache.namespace_with(maps)?),
        (None, Some(joined)) => apply(&joined.fd),
        (None, None) => Err(refuse("idmap without mappings needs a user namespace, whose mappings it takes")),
    }
}
