//! Volumes: named folders that outlive containers, kept by the `local` driver.
//!
//! A volume's folder is `<data>/volumes/<name>/_data`. Options `type`, `device` and `o` make it the mount point of
//! another file system, mounted while containers that use it run.

mod claims;

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, io, parameter};
use crate::events::Event;
use crate::filter;
use crate::mounts::{ContainerMount, Source};
use crate::record::{Table, VolumeRecord};
use crate::request::{Filters, Pruned, VolumeRequest, VolumeView};
use claims::{Claim, Claims};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The volumes of one engine.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    known: Mutex<HashMap<String, VolumeRecord>>,
    /// Containers that hold a volume's own mount, by volume name.
    mounted: Mutex<BTreeMap<String, BTreeSet<String>>>,
    claims: Arc<Claims>,
}

impl Volumes {
    pub fn new(known: HashMap<String, VolumeRecord>) -> Self {
        Self { known: Mutex::new(known), ..Self::default() }
    }

    fn get(&self, name: &str) -> Option<VolumeRecord> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Engine {
    /// The folder that containers see as a volume.
    pub(crate) fn volume_path(&self, name: &str) -> PathBuf {
        self.config().data_dir.join("volumes").join(name).join("_data")
    }

    fn volume_view(&self, record: VolumeRecord) -> VolumeView {
        VolumeView {
            mountpoint: self.volume_path(&record.name),
            name: record.name,
            driver: "local".to_owned(),
            created: record.created,
            labels: record.labels,
            options: record.options,
            anonymous: record.anonymous,
        }
    }

    /// Makes a volume, or returns the existing one of that name. Options that differ from the existing one's are refused.
    pub async fn volume_create(&self, request: VolumeRequest) -> Result<VolumeView> {
        check(&request)?;
        let name = named(&request)?;
        let _alone = self.volumes().claims.alone(&name).await;
        let record = self.ensure_volume(name, request, false).await?;
        Ok(self.volume_view(record))
    }

    /// The volume of this name, made if there is none. Its lock is held.
    async fn ensure_volume(
        &self,
        name: String,
        request: VolumeRequest,
        anonymous: bool,
    ) -> Result<VolumeRecord> {
        if let Some(known) = self.volumes().get(&name) {
            if !request.options.is_empty() && request.options != known.options {
                return Err(Error::Conflict(format!(
                    "create {name}: conflict: volume already exists but specified options are different"
                )));
            }
            return Ok(known);
        }
        let record = VolumeRecord {
            name: name.clone(),
            created: Timestamp::now(),
            labels: request.labels,
            options: request.options,
            anonymous,
        };
        let path = self.volume_path(&name);
        std::fs::create_dir_all(&path).map_err(io("create volume folder", &path))?;
        self.records().put(Table::Volumes, &name, &record).await?;
        self.volumes()
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), record.clone());
        self.publish(Event::local("volume", "create", &name).with("driver", "local"));
        Ok(record)
    }

    /// Volumes that the filters (name, label, driver, dangling) let through, by name.
    pub fn volume_list(&self, filters: &Filters) -> Result<Vec<VolumeView>> {
        filter::only(filters, &["name", "label", "label!", "driver", "dangling", "scope"])?;
        let used = self.volume_users();
        let known = self.volumes().known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut list: Vec<VolumeView> = known
            .into_values()
            .map(|record| self.volume_view(record))
            .filter(|v| filter::volume(v, filters, used.contains_key(&v.name)))
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// A volume by name.
    pub fn volume_get(&self, name: &str) -> Result<VolumeView> {
        let record = self.volumes().get(name).ok_or_else(|| Error::NoSuchVolume(name.to_owned()))?;
        Ok(self.volume_view(record))
    }

    /// Containers by the volume that they refer to, also those that are still being made.
    pub(crate) fn volume_users(&self) -> BTreeMap<String, Vec<String>> {
        // Asked first: a container that is made meanwhile is among the others then.
        let mut users = self.volumes().claims.holders();
        for container in self.containers() {
            for mount in &container.record().mounts {
                if let Source::Volume { name, .. } = &mount.source {
                    users.entry(name.clone()).or_default().insert(container.id.to_string());
                }
            }
        }
        users.into_iter().map(|(volume, containers)| (volume, containers.into_iter().collect())).collect()
    }

    /// Removes a volume that no container refers to; with `force` a missing one is fine.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let _alone = self.volumes().claims.alone(name).await;
        if self.volumes().get(name).is_none() {
            return if force { Ok(()) } else { Err(Error::NoSuchVolume(name.to_owned())) };
        }
        if let Some(users) = self.volume_users().remove(name) {
            return Err(Error::VolumeInUse { name: name.to_owned(), users });
        }
        self.drop_volume(name).await
    }

    /// Removes an unused volume; its lock is held.
    async fn drop_volume(&self, name: &str) -> Result<()> {
        // What is mounted is not the volume's to delete.
        let path = self.volume_path(name);
        unmount(&path).map_err(io("unmount volume", &path))?;
        self.records().remove(Table::Volumes, name).await?;
        self.volumes().known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let folder = self.config().data_dir.join("volumes").join(name);
        self.discard(&folder)?;
        self.publish(Event::local("volume", "destroy", name).with("driver", "local"));
        Ok(())
    }

    /// Removes unused volumes: anonymous ones, with the filter `all=true` named ones too.
    pub async fn volume_prune(&self, filters: &Filters) -> Result<Pruned> {
        filter::only(filters, &["label", "label!", "all"])?;
        let all = filters.get("all").is_some_and(|v| v.iter().any(|v| v == "1" || v == "true"));
        let used = self.volume_users();
        let mut pruned = Pruned::default();
        for volume in self.volume_list(&Filters::new())? {
            let chosen = (all || volume.anonymous)
                && !used.contains_key(&volume.name)
                && filter::prunable(&volume.labels, volume.created, filters, None);
            if !chosen {
                continue;
            }
            let path = volume.mountpoint.clone();
            let size = blocking("volume size", move || Ok(tree_size(&path))).await?;
            match self.volume_remove(&volume.name, false).await {
                Ok(()) => {}
                // Somebody took it meanwhile, or removed it.
                Err(Error::VolumeInUse { .. } | Error::NoSuchVolume(_)) => continue,
                Err(error) => return Err(error),
            }
            pruned.removed.push(volume.name);
            pruned.space_reclaimed += size;
        }
        self.publish(
            Event::local("volume", "prune", "").with("reclaimed", pruned.space_reclaimed.to_string()),
        );
        Ok(pruned)
    }

    /// Makes the volumes that a new container names, and fills empty ones from its image. The mounts get their names. Until the
    /// container is known, the claim keeps the volumes.
    pub(crate) async fn prepare_volumes(
        &self,
        container: &str,
        mounts: &mut [ContainerMount],
        lower: &[PathBuf],
    ) -> Result<Claim> {
        let claim = self.volumes().claims.claim(container);
        for mount in mounts {
            let Source::Volume { name, driver, options, labels, no_copy, subpath, anonymous } =
                &mut mount.source
            else {
                continue;
            };
            let request = VolumeRequest {
                name: Some(name.clone()),
                driver: driver.clone(),
                options: options.clone(),
                labels: labels.clone(),
            };
            check(&request)?;
            *name = named(&request)?;
            let _alone = self.volumes().claims.alone(name).await;
            let record = self.ensure_volume(name.clone(), request, *anonymous).await?;
            claim.add(name);
            // A volume with a file system of its own is filled by its owner.
            if *no_copy || !subpath.is_empty() || !record.options.is_empty() {
                continue;
            }
            let (path, lower, inside) =
                (self.volume_path(&record.name), lower.to_vec(), mount.destination.clone());
            blocking("copying into a volume", move || {
                let empty = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
                if empty { crate::rootfs::copy_up(&lower, &inside, &path) } else { Ok(()) }
            })
            .await?;
        }
        Ok(claim)
    }

    /// Mounts a volume's own file system for a container, if it has one.
    pub(crate) fn hold_volume(&self, name: &str, container: &str) -> Result<()> {
        let Some(record) = self.volumes().get(name) else { return Err(Error::NoSuchVolume(name.to_owned())) };
        let path = self.volume_path(name);
        if record.options.is_empty() {
            return std::fs::create_dir_all(&path).map_err(io("create volume folder", &path));
        }
        let mut mounted = self.volumes().mounted.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = mounted.entry(name.to_owned()).or_default();
        if holders.is_empty() && !is_mount_point(&path) {
            mount_options(&record.options, &path)?;
        }
        holders.insert(container.to_owned());
        Ok(())
    }

    /// A container lets go of its volumes; the last one unmounts.
    pub(crate) fn release_volumes(&self, mounts: &[ContainerMount], container: &str) {
        let mut mounted = self.volumes().mounted.lock().unwrap_or_else(PoisonError::into_inner);
        for mount in mounts {
            let Source::Volume { name, .. } = &mount.source else { continue };
            let holders = mounted.get_mut(name);
            if holders.is_none() && self.volumes().get(name).is_none_or(|record| record.options.is_empty()) {
                continue;
            }
            // Nobody may be known to hold it: a former engine has mounted it.
            if holders.is_none_or(|holders| holders.remove(container) && holders.is_empty()) {
                mounted.remove(name);
                if let Err(error) = unmount(&self.volume_path(name)) {
                    tracing::warn!(volume = name, %error, "unmount volume");
                }
            }
        }
    }
}

