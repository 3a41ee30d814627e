//! Joining the container's cgroups from inside, and showing them in the container.

use std::os::fd::AsFd;

use gantry_linux::{
    cgroup::{Folder, Version},
    mount::{Attributes, Depth, Detached, Parameter, Propagation, attr},
    namespace::{self, Namespaces},
    root::{Links, Root},
};

use super::rootfs::{Place, Rootfs};
use crate::{
    channel::{Channel, ToInit},
    error::{Act, Error, Result},
    plan::{Plan, PlannedMount},
};

/// Waits for the cgroups, which the runtime makes meanwhile, and joins them; at most once.
pub struct Joining<'a> {
    channel: &'a Channel,
    group: gantry_linux::cgroup::Cgroup,
    id: String,
    new_namespace: bool,
    /// This process writes to the groups itself: not in a user namespace, where it may not and the runtime has moved it.
    joins: bool,
    joined: bool,
}

impl<'a> Joining<'a> {
    /// Nothing happens before it is needed.
    pub fn new(plan: &Plan, channel: &'a Channel) -> Joining<'a> {
        Joining {
            channel,
            group: plan.group.clone(),
            id: plan.id.clone(),
            new_namespace: plan.namespaces.new_cgroup,
            joins: plan.joins_group && !plan.namespaces.has_user(),
            joined: false,
        }
    }

    /// Joins, if that has not happened yet.
    pub fn join(&mut self) -> Result<()> {
        if self.joined {
            return Ok(());
        }
        self.joined = true;
        self.channel.expect(ToInit::CgroupsReady).act(|| "wait for the cgroups".to_owned())?;
        if self.joins {
            // On v2 this process was cloned into its group.
            self.group.join_v1().map_err(|source| Error::Cgroup { id: self.id.clone(), source })?;
        }
        if self.new_namespace {
            namespace::unshare(Namespaces::CGROUP).act(|| "create cgroup namespace".to_owned())?;
        }
        Ok(())
    }

    /// The folders to show, and whether the namespace hides what is above them.
    pub fn namespace(&self) -> (&[Folder], bool) {
        (self.group.folders(), self.new_namespace)
    }
}

/// Shows the container's own groups at the mount's destination.
pub fn mount(
    rootfs: &Rootfs,
    mount: &PlannedMount,
    (folders, own_namespace): (&[Folder], bool),
) -> Result<()> {
    let words = || "show the container's groups".to_owned();
    let v1: Vec<&Folder> = folders.iter().filter(|folder| folder.version == Version::V1).collect();
    if v1.is_empty() || mount.kind == "cgroup2" {
        let Some(folder) = folders.iter().find(|folder| folder.version == Version::V2) else {
            return match mount.kind.as_str() {
                "cgroup2" => Err(Error::Config {
                    field: "mounts".into(),
                    problem: format!("{}: this host has no cgroups of version 2", mount.destination),
                }),
                // Without any cgroups there is nothing to show.
                _ => Ok(()),
            };
        };
        let tree = view(folder, own_namespace)?;
        set_options(&tree, mount)?;
        return rootfs.attach_at(&mount.destination, tree, Place::Folder).map(drop);
    }
    let writable = mount.options.own.set & !attr::RDONLY;
    let tmpfs =
        Detached::new("tmpfs", Some("tmpfs"), &[Parameter::Value("mode", "755")], writable).act(words)?;
    let tmpfs = rootfs.attach_at(&mount.destination, tmpfs, Place::Folder)?;
    // From here on everything happens beneath it, whatever becomes of the path to it.
    let top = Root::from_fd(tmpfs.try_clone().act(words)?, "the container's groups");
    for folder in v1 {
        let name = folder.mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
        top.mkdir(&name, 0o755).act(words)?;
        let place = top.open_path(&name, Links::Keep).act(words)?;
        let tree = view(folder, own_namespace)?;
        set_options(&tree, mount)?;
        tree.attach(place.as_fd()).act(words)?;
        // Controllers that share one hierarchy are found by each of their names.
        for controller in folder.controllers.iter().filter(|c| folder.controllers.len() > 1 && **c != name) {
            top.symlink(&name, controller).act(words)?;
        }
    }
    if mount.options.own.set & attr::RDONLY != 0 {
        gantry_linux::mount::set_attributes(tmpfs.as_fd(), Depth::This, Attributes::read_only())
            .act(words)?;
    }
    Ok(())
}

fn set_options(tree: &Detached, mount: &PlannedMount) -> Result<()> {
    let words = || "change its attributes".to_owned();
    tree.set(Depth::This, mount.options.own).act(words)?;
    tree.set(Depth::Recursive, mount.options.recursive).act(words)
}

/// A view of one hierarchy that begins at the container's group.
fn view(folder: &Folder, own_namespace: bool) -> Result<Detached> {
    let words = || format!("show cgroup {}", folder.path.display());
    if !own_namespace {
        let tree = Detached::bind(&folder.path, Depth::This).act(words)?;
        tree.set(Depth::This, Attributes::propagation(Propagation::Private)).act(words)?;
        return Ok(tree);
    }
    if folder.version == Version::V2 {
        return Detached::new("cgroup2", Some("cgroup"), &[], 0).act(words);
    }
    let mut parameters = Vec::new();
    for controller in &folder.controllers {
        match controller.strip_prefix("name=") {
            Some(name) => parameters.extend([Parameter::Flag("none"), Parameter::Value("name", name)]),
            None => parameters.push(Parameter::Flag(controller)),
        }
    }
    Detached::new("cgroup", Some("cgroup"), &parameters, 0).act(words)
}
