//! Loading takes images out of an archive: Docker's `docker save` format, an OCI layout, or both in one.
//!
//! The archive is read once, in whatever order it is: every file becomes a blob, and when all are there the documents
//! say which of them are images. What no image needs is collected afterwards.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use gantry_model::digest::{Digest, ImageId};
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::{ImageRecord, LayerRef};
use crate::content::Stored;
use crate::create::LayerSource;
use crate::error::{Error, Result};
use crate::layer::Expanded;
use crate::oci::{
    Compression, Descriptor, ImageConfig, Index, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST, Manifest, chain_ids,
    is_index,
};
use crate::store::Store;
use crate::tarball::{Kind, TarReader};

const ACT: &str = "load images from the archive";
/// The most files of one archive; an image has three for each layer in the oldest format.
const MAX_FILES: usize = 200_000;

/// The annotations by which indexes name images.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub image: ImageId,
    /// The names that it got, as users write them.
    pub names: Vec<String>,
}

/// One image in Docker's `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ArchivedImage {
    pub config: String,
    #[serde(deserialize_with = "gantry_model::nullable")]
    pub repo_tags: Vec<String>,
    #[serde(deserialize_with = "gantry_model::nullable")]
    pub layers: Vec<String>,
}

impl Store {
    /// Loads all images of an archive, plain or packed with gzip or zstd; if a platform is given, only those that run on
    /// it. Blocks.
    pub fn load(self: &Arc<Self>, archive: impl Read, platform: Option<&Platform>) -> Result<Vec<Loaded>> {
        let lease = self.lease();
        lease.collect_after();
        let files = self.take_files(archive)?;
        let manifests = self.index_manifests(&files)?;
        match files.document(self, "manifest.json")? {
            Some(list) => {
                let list: Vec<ArchivedImage> = parse(&list, "manifest.json")?;
                self.load_list(&files, &list, &manifests, platform)
            }
            None if manifests.is_empty() => {
                Err(Error::archive(ACT, "it has neither manifest.json nor index.json with images"))
            }
            None => self.load_layout(&manifests, platform),
        }
    }

    /// The images of Docker's list, whatever they run on if no platform is given.
    fn load_list(
        &self,
        files: &Files,
        list: &[ArchivedImage],
        manifests: &[IndexEntry],
        platform: Option<&Platform>,
    ) -> Result<Vec<Loaded>> {
        let (mut loaded, mut others) = (Vec::new(), BTreeSet::new());
        for image in list {
            let config = files.find(&image.config).ok_or_else(|| missing(&image.config))?;
            if let Some(wanted) = platform {
                let found = self.config_document(&config.digest)?.platform();
                if wanted.rank(&found).is_none() {
                    others.insert(found.to_string());
                    continue;
                }
            }
            loaded.push(self.load_archived(files, image, config, manifests)?);
        }
        match platform {
            Some(wanted) if loaded.is_empty() && !others.is_empty() => Err(no_such_platform(wanted, &others)),
            _ => Ok(loaded),
        }
    }

    /// The images of an OCI layout without Docker's list: those for the platform, or for this host if none is given, or
    /// the only one there is.
    fn load_layout(&self, manifests: &[IndexEntry], platform: Option<&Platform>) -> Result<Vec<Loaded>> {
        let mut complete = Vec::new();
        for entry in manifests {
            complete.extend(self.complete(entry)?);
        }
        if complete.is_empty() {
            return Err(Error::archive(ACT, "none of its images has all its layers in the archive"));
        }
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let fits = |image: &&Complete<'_>| wanted.rank(&image.platform).is_some();
        let mut chosen: Vec<&Complete<'_>> = complete.iter().filter(fits).collect();
        if chosen.is_empty() && platform.is_none() && complete.len() == 1 {
            chosen.extend(&complete);
        }
        if chosen.is_empty() {
            let others = complete.iter().map(|image| image.platform.to_string()).collect();
            return Err(no_such_platform(wanted, &others));
        }
        chosen.into_iter().map(|image| self.load_complete(image)).collect()
    }