/// Whether something is mounted at a path of ours, also when it is a part of the same file system.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Takes a volume's own mount away, if it is there.
fn unmount(path: &Path) -> std::io::Result<()> {
    while is_mount_point(path) {
        gantry_linux::mount::unmount(path)?;
    }
    Ok(())
}

/// The asked name, or a random one.
fn named(request: &VolumeRequest) -> Result<String> {
    match request.name.as_deref() {
        None | Some("") => crate::engine::random_id(),
        Some(name) => Ok(name.to_owned()),
    }
}

fn check(request: &VolumeRequest) -> Result<()> {
    if !matches!(request.driver.as_str(), "" | "local") {
        return Err(parameter(format!(
            "error looking up volume plugin {}: plugin \"{}\" not found",
            request.driver, request.driver
        )));
    }
    if let Some(name) = request.name.as_deref().filter(|name| !name.is_empty()) {
        crate::mounts::volume_name(name)?;
    }
    if let Some(key) = request.options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device")) {
        return Err(parameter(format!(
            "invalid option: \"{key}\"; the local driver knows type, o and device"
        )));
    }
    if !request.options.is_empty() && !request.options.contains_key("device") {
        return Err(parameter("missing device in volume options"));
    }
    Ok(())
}

/// Mounts a volume by its options `type`, `device`, `o`.
fn mount_options(options: &BTreeMap<String, String>, path: &Path) -> Result<()> {
    use rustix::mount::{MountFlags, mount};
    let get = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
    let (kind, device) = (get("type"), get("device"));
    let mut flags = MountFlags::empty();
    let mut bind = kind == "bind" || kind == "none" && get("o").split(',').any(|w| w == "bind");
    let mut data: Vec<String> = Vec::new();
    for word in get("o").split(',').filter(|w| !w.is_empty()) {
        match word {
            "bind" | "rbind" => bind = true,
            "ro" => flags |= MountFlags::RDONLY,
            "rw" | "defaults" => {}
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            other => data.push(with_address(kind, other)?),
        }
    }
    if bind {
        return bind_device(Path::new(device), path, u64::from(flags.bits()));
    }
    let data = std::ffi::CString::new(data.join(",")).map_err(|_| parameter("invalid volume option o"))?;
    mount(device, path, kind, flags, Some(data.as_c_str())).map_err(|error| {
        // Which of them the kernel means by "no such device" only the user can know.
        let what = format!("{kind} file system {device:?} with options {data:?}: {error}");
        io("mount volume on", path)(std::io::Error::other(what))
    })
}

