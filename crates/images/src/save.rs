//! Saving writes images as one archive that is both an OCI layout and what `docker load` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use gantry_model::digest::{Digest, ImageId};
use gantry_model::reference::Reference;
use tokio::sync::mpsc;

use crate::catalog::ImageRecord;
use crate::error::{Error, Result};
use crate::load::ArchivedImage;
use crate::oci::{Descriptor, Index, OCI_INDEX};
use crate::pack::{PackError, write_file, write_folder};
use crate::store::Store;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image to save, and the names that go with it.
struct Chosen {
    id: ImageId,
    record: ImageRecord,
    names: BTreeSet<Reference>,
}

impl Store {
    /// Writes images as an archive. A name with a tag saves that name; a repository saves all its tags; an id saves the
    /// image without a name. Blocks.
    pub fn save(self: &Arc<Self>, names: &[String], out: &mut dyn Write) -> Result<()> {
        let _lease = self.lease();
        let chosen = self.choose_saved(names)?;
        self.write_archive(&chosen, out)
    }

    /// As [`Store::save`], as a stream of pieces; a receiver that goes away ends the work.
    pub fn save_stream(self: &Arc<Self>, names: &[String]) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
        // First the lease: what is chosen must not be collected before it is written.
        let lease = self.lease();
        let chosen = self.choose_saved(names)?;
        let (pieces, receiver) = mpsc::channel(16);
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let _lease = lease;
            let mut out = io::BufWriter::with_capacity(128 * 1024, PieceWriter(pieces.clone()));
            let written = store.write_archive(&chosen, &mut out);
            let flushed = written.and_then(|()| out.flush().map_err(Error::io("write", "archive")));
            if let Err(error) = flushed {
                // The status is sent already: a broken stream is all that is left to say it with.
                let _ = pieces.blocking_send(Err(io::Error::other(error.chain())));
            }
        });
        Ok(receiver)
    }

    fn choose_saved(&self, names: &[String]) -> Result<Vec<Chosen>> {
        let mut chosen: BTreeMap<Digest, Chosen> = BTreeMap::new();
        for name in names {
            for (id, reference) in self.choose_named(name)? {
                let record = self.catalog.read().images.get(&id.digest()).cloned();
                let record = record.ok_or_else(|| Error::NoSuchImage(name.clone()))?;
                let entry = chosen.entry(id.digest());
                let entry = entry.or_insert_with(|| Chosen { id, record, names: BTreeSet::new() });
                entry.names.extend(reference);
            }
        }
        Ok(chosen.into_values().collect())
    }

    fn choose_named(&self, name: &str) -> Result<Vec<(ImageId, Option<Reference>)>> {
        if let Ok(reference) = Reference::parse(name) {
            let state = self.catalog.read();
            if reference.tag().is_none() && reference.digest().is_none() {
                let tags = state.tags.iter().filter(|(tag, _)| tag.repository() == reference);
                let found: Vec<_> = tags.map(|(tag, id)| (*id, Some(tag.clone()))).collect();
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            if let Some(id) = state.tags.get(&reference) {
                return Ok(vec![(*id, Some(reference))]);
            }
        }
        Ok(vec![(self.resolve(name)?, None)])
    }

    fn write_archive(&self, chosen: &[Chosen], out: &mut dyn Write) -> Result<()> {
        let failed =
            |error: PackError| Error::archive_because("save images", "the archive can't be written", error);
        write_folder(out, "blobs").map_err(failed)?;
        write_folder(out, "blobs/sha256").map_err(failed)?;
        let mut written = BTreeSet::new();
        let (mut index, mut list) = (Vec::new(), Vec::new());
        for image in chosen {
            let layers: Vec<Digest> = image.record.layers.iter().map(|layer| layer.blob.digest).collect();
            for digest in layers.iter().chain([&image.id.digest(), &image.record.manifest.digest]) {
                if written.insert(*digest) {
                    let (size, mut blob) = (self.content.size(digest)?, self.content.open_blob(digest)?);
                    write_file(out, &blob_path(digest), size, &mut blob).map_err(failed)?;
                }
            }
            index.extend(index_entries(image));
            list.push(ArchivedImage {
                config: blob_path(&image.id.digest()),
                repo_tags: image.names.iter().map(Reference::familiar).collect(),
                layers: layers.iter().map(blob_path).collect(),
            });
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: index,
            subject: None,
            annotations: None,
        };
        let index = serde_json::to_vec(&index);
        let list = serde_json::to_vec(&list);
        let invalid = |error| Error::archive_because("save images", "a document can't be written", error);
        for (name, text) in [
            ("index.json", index.map_err(invalid)?),
            ("manifest.json", list.map_err(invalid)?),
            ("oci-layout", LAYOUT.to_vec()),
        ] {
            write_file(out, name, text.len() as u64, &mut text.as_slice()).map_err(failed)?;
        }
        out.write_all(&[0; 1024]).map_err(Error::io("write", "archive"))
    }
}

/// The image's entries in the index: one for each name, or one without.
fn index_entries(image: &Chosen) -> Vec<Descriptor> {
    let plain = image.record.manifest.clone();
    if image.names.is_empty() {
        return vec![plain];
    }
    let named = |name: &Reference| {
        let tag = name.tag().unwrap_or_default().to_owned();
        let annotations = BTreeMap::from([
            ("io.containerd.image.name".to_owned(), name.to_string()),
            ("org.opencontainers.image.ref.name".to_owned(), tag),
        ]);
        Descriptor { annotations: Some(annotations), ..plain.clone() }
    };
    image.names.iter().map(named).collect()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Sends what is written as pieces.
struct PieceWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