    /// Makes a blob of every file.
    fn take_files(&self, archive: impl Read) -> Result<Files> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::archive_because(ACT, "it can't be read", error)
        };
        let plain = Expanded::new(archive, self.limits).map_err(|error| failed(error.into()))?;
        let mut reader = TarReader::new(BufReader::with_capacity(256 * 1024, plain));
        let mut files = Files::default();
        let mut left = self.limits.bytes;
        while let Some(entry) = reader.next_entry().map_err(|error| failed(error.into()))? {
            let path = clean(&entry.path);
            if files.blobs.len() + files.links.len() >= MAX_FILES {
                return Err(Error::archive(ACT, format!("it has more than {MAX_FILES} files")));
            }
            match entry.kind {
                Kind::File if entry.sparse.is_none() => {
                    left = left.checked_sub(entry.size).ok_or_else(|| {
                        Error::archive(ACT, format!("it has more than {} bytes", self.limits.bytes))
                    })?;
                    let stored = self.take_file(&mut reader, entry.size).map_err(&failed)?;
                    files.blobs.insert(path, stored);
                }
                Kind::HardLink => drop(files.links.insert(path, clean(&entry.link))),
                Kind::Symlink => {
                    // The oldest format links equal layers: `<id>/layer.tar -> ../<other>/layer.tar`.
                    let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
                    let target = folder.join(String::from_utf8_lossy(&entry.link).as_ref());
                    drop(files.links.insert(path, clean(target.as_os_str().as_encoded_bytes())));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    fn take_file<R: BufRead>(
        &self,
        reader: &mut TarReader<R>,
        size: u64,
    ) -> std::result::Result<Stored, Box<dyn std::error::Error + Send + Sync>> {
        let mut ingest = self.content.ingest()?;
        while ingest.length() < size {
            let data = reader.data()?;
            if data.is_empty() {
                return Err(Box::new(crate::tarball::TarError::Truncated));
            }
            let count = data.len();
            ingest.append(data)?;
            reader.consume(count);
        }
        Ok(ingest.commit(None, None)?)
    }

    /// All manifests that the archive's index leads to, with the name that it gives them.
    fn index_manifests(&self, files: &Files) -> Result<Vec<IndexEntry>> {
        let Some(text) = files.document(self, "index.json")? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let index: Index = parse(&text, "index.json")?;
        let mut open: Vec<(Descriptor, Option<String>, u32)> =
            index.manifests.into_iter().rev().map(|entry| (entry, None, 0)).collect();
        while let Some((entry, name, depth)) = open.pop() {
            let name = name_of(&entry).or(name);
            let Ok(text) = self.content.read(&entry.digest, MAX_MANIFEST) else { continue };
            check_size("a manifest", &entry, text.len() as u64)?;
            let value: serde_json::Value = parse(&text, "a manifest")?;
            let nested = is_index(&entry.media_type) || value.get("manifests").is_some();
            if nested && depth < 4 {
                let index: Index = parse(&text, "an index")?;
                open.extend(index.manifests.into_iter().rev().map(|entry| (entry, name.clone(), depth + 1)));
            } else if value.get("config").is_some() && found.len() < 10_000 {
                let manifest: Manifest = parse(&text, "a manifest")?;
                let own = manifest.media_type.clone().unwrap_or_else(|| entry.media_type.clone());
                let descriptor = Descriptor::new(&own, entry.digest, text.len() as u64);
                found.push(IndexEntry { descriptor, manifest, name });
            }
        }
        Ok(found)
    }

    fn load_archived(
        &self,
        files: &Files,
        image: &ArchivedImage,
        config: Stored,
        known: &[IndexEntry],
    ) -> Result<Loaded> {
        let names = image.repo_tags.iter().map(|tag| {
            let name = Reference::parse(tag)?;
            // Whether the image has this digest is not the archive's to say.
            if name.digest().is_some() { Err(Error::TagWithDigest(tag.clone())) } else { Ok(name) }
        });
        let names: Vec<Reference> = names.collect::<Result<_>>()?;
        let blobs = image.layers.iter().map(|path| files.find(path).ok_or_else(|| missing(path)));
        let blobs: Vec<Stored> = blobs.collect::<Result<_>>()?;
        // The manifest that the image was pulled with, if the archive has it whole: then the digest stays the same.
        let original = known.iter().find(|entry| {
            entry.manifest.config.digest == config.digest
                && entry.manifest.layers.iter().all(|layer| self.content.has(&layer.digest))
        });
        match original {
            Some(entry) => self.load_layers(config, &entry.manifest.layers, Some(&entry.descriptor), names),
            None => {
                let layers: Vec<Descriptor> =
                    blobs.iter().map(|blob| Descriptor::new("", blob.digest, blob.size)).collect();
                self.load_layers(config, &layers, None, names)
            }
        }
    }

    /// An image of an OCI layout, if all of it is there: other platforms, whose layers are left out, and attestations are
    /// passed over.
    fn complete<'a>(&self, entry: &'a IndexEntry) -> Result<Option<Complete<'a>>> {
        let manifest = &entry.manifest;
        let sizes = manifest.layers.iter().chain([&manifest.config]);
        for (blob, size) in sizes.map(|blob| (blob, self.content.size(&blob.digest))) {
            let Ok(size) = size else { return Ok(None) };
            check_size("a blob", blob, size)?;
        }
        let config = Stored { digest: manifest.config.digest, size: manifest.config.size };
        let document = self.config_document(&config.digest)?;
        let image = Complete { entry, config, platform: document.platform() };
        Ok(Some(image).filter(|_| document.os != "unknown"))
    }

    fn load_complete(&self, image: &Complete<'_>) -> Result<Loaded> {
        let entry = image.entry;
        let name = entry.name.as_deref().and_then(|name| Reference::parse(name).ok());
        let names = name.filter(|name| name.digest().is_none()).into_iter().collect();
        self.load_layers(image.config, &entry.manifest.layers, Some(&entry.descriptor), names)
    }

    fn config_document(&self, digest: &Digest) -> Result<ImageConfig> {
        parse(&self.content.read(digest, MAX_CONFIG)?, "a configuration")
    }

    fn load_layers(
        &self,
        config: Stored,
        blobs: &[Descriptor],
        manifest: Option<&Descriptor>,
        names: Vec<Reference>,
    ) -> Result<Loaded> {
        let document = self.config_document(&config.digest)?;
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != blobs.len() || blobs.len() > MAX_LAYERS {
            let what = format!("an image has {} layers, its configuration {}", blobs.len(), diff_ids.len());
            return Err(Error::archive(ACT, what));
        }
        let mut layers = Vec::new();
        for ((blob, diff_id), chain) in blobs.iter().zip(diff_ids).zip(chain_ids(diff_ids)) {
            layers.push(self.load_layer(
                blob,
                diff_id,
                &chain,
                &diff_ids[..layers.len()],
                manifest.is_some(),
            )?);
        }
        let manifest = match manifest {
            Some(descriptor) => descriptor.clone(),
            None => self.make_manifest(config.digest, config.size, &layers)?,
        };
        let record = ImageRecord {
            manifest,
            config_size: config.size,
            layers,
            stored: Timestamp::now(),
            tagged: None,
            parent: None,
        };
        let image = ImageId::new(config.digest);
        self.put_image(image, record.clone(), None)?;
        let mut shown = Vec::new();
        for name in names {
            let name = name.with_default_tag();
            shown.push(name.familiar());
            self.put_image(image, record.clone(), Some(name))?;
        }
        Ok(Loaded { image, names: shown })
    }

    /// Unpacks a layer. A plain tar is packed, unless a manifest names it as it is.
    fn load_layer(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        chain: &Digest,
        below: &[Digest],
        keep: bool,
    ) -> Result<LayerRef> {
        let mut file = self.content.open_blob(&blob.digest)?;
        let mut start = Vec::new();
        file.by_ref()
            .take(4)
            .read_to_end(&mut start)
            .map_err(Error::io("read", self.content.path(&blob.digest)))?;
        let compression = Compression::detect(&start);
        if compression == Compression::None && !keep {
            let file = self.content.open_blob(&blob.digest)?;
            let layer = self.create_layer(LayerSource::Tar(Box::new(file)), below)?;
            if layer.diff_id != *diff_id {
                let source =
                    crate::layer::LayerError::WrongDiffId { expected: *diff_id, actual: layer.diff_id };
                return Err(Error::Layer { layer: blob.digest.to_string(), source });
            }
            return Ok(layer);
        }
        let known = self.catalog.read().layers.contains_key(chain);
        if !known {
            self.layer_from_blob(chain, &blob.digest, diff_id)?;
        } else {
            self.check_diff_id(&blob.digest, diff_id)?;
        }
        let mut blob = blob.clone();
        if blob.media_type.is_empty() {
            blob.media_type = compression.layer_media_type().to_owned();
        }
        Ok(LayerRef { blob, diff_id: *diff_id })
    }

    /// The layer is unpacked already; that this blob is really its packed form has still to be shown. Blocks.
    pub(crate) fn check_diff_id(&self, blob: &Digest, expected: &Digest) -> Result<()> {
        use sha2::Digest as _;
        let path = self.content.path(blob);
        let mut reader =
            Expanded::new(self.content.open_blob(blob)?, self.limits).map_err(Error::io("read", &path))?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0u8; 256 * 1024];
        loop {
            let count = reader.read(&mut buffer).map_err(Error::io("read", &path))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        let actual = Digest::from_bytes(hasher.finalize().into());
        if actual == *expected {
            return Ok(());
        }
        let source = crate::layer::LayerError::WrongDiffId { expected: *expected, actual };
        Err(Error::Layer { layer: blob.to_string(), source })
    }
}

