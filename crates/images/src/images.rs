//! Looking images up, naming them, and taking them away, by the rules that Docker's users know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_model::digest::{Digest, ImageId};
use gantry_model::id::ContainerId;
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use jiff::Timestamp;

use crate::catalog::{Change, ImageRecord, State};
use crate::error::{Error, Result};
use crate::oci::{ImageConfig, MAX_CONFIG};
use crate::store::{Store, forget_image};

/// An image with all that `docker inspect` shows.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Names with a tag, as users write them.
    pub repo_tags: Vec<String>,
    /// Names with a digest, as users write them.
    pub repo_digests: Vec<String>,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration as it was pulled, byte for byte.
    pub config_raw: Vec<u8>,
    /// What the catalog says: manifest, layers, times.
    pub record: ImageRecord,
    /// Bytes of the files in all layers.
    pub size: u64,
    /// The folders of the unpacked layers, top-most first.
    pub layer_folders: Vec<PathBuf>,
}

impl Image {
    /// When it was made, by its own word.
    pub fn created(&self) -> Option<Timestamp> {
        self.config.created.as_deref()?.parse().ok()
    }

    /// Whether no name with a tag leads to it.
    pub fn is_dangling(&self) -> bool {
        self.repo_tags.is_empty()
    }
}

/// One line of `docker images`.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its id.
    pub id: ImageId,
    /// The image that it was committed from, if that is here.
    pub parent: Option<ImageId>,
    /// Names with a tag, as users write them.
    pub repo_tags: Vec<String>,
    /// Names with a digest, as users write them.
    pub repo_digests: Vec<String>,
    /// When it was made; seconds since 1970.
    pub created: i64,
    /// Bytes of the files in all layers.
    pub size: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A step of `docker history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id for the newest step, `<missing>` for the others.
    pub id: String,
    /// When; seconds since 1970.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// Names of the image, for the newest step.
    pub tags: Vec<String>,
    /// Bytes of files in its layer.
    pub size: u64,
    /// A comment.
    pub comment: String,
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container.
    pub id: ContainerId,
    /// Whether it runs (or is paused).
    pub running: bool,
}

/// Says which containers use an image.
pub type InUse<'a> = &'a dyn Fn(&ImageId) -> Vec<ContainerUse>;

/// What a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name went.
    Untagged(String),
    /// An image or layer went.
    Deleted(String),
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names, images and layers that went.
    pub removed: Vec<Removed>,
    /// Bytes that were freed, of unpacked layers and of interrupted downloads.
    pub reclaimed: u64,
}

/// Which images a prune takes.
#[derive(Clone, Copy)]
pub struct PruneOptions<'a> {
    /// Only images without a tag; otherwise all that no container uses.
    pub dangling_only: bool,
    /// Only images made before.
    pub until: Option<Timestamp>,
    /// Only images that this accepts (labels).
    pub filter: &'a dyn Fn(&ImageConfig) -> bool,
}

impl Store {
    /// Finds an image by name, by digest, by id or by the beginning of its id.
    pub fn resolve(&self, name: &str) -> Result<ImageId> {
        resolve_in(&self.catalog.read(), name)
    }

    /// Finds an image as [`Store::resolve`] does, and returns all there is to know about it.
    pub fn get(&self, name: &str) -> Result<Image> {
        let id = self.resolve(name)?;
        self.image(&id)
    }

    /// The image with this id.
    pub fn image(&self, id: &ImageId) -> Result<Image> {
        let state = self.catalog.read();
        let record = state.images.get(&id.digest()).cloned();
        let record = record.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        let (repo_tags, repo_digests) = names_of(&state, id);
        let size = size_of(&state, &record);
        drop(state);
        let (config, config_raw) = self.config_of(id)?;
        let layer_folders = self.lowers(&record.chain());
        Ok(Image { id: *id, repo_tags, repo_digests, config, config_raw, record, size, layer_folders })
    }

    /// Refuses an image that is not for the platform which a request names.
    pub fn require_platform(&self, name: &str, wanted: &Platform) -> Result<()> {
        let found = self.get(name)?.config.platform();
        if wanted.rank(&found).is_some() {
            return Ok(());
        }
        let (found, wanted) = (found.to_string(), wanted.to_string());
        Err(Error::OtherPlatform { reference: name.to_owned(), found, wanted })
    }

    pub(crate) fn config_of(&self, id: &ImageId) -> Result<(ImageConfig, Vec<u8>)> {
        let raw = self.content.read(&id.digest(), MAX_CONFIG)?;
        let config = serde_json::from_slice(&raw).map_err(|error| Error::Document {
            document: "configuration",
            image: id.to_string(),
            what: error.to_string(),
        })?;
        Ok((config, raw))
    }

    /// All images, newest first. One whose configuration can't be read is left out and logged.
    pub fn list(&self) -> Vec<Summary> {
        let ids: Vec<Digest> = self.catalog.read().images.keys().copied().collect();
        let mut list = Vec::with_capacity(ids.len());
        for id in ids {
            match self.image(&ImageId::new(id)) {
                Ok(image) => list.push(self.summary(image)),
                // Removed since.
                Err(Error::NoSuchImage(_)) => {}
                Err(error) => tracing::error!(image = %id, error = error.chain(), "an image can't be listed"),
            }
        }
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.repo_tags.cmp(&b.repo_tags)));
        list
    }

    fn summary(&self, image: Image) -> Summary {
        let known = |parent: &ImageId| self.catalog.read().images.contains_key(&parent.digest());
        Summary {
            id: image.id,
            parent: image.record.parent.filter(known),
            created: image.created().map_or(0, |time| time.as_second()),
            labels: image.config.config.and_then(|config| config.labels).unwrap_or_default(),
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            size: image.size,
        }
    }

    /// How an image came about, newest step first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let image = self.get(name)?;
        let state = self.catalog.read();
        let mut sizes =
            image.record.chain().into_iter().map(|c| state.layers.get(&c).map_or(0, |layer| layer.size));
        let mut entries = Vec::new();
        for step in image.config.history.iter().flatten() {
            let created: Option<Timestamp> = step.created.as_deref().and_then(|text| text.parse().ok());
            let size = if step.empty_layer == Some(true) { 0 } else { sizes.next().unwrap_or(0) };
            entries.push(HistoryEntry {
                id: "<missing>".to_owned(),
                created: created.map_or(0, |time| time.as_second()),
                created_by: step.created_by.clone().unwrap_or_default(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone().unwrap_or_default(),
            });
        }
        entries.reverse();
        if let Some(newest) = entries.first_mut() {
            newest.id = image.id.to_string();
            newest.tags = image.repo_tags;
        }
        Ok(entries)
    }

    /// Puts a name on an image; a name that was elsewhere moves.
    pub fn tag(&self, name_or_id: &str, target: &Reference) -> Result<ImageId> {
        if target.digest().is_some() {
            return Err(Error::TagWithDigest(target.familiar()));
        }
        let target = target.clone().with_default_tag();
        self.catalog.change(|state| {
            let image = resolve_in(state, name_or_id)?;
            Ok((tag_changes(state, target, image), image))
        })
    }

    /// Takes a name away, and the image with it if that was the last one (`docker rmi`). An image that containers use
    /// stays, or the removal is refused, as Docker does. Blocks on the disk.
    pub fn remove(self: &Arc<Self>, name: &str, force: bool, in_use: InUse<'_>) -> Result<Vec<Removed>> {
        let before = self.catalog.read().layers.clone();
        // Asked outside of the change: the answer comes from code that may read the store itself.
        let image = self.resolve(name)?;
        let users = in_use(&image);
        let (mut removed, deleted) = self.catalog.change(|state| {
            if !state.images.contains_key(&image.digest()) {
                return Err(Error::NoSuchImage(name.to_owned()));
            }
            let users = with_newcomers(state, image, &users);
            let plan = plan_removal(state, name, image, force, &users)?;
            Ok::<_, Error>((plan.changes, (plan.removed, plan.deletes)))
        })?;
        if deleted {
            self.collect()?;
            let after = self.catalog.read();
            let gone = before.keys().filter(|chain| !after.layers.contains_key(chain));
            removed.extend(gone.map(|chain| Removed::Deleted(chain.to_string())));
        }
        Ok(removed)
    }

    /// Removes images that no container uses. Blocks on the disk.
    pub fn prune(self: &Arc<Self>, options: PruneOptions<'_>, in_use: InUse<'_>) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let before = self.catalog.read().layers.clone();
        let ids: Vec<Digest> = self.catalog.read().images.keys().copied().collect();
        for id in ids.into_iter().map(ImageId::new) {
            let Ok(image) = self.image(&id) else { continue };
            let young =
                options.until.is_some_and(|until| image.created().is_none_or(|created| created >= until));
            let spared = options.dangling_only && !image.is_dangling();
            if young || spared || !(options.filter)(&image.config) || !in_use(&id).is_empty() {
                continue;
            }
            self.catalog.change(|state| {
                // Somebody may have named it or started a container meanwhile.
                let named = options.dangling_only && state.tags.values().any(|tagged| *tagged == id);
                let used = state.containers.values().any(|container| container.image == id);
                if named || used || !state.images.contains_key(&id.digest()) {
                    return Ok::<_, Error>((Vec::new(), ()));
                }
                let (tags, digests) = names_of(state, &id);
                pruned.removed.extend(tags.into_iter().chain(digests).map(Removed::Untagged));
                pruned.removed.push(Removed::Deleted(id.to_string()));
                Ok((forget_image(state, id), ()))
            })?;
        }
        self.collect()?;
        pruned.reclaimed += self.discard_partials()?;
        let after = self.catalog.read();
        for (chain, layer) in before.iter().filter(|(chain, _)| !after.layers.contains_key(chain)) {
            pruned.removed.push(Removed::Deleted(chain.to_string()));
            pruned.reclaimed += layer.size;
        }
        Ok(pruned)
    }

    /// Bytes of files in all layers, each counted once (`docker system df`).
    pub fn layers_size(&self) -> u64 {
        self.catalog.read().layers.values().map(|layer| layer.size).sum()
    }
}

/// The changes that put a name on an image.
pub(crate) fn tag_changes(state: &State, name: Reference, image: ImageId) -> Vec<Change> {
    let mut changes = vec![Change::PutTag(name, image)];
    if let Some(record) = state.images.get(&image.digest()) {
        let record = ImageRecord { tagged: Some(Timestamp::now()), ..record.clone() };
        changes.push(Change::PutImage(image.digest(), record));
    }
    changes
}

fn size_of(state: &State, record: &ImageRecord) -> u64 {
    record.chain().iter().filter_map(|chain| state.layers.get(chain)).map(|layer| layer.size).sum()
}

fn names_of(state: &State, id: &ImageId) -> (Vec<String>, Vec<String>) {
    let tags = state.tags.iter().filter(|(_, image)| *image == id).map(|(name, _)| name.familiar());
    let pins = state.pins.iter().filter(|(_, pin)| pin.image == *id).map(|(name, _)| name.familiar());
    (tags.collect(), pins.collect())
}

fn resolve_in(state: &State, name: &str) -> Result<ImageId> {
    let not_found = || Error::NoSuchImage(name.chars().take(300).collect());
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if let Some(digest) = Digest::parse_hex(hex) {
        return state.images.contains_key(&digest).then(|| ImageId::new(digest)).ok_or_else(not_found);
    }
    if let Ok(reference) = Reference::parse(name) {
        let found = match reference.digest() {
            Some(digest) => {
                let pin = state.pins.get(&reference.with_digest(digest)).map(|pin| pin.image);
                // A digest may also be that of the image itself.
                pin.or_else(|| state.images.contains_key(&digest).then(|| ImageId::new(digest)))
            }
            None => state.tags.get(&reference.with_default_tag()).copied(),
        };
        if let Some(image) = found {
            return Ok(image);
        }
    }
    if hex.is_empty() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(not_found());
    }
    let mut matches = state.images.keys().filter(|id| id.hex().starts_with(hex));
    match (matches.next(), matches.next()) {
        (Some(id), None) => Ok(ImageId::new(*id)),
        (Some(_), Some(_)) => Err(Error::Ambiguous(name.to_owned())),
        (None, _) => Err(not_found()),
    }
}

/// What a removal will do.
struct Removal {
    changes: Vec<Change>,
    removed: Vec<Removed>,
    deletes: bool,
}

impl Removal {
    fn untag(&mut self, name: &Reference) {
        self.removed.push(Removed::Untagged(name.familiar()));
        self.changes.push(match name.digest() {
            Some(_) => Change::RemovePin(name.clone()),
            None => Change::RemoveTag(name.clone()),
        });
    }
}

/// The users, and those that came after it was asked who they are: a container takes its root before it is known to anyone else.
fn with_newcomers(state: &State, image: ImageId, users: &[ContainerUse]) -> Vec<ContainerUse> {
    let roots = state.containers.iter().filter(|(_, root)| root.image == image);
    let newcomers = roots
        .filter_map(|(id, _)| ContainerId::parse(id).ok())
        .filter(|id| users.iter().all(|user| user.id != *id))
        .map(|id| ContainerUse { id, running: false });
    users.iter().cloned().chain(newcomers).collect()
}

/// Docker's rules: a name that is given goes; the image goes with its last name, unless something uses it.
fn plan_removal(
    state: &State,
    name: &str,
    image: ImageId,
    force: bool,
    users: &[ContainerUse],
) -> Result<Removal> {
    let tags = state.tags.iter().filter(|(_, id)| **id == image).map(|(name, _)| name.clone());
    let pins = state.pins.iter().filter(|(_, pin)| pin.image == image).map(|(name, _)| name.clone());
    let mut names: BTreeSet<Reference> = tags.chain(pins).collect();
    let mut plan = Removal { changes: Vec::new(), removed: Vec::new(), deletes: false };
    let given = Reference::parse(name).ok().and_then(|reference| {
        let exact = match reference.digest() {
            Some(digest) => reference.with_digest(digest),
            None => reference.with_default_tag(),
        };
        names.take(&exact)
    });
    if let Some(given) = given {
        let mut all = names.clone();
        all.insert(given.clone());
        if !force
            && is_single(&all)
            && let Some(user) = users.first()
        {
            return Err(Error::NameInUse {
                reference: given.familiar(),
                container: user.id.short().to_owned(),
                image: image.short(),
            });
        }
        plan.untag(&given);
        // Names with a digest go with the last tag of their repository.
        let repository = given.repository();
        if given.digest().is_none()
            && !names.iter().any(|n| n.repository() == repository && n.digest().is_none())
        {
            let orphans: Vec<Reference> =
                names.iter().filter(|n| n.repository() == repository).cloned().collect();
            for orphan in orphans {
                names.remove(&orphan);
                plan.untag(&orphan);
            }
        }
        // By name, an image goes only with its last name; one that is in use stays without any.
        if !names.is_empty() || conflict(image, false, force, users).is_some() {
            return Ok(plan);
        }
    } else {
        let several = !names.is_empty() && !is_single(&names);
        if let Some(error) = conflict(image, several, force, users) {
            return Err(error);
        }
        names.iter().for_each(|name| plan.untag(name));
    }
    plan.removed.push(Removed::Deleted(image.to_string()));
    plan.changes.push(Change::RemoveImage(image.digest()));
    plan.deletes = true;
    Ok(plan)
}

/// Whether the names are one tag at most, in one repository.
fn is_single(names: &BTreeSet<Reference>) -> bool {
    let repositories: BTreeSet<String> = names.iter().map(Reference::name).collect();
    repositories.len() <= 1 && names.iter().filter(|name| name.digest().is_none()).count() <= 1
}

fn conflict(image: ImageId, several: bool, force: bool, users: &[ContainerUse]) -> Option<Error> {
    let refuse = |forcible, why: String| Some(Error::ImageInUse { image: image.short(), forcible, why });
    if let Some(user) = users.iter().find(|user| user.running) {
        return refuse(false, format!("image is being used by running container {}", user.id.short()));
    }
    if force {
        return None;
    }
    if several {
        return refuse(true, "image is referenced in multiple repositories".to_owned());
    }
    let user = users.first()?;
    refuse(true, format!("image is being used by stopped container {}", user.id.short()))
}
