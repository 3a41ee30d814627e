//! Loading takes images out of an archive: Docker's `docker save` format, an OCI layout, or both in one.
//!
//! The archive is read once, in whatever order it is: every file becomes a blob, and when all are there the documents
//! say which of them are images. What no image needs is collected afterwards.

use std::collections::HashMap;
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
use crate::create::{LayerSource, unpacked_stream};
use crate::error::{Error, Result};
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
    /// Loads all images of an archive, plain or packed with gzip or zstd. Blocks.
    pub fn load(self: &Arc<Self>, archive: impl Read) -> Result<Vec<Loaded>> {
        let lease = self.lease();
        lease.collect_after();
        let files = self.take_files(archive)?;
        let mut loaded = Vec::new();
        let manifests = self.index_manifests(&files)?;
        if let Some(list) = files.document(self, "manifest.json")? {
            let list: Vec<ArchivedImage> = parse(&list, "manifest.json")?;
            for image in list {
                loaded.push(self.load_archived(&files, &image, &manifests)?);
            }
        } else if manifests.is_empty() {
            return Err(Error::archive(ACT, "it has neither manifest.json nor index.json with images"));
        } else {
            for entry in &manifests {
                loaded.extend(self.load_manifest(entry)?);
            }
            if loaded.is_empty() {
                return Err(Error::archive(ACT, "none of its images has all its layers in the archive"));
            }
        }
        Ok(loaded)
    }

    /// Makes a blob of every file.
    fn take_files(&self, archive: impl Read) -> Result<Files> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::archive_because(ACT, "it can't be read", error)
        };
        let plain = unpacked_stream(archive).map_err(|error| failed(error.into()))?;
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

    fn load_archived(&self, files: &Files, image: &ArchivedImage, known: &[IndexEntry]) -> Result<Loaded> {
        let missing = |path: &str| Error::archive(ACT, format!("file {path:?} is missing"));
        let config = files.find(&image.config).ok_or_else(|| missing(&image.config))?;
        let names = image.repo_tags.iter().map(|tag| Reference::parse(tag).map_err(Error::from));
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

    /// An image of an OCI layout without Docker's list. Other platforms, whose layers are left out, are passed over.
    fn load_manifest(&self, entry: &IndexEntry) -> Result<Option<Loaded>> {
        let manifest = &entry.manifest;
        let complete = manifest.layers.iter().all(|layer| self.content.has(&layer.digest));
        let Some(config) = self.content.size(&manifest.config.digest).ok().filter(|_| complete) else {
            return Ok(None);
        };
        let config = Stored { digest: manifest.config.digest, size: config };
        let document: ImageConfig =
            parse(&self.content.read(&config.digest, MAX_CONFIG)?, "a configuration")?;
        if document.os == "unknown" || Platform::host().rank(&document.platform()).is_none() {
            return Ok(None);
        }
        let name = entry.name.as_deref().and_then(|name| Reference::parse(name).ok());
        self.load_layers(config, &manifest.layers, Some(&entry.descriptor), name.into_iter().collect())
            .map(Some)
    }

    fn load_layers(
        &self,
        config: Stored,
        blobs: &[Descriptor],
        manifest: Option<&Descriptor>,
        names: Vec<Reference>,
    ) -> Result<Loaded> {
        let text = self.content.read(&config.digest, MAX_CONFIG)?;
        let document: ImageConfig = parse(&text, "a configuration")?;
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
            self.check_diff_id(blob, diff_id)?;
        }
        let mut blob = blob.clone();
        if blob.media_type.is_empty() {
            blob.media_type = compression.layer_media_type().to_owned();
        }
        Ok(LayerRef { blob, diff_id: *diff_id })
    }

    /// The layer is unpacked already; that the archive's blob is really its packed form has still to be shown.
    fn check_diff_id(&self, blob: &Descriptor, expected: &Digest) -> Result<()> {
        use sha2::Digest as _;
        let path = self.content.path(&blob.digest);
        let mut reader =
            unpacked_stream(self.content.open_blob(&blob.digest)?).map_err(Error::io("read", &path))?;
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
        Err(Error::Layer { layer: blob.digest.to_string(), source })
    }
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