/// An image of an OCI layout that is there as a whole.
struct Complete<'a> {
    entry: &'a IndexEntry,
    config: Stored,
    platform: Platform,
}

fn missing(path: &str) -> Error {
    Error::archive(ACT, format!("file {path:?} is missing"))
}

fn no_such_platform(wanted: &Platform, others: &BTreeSet<String>) -> Error {
    let list: Vec<&str> = others.iter().map(String::as_str).take(50).collect();
    Error::archive(ACT, format!("none of its images is for {wanted}: it has {}", list.join(", ")))
}

fn check_size(what: &str, named: &Descriptor, found: u64) -> Result<()> {
    if named.size == found {
        return Ok(());
    }
    let Descriptor { digest, size, .. } = named;
    Err(Error::archive(ACT, format!("{what}, {digest}, has {found} bytes instead of {size}")))
}

/// A manifest that the archive's index leads to.
struct IndexEntry {
    descriptor: Descriptor,
    manifest: Manifest,
    name: Option<String>,
}

/// The name of an index's entry: containerd writes it whole, others only a tag or a whole name.
fn name_of(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations.as_ref()?;
    let name = annotations.get(CONTAINERD_NAME).or_else(|| annotations.get(OCI_NAME))?;
    // A tag alone names no repository.
    (annotations.contains_key(CONTAINERD_NAME) || name.contains([':', '/'])).then(|| name.clone())
}

/// The files of an archive by their paths in it.
#[derive(Default)]
struct Files {
    blobs: HashMap<String, Stored>,
    links: HashMap<String, String>,
}

impl Files {
    fn find(&self, path: &str) -> Option<Stored> {
        let mut path = clean(path.as_bytes());
        // Links of links; more than this is a loop.
        for _ in 0..16 {
            if let Some(found) = self.blobs.get(&path) {
                return Some(*found);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn document(&self, store: &Store, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.find(path) else { return Ok(None) };
        Ok(Some(store.content.read(&found.digest, MAX_CONFIG)?))
    }
}

/// The path in one spelling. It is a key and never becomes a path of this host.
fn clean(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| Error::archive_because(ACT, format!("{what} is not valid"), error))
}