/// `addr=HOST` of a network file system with the host's address: the kernel knows no names, and mount(8) is not asked.
fn with_address(kind: &str, option: &str) -> Result<String> {
    use std::net::{IpAddr, ToSocketAddrs};
    let network = matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3");
    let Some(host) = option.strip_prefix("addr=").filter(|host| network && host.parse::<IpAddr>().is_err())
    else {
        return Ok(option.to_owned());
    };
    let found = (host, 0).to_socket_addrs().map(|mut all| all.next());
    match found {
        Ok(Some(address)) => Ok(format!("addr={}", address.ip())),
        Ok(None) => {
            Err(parameter(format!("error resolving {host:?} of volume option {option:?}: no address")))
        }
        Err(error) => {
            Err(parameter(format!("error resolving {host:?} of volume option {option:?}: {error}")))
        }
    }
}

/// Shows a folder of the host as a volume. mount(2) ignores flags in a bind mount, so they are set before it is attached.
fn bind_device(device: &Path, path: &Path, flags: u64) -> Result<()> {
    use gantry_linux::mount::{Attributes, Depth, Detached, MountError, attr};
    let failed = |error: MountError| {
        let whole = crate::error::whole(&error);
        io("mount volume on", path)(std::io::Error::other(whole))
    };
    let tree = Detached::bind(device, Depth::Recursive).map_err(failed)?;
    // The old numbers (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC) are those of mount_setattr(2) as well; access times are not.
    let set = flags & (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC);
    tree.set(Depth::Recursive, Attributes { set, ..Attributes::default() }).map_err(failed)?;
    let place = std::fs::File::open(path).map_err(io("open", path))?;
    tree.attach(std::os::fd::AsFd::as_fd(&place)).map_err(failed)?;
    Ok(())
}

/// Bytes of all files in a folder of ours.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let Ok(root) = gantry_linux::root::Root::open(path) else { return 0 };
    let found = gantry_images::pack::walk(&root).unwrap_or_default();
    found.iter().map(|f| u64::try_from(f.stat.st_blocks).unwrap_or(0) * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_file_servers_become_addresses() {
        assert_eq!(with_address("nfs", "addr=10.0.0.1").unwrap(), "addr=10.0.0.1");
        assert_eq!(with_address("nfs", "nolock").unwrap(), "nolock");
        assert_eq!(with_address("ext4", "addr=localhost").unwrap(), "addr=localhost");
        assert!(matches!(
            with_address("nfs4", "addr=localhost").unwrap().as_str(),
            "addr=127.0.0.1" | "addr=::1"
        ));
    }
}
