//! Images made on this node: from a tarball (`docker import`), from a container (`docker commit`), from a folder.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compression as Level, GzBuilder};
use gantry_linux::root::Root;
use gantry_model::digest::{Digest, ImageId};
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use jiff::Timestamp;

use crate::catalog::{Change, ImageRecord, LayerRef};
use crate::content::Ingest;
use crate::error::{Error, Result};
use crate::images::tag_changes;
use crate::layer::{Expected, UnpackedLayer, take_layer};
use crate::oci::{
    Compression, Descriptor, History, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST,
    RunConfig, chain_ids,
};
use crate::pack::pack;
use crate::store::Store;
use crate::unpack::Whiteouts;

mod instruction;

pub use instruction::apply_changes;

/// Where the files of a new layer come from.
pub enum LayerSource {
    /// A tarball, packed or plain, whose whiteouts hide files of the layers below.
    Tar(Box<dyn Read + Send>),
    /// A folder of this host.
    Folder(PathBuf),
    /// What a container changed.
    Container(String),
}

/// A layer to be made, and its line in the image's history.
pub struct NewLayer {
    /// The files.
    pub source: LayerSource,
    /// The command that made it, for the history.
    pub created_by: String,
    /// A comment, for the history.
    pub comment: String,
}

/// An image to be made.
pub struct NewImage {
    /// The image whose layers are below, and whose configuration is the beginning.
    pub base: Option<ImageId>,
    /// The new layers, lowest first.
    pub layers: Vec<NewLayer>,
    /// What containers of it run.
    pub config: RunConfig,
    /// What it runs on; the base's platform if none is given, else this host's.
    pub platform: Option<Platform>,
    /// Who made it.
    pub author: String,
    /// A comment.
    pub comment: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its name.
    pub name: Option<Reference>,
}

impl NewImage {
    /// An image of one layer and nothing else said.
    pub fn of(source: LayerSource, config: RunConfig, created: Timestamp) -> NewImage {
        let layer = NewLayer { source, created_by: String::new(), comment: String::new() };
        let (author, comment) = Default::default();
        NewImage {
            base: None,
            layers: vec![layer],
            config,
            platform: None,
            author,
            comment,
            created,
            name: None,
        }
    }
}

impl Store {
    /// Makes an image. Blocks.
    pub fn create(self: &Arc<Self>, image: NewImage) -> Result<ImageId> {
        let _lease = self.lease();
        let (mut config, mut layers) = match &image.base {
            Some(base) => (self.config_of(base)?.0, self.image(base)?.record.layers),
            None => (ImageConfig::default(), Vec::new()),
        };
        let history = config.history.get_or_insert_default();
        for layer in image.layers {
            let below: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
            layers.push(self.create_layer(layer.source, &below)?);
            history.push(History {
                created: Some(image.created.to_string()),
                created_by: Some(layer.created_by).filter(|text| !text.is_empty()),
                comment: Some(layer.comment).filter(|text| !text.is_empty()),
                ..History::default()
            });
        }
        if let Some(platform) = &image.platform {
            describe_platform(&mut config, platform);
        } else if image.base.is_none() {
            describe_platform(&mut config, &Platform::host());
        }
        config.created = Some(image.created.to_string());
        config.author = Some(image.author).filter(|text| !text.is_empty());
        config.comment = Some(image.comment).filter(|text| !text.is_empty());
        config.config = Some(image.config);
        config.rootfs.kind = "layers".to_owned();
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        self.record_image(&config, layers, image.base, image.name)
    }

    /// `docker import`: one layer from a tarball, with a configuration made of Dockerfile instructions. Blocks.
    pub fn import(
        self: &Arc<Self>,
        archive: Box<dyn Read + Send>,
        changes: &[String],
        message: &str,
        platform: Option<Platform>,
        name: Option<Reference>,
    ) -> Result<ImageId> {
        let mut config = RunConfig::default();
        apply_changes(&mut config, changes)?;
        let mut image = NewImage::of(LayerSource::Tar(archive), config, Timestamp::now());
        image.layers[0].comment = message.to_owned();
        (image.comment, image.platform, image.name) = (message.to_owned(), platform, name);
        self.create(image)
    }

