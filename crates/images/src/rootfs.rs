//! A container's root file system: the image's layers below, an upper folder of its own above.
//!
//! The layers are named in the container's record, so they outlive the image if that is removed by force.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_model::digest::{Digest, ImageId};

use crate::catalog::{Change, ContainerRecord};
use crate::error::{Error, Result};
use crate::store::{Store, set_plain_mode};

/// The folders of which overlayfs makes a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The image's layers, top-most first; never empty.
    pub lower: Vec<PathBuf>,
    /// Where the container writes.
    pub upper: PathBuf,
    /// overlayfs's own folder, on the same file system.
    pub work: PathBuf,
}

/// What a container takes on disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerSize {
    /// What it wrote itself.
    pub writable: u64,
    /// That and its image.
    pub total: u64,
}

impl Store {
    /// Makes the root file system of a new container and protects the layers for it. Layers that were lost on disk are
    /// unpacked again. Blocks on the disk; `container` must be 64 hex digits.
    pub fn prepare_rootfs(self: &Arc<Self>, container: &str, image: &ImageId) -> Result<Rootfs> {
        check_id(container)?;
        let _lease = self.lease();
        let record = self.catalog.read().images.get(&image.digest()).cloned();
        let record = record.ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
        let chain = record.chain();
        for (chain, layer) in chain.iter().zip(&record.layers) {
            if self.catalog.read().layers.contains_key(chain) {
                continue;
            }
            if !self.content.has(&layer.blob.digest) {
                return Err(Error::LayerMissing(layer.diff_id, *image));
            }
            self.layer_from_blob(chain, &layer.blob.digest, &layer.diff_id)?;
        }
        if self.catalog.read().containers.contains_key(container) {
            return Err(Error::RootfsExists(container.to_owned()));
        }
        let rootfs = self.make_folders(container, &chain)?;
        let put = Change::PutContainer(container.to_owned(), ContainerRecord { image: *image, chain });
        let kept = self.catalog.change(|state| {
            if state.containers.contains_key(container) {
                return Err(Error::RootfsExists(container.to_owned()));
            }
            // Its files are there as long as the lease is held, but who removed it was told that nobody uses it.
            if !state.images.contains_key(&image.digest()) {
                return Err(Error::NoSuchImage(image.to_string()));
            }
            Ok((vec![put], ()))
        });
        if let Err(Error::NoSuchImage(_)) = &kept {
            self.trash.discard(&self.container_folder(container))?;
        }
        kept.map(|()| rootfs)
    }

    fn make_folders(&self, container: &str, chain: &[Digest]) -> Result<Rootfs> {
        let folder = self.container_folder(container);
        // Without a record it is a leftover.
        self.trash.discard(&folder)?;
        let rootfs = self.rootfs_of(container, chain);
        for path in [&folder, &rootfs.upper, &rootfs.work] {
            fs::create_dir(path).map_err(Error::io("create folder", path))?;
        }
        // The mount shows the attributes of the top-most folder as those of `/`: they come from the image.
        let top = fs::metadata(&rootfs.lower[0]).map_err(Error::io("stat", &rootfs.lower[0]))?;
        set_plain_mode(&rootfs.upper)?;
        std::os::unix::fs::chown(&rootfs.upper, Some(top.uid()), Some(top.gid()))
            .and_then(|()| fs::set_permissions(&rootfs.upper, top.permissions()))
            .map_err(Error::io("set attributes of", &rootfs.upper))?;
        Ok(rootfs)
    }

    fn rootfs_of(&self, container: &str, chain: &[Digest]) -> Rootfs {
        let folder = self.container_folder(container);
        Rootfs { lower: self.lowers(chain), upper: folder.join("upper"), work: folder.join("work") }
    }

    /// The folders of a chain, top-most first; an empty one for an image without layers, which overlayfs needs.
    pub(crate) fn lowers(&self, chain: &[Digest]) -> Vec<PathBuf> {
        if chain.is_empty() {
            return vec![self.dir().join("empty")];
        }
        chain.iter().rev().map(|chain| self.layer_diff(chain)).collect()
    }

    /// The root file system of a container that has one.
    pub fn rootfs(&self, container: &str) -> Result<Rootfs> {
        let record = self.container_record(container)?;
        Ok(self.rootfs_of(container, &record.chain))
    }

    /// The folders of the layers below a container, top-most first.
    pub fn rootfs_lowers(&self, container: &str) -> Result<Vec<PathBuf>> {
        Ok(self.lowers(&self.container_record(container)?.chain))
    }

    /// The image that a container was made from; it may have been removed since.
    pub fn container_image(&self, container: &str) -> Result<ImageId> {
        Ok(self.container_record(container)?.image)
    }

    /// The containers that have a root file system here.
    pub fn rootfs_containers(&self) -> Vec<String> {
        self.catalog.read().containers.keys().cloned().collect()
    }

    pub(crate) fn container_record(&self, container: &str) -> Result<ContainerRecord> {
        let found = self.catalog.read().containers.get(container).cloned();
        found.ok_or_else(|| Error::NoRootfs(container.to_owned()))
    }

    /// Takes a container's root file system away: a rename now, the deletion in the background. None there is fine.
    /// It must not be mounted any more.
    pub fn remove_rootfs(&self, container: &str) -> Result<()> {
        check_id(container)?;
        let removed = self.catalog.change(|state| {
            let found = state.containers.get(container).cloned();
            let changes = found.iter().map(|_| Change::RemoveContainer(container.to_owned())).collect();
            Ok::<_, Error>((changes, found))
        })?;
        // A folder without a record is swept at the next open, should this be the end of the process.
        self.trash.discard(&self.container_folder(container))?;
        // Only the last user of layers whose image is gone has anything to collect.
        let orphaned =
            removed.is_some_and(|record| !self.catalog.read().images.contains_key(&record.image.digest()));
        if orphaned {
            self.collect()?;
        }
        Ok(())
    }

    /// What a container takes on disk. Walks its upper folder; blocks.
    pub fn container_size(&self, container: &str) -> Result<ContainerSize> {
        let record = self.container_record(container)?;
        let upper = self.container_folder(container).join("upper");
        let writable = crate::changes::tree_size(&upper)?;
        let state = self.catalog.read();
        let image: u64 =
            record.chain.iter().filter_map(|chain| state.layers.get(chain)).map(|l| l.size).sum();
        Ok(ContainerSize { writable, total: writable + image })
    }
}

/// The id becomes a folder's name, so nothing but an id is taken.
fn check_id(container: &str) -> Result<()> {
    match gantry_model::id::ContainerId::parse(container) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::ContainerId(container.chars().take(100).collect())),
    }
}