    /// Unpacks a new layer over `below`, and keeps its packed form.
    pub(crate) fn create_layer(&self, source: LayerSource, below: &[Digest]) -> Result<LayerRef> {
        let folder = self.tmp_folder()?;
        let result = self.create_layer_in(&folder, source, below);
        if result.is_err() {
            let _ = self.trash.discard(&folder);
        }
        result
    }

    fn create_layer_in(&self, folder: &Path, source: LayerSource, below: &[Digest]) -> Result<LayerRef> {
        let diff = folder.join("diff");
        std::fs::create_dir(&diff).map_err(Error::io("create folder", &diff))?;
        crate::store::set_plain_mode(&diff)?;
        let (layer, blob) = match source {
            LayerSource::Tar(reader) => self.take_any(reader, &diff)?,
            LayerSource::Folder(path) => {
                let root = Root::open(&path).map_err(|error| {
                    Error::archive_because("read folder", path.display().to_string(), error)
                })?;
                let tar = self.spool(|out| {
                    pack(&root, out, Whiteouts::Literal).map_err(|error| {
                        Error::archive_because("read folder", path.display().to_string(), error)
                    })
                })?;
                self.take_any(Box::new(tar), &diff)?
            }
            LayerSource::Container(id) => {
                let tar = self.spool(|out| self.diff_tar(&id, out))?;
                self.take_any(Box::new(tar), &diff)?
            }
        };
        let chain: Vec<Digest> = below.iter().copied().chain([layer.diff_id]).collect();
        let chain = chain_ids(&chain).pop().unwrap_or(layer.diff_id);
        let chain_lock = self.chain_lock(&chain);
        let _guard = crate::store::lock(&chain_lock);
        if self.catalog.read().layers.contains_key(&chain) {
            self.trash.discard(folder)?;
        } else {
            self.commit_layer(folder, &chain, &layer)?;
        }
        Ok(LayerRef { blob, diff_id: layer.diff_id })
    }

    /// Writes into a temporary file without a name and gives it back from its start.
    fn spool(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<File> {
        use std::io::Seek;
        let path = self.content.tmp().join(crate::content::random_name());
        let options = File::options().read(true).write(true).create_new(true).open(&path);
        let mut file = options.map_err(Error::io("create", &path))?;
        std::fs::remove_file(&path).map_err(Error::io("unlink", &path))?;
        let mut out = io::BufWriter::with_capacity(256 * 1024, &mut file);
        write(&mut out)?;
        out.flush().map_err(Error::io("write", &path))?;
        drop(out);
        file.rewind().map_err(Error::io("rewind", &path))?;
        Ok(file)
    }

    /// Unpacks a tarball of any packing. One that is packed is kept as it is; a plain one is packed with gzip.
    pub(crate) fn take_any(
        &self,
        mut reader: Box<dyn Read + Send>,
        diff: &Path,
    ) -> Result<(UnpackedLayer, Descriptor)> {
        let failed = |source| Error::Layer { layer: "of the archive".to_owned(), source };
        let mut start = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut start).map_err(Error::io("read", "archive"))?;
        let compression = Compression::detect(&start);
        let reader = io::Cursor::new(start).chain(reader);
        if compression != Compression::None {
            let ingest = self.content.ingest()?;
            let taken = take_layer(reader, Some(ingest), diff, &Expected::default(), &self.limits);
            let (layer, stored) = taken.map_err(failed)?;
            let stored = stored.ok_or(Error::Interrupted("storing a layer"))?;
            let media_type = compression.layer_media_type();
            return Ok((layer, Descriptor::new(media_type, stored.digest, stored.size)));
        }
        let mut packed = GzipTee::new(reader, self.content.ingest()?);
        let (layer, _) =
            take_layer(&mut packed, None, diff, &Expected::default(), &self.limits).map_err(failed)?;
        let ingest = packed.finish().map_err(Error::io("pack", "layer"))?;
        let stored = ingest.commit(None, None)?;
        Ok((layer, Descriptor::new(OCI_LAYER_GZIP, stored.digest, stored.size)))
    }

    /// Stores configuration and manifest of an image whose layers are there, and records it.
    fn record_image(
        &self,
        config: &ImageConfig,
        layers: Vec<LayerRef>,
        parent: Option<ImageId>,
        name: Option<Reference>,
    ) -> Result<ImageId> {
        let text = serde_json::to_vec(config).map_err(|error| document("configuration", &error))?;
        let id = self.content.put(&text)?;
        let manifest = self.make_manifest(id, text.len() as u64, &layers)?;
        let record = ImageRecord {
            manifest,
            config_size: text.len() as u64,
            layers,
            stored: Timestamp::now(),
            tagged: None,
            parent,
        };
        let id = ImageId::new(id);
        self.put_image(id, record, name)?;
        Ok(id)
    }

    /// Stores a manifest for a configuration and layers that are there.
    pub(crate) fn make_manifest(&self, config: Digest, size: u64, layers: &[LayerRef]) -> Result<Descriptor> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(OCI_CONFIG, config, size),
            layers: layers.iter().map(|layer| layer.blob.clone()).collect(),
            subject: None,
            annotations: None,
        };
        let text = serde_json::to_vec(&manifest).map_err(|error| document("manifest", &error))?;
        Ok(Descriptor::new(OCI_MANIFEST, self.content.put(&text)?, text.len() as u64))
    }

    /// Records an image, keeping what is known of it already, and puts a name on it.
    pub(crate) fn put_image(&self, id: ImageId, record: ImageRecord, name: Option<Reference>) -> Result<()> {
        self.catalog.change(|state| {
            let known = state.images.get(&id.digest());
            let tagged = known.and_then(|known| known.tagged);
            let stored = known.map_or(record.stored, |known| known.stored);
            let tagged = if name.is_some() { Some(Timestamp::now()) } else { tagged };
            let record = ImageRecord { tagged, stored, ..record };
            let mut changes = vec![Change::PutImage(id.digest(), record)];
            if let Some(name) = name.filter(|name| name.digest().is_none()) {
                // Only the name: the record in the state is the old one.
                let name = tag_changes(state, name.with_default_tag(), id);
                changes.extend(name.into_iter().filter(|change| matches!(change, Change::PutTag(..))));
            }
            Ok::<_, Error>((changes, ()))
        })
    }
}

fn document(document: &'static str, error: &serde_json::Error) -> Error {
    Error::Document { document, image: "the new image".to_owned(), what: error.to_string() }
}

fn describe_platform(config: &mut ImageConfig, platform: &Platform) {
    config.os = platform.os.clone();
    config.architecture = platform.architecture.clone();
    config.variant = platform.variant.clone();
}

/// Passes a plain tar through and packs it on the way, with nothing in the gzip header that differs between two runs.
struct GzipTee<R> {
    source: R,
    encoder: flate2::write::GzEncoder<Ingest>,
}

impl<R: Read> GzipTee<R> {
    fn new(source: R, ingest: Ingest) -> GzipTee<R> {
        let encoder = GzBuilder::new().mtime(0).operating_system(255).write(ingest, Level::new(6));
        GzipTee { source, encoder }
    }

    fn finish(mut self) -> io::Result<Ingest> {
        io::copy(&mut self.source, &mut self.encoder)?;
        self.encoder.finish()
    }
}

impl<R: Read> Read for GzipTee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.encoder.write_all(&buffer[..count])?;
        Ok(count)
    }
}
