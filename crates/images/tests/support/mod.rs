//! Archives, honest and hostile, and folders that clean up after themselves.

#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_images::oci::RunConfig;
use gantry_images::{LayerSource, NewImage, Store};
use gantry_model::digest::ImageId;
use gantry_model::reference::Reference;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("gty-{}-", std::process::id()))
        .tempdir()
        .expect("temporary folder")
}

pub fn store() -> (TempDir, Arc<Store>) {
    let dir = scratch();
    let store = Store::open(dir.path()).expect("store");
    (dir, store)
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("reference")
}

/// An archive under construction. Names are written as they are given, also bad ones.
pub struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub fn new() -> Archive {
        Archive(Builder::new(Vec::new()))
    }

    fn raw(
        mut self,
        path: &str,
        link: &str,
        kind: EntryType,
        edit: impl FnOnce(&mut Header),
        data: &[u8],
    ) -> Archive {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        // Not by `set_path`, which refuses what a hostile archive has.
        let bytes = header.as_mut_bytes();
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        edit(&mut header);
        header.set_cksum();
        self.0.append(&header, data).expect("entry");
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Archive {
        self.raw(path, "", EntryType::Regular, |_| {}, content)
    }

    pub fn file_with(self, path: &str, content: &[u8], edit: impl FnOnce(&mut Header)) -> Archive {
        self.raw(path, "", EntryType::Regular, edit, content)
    }

    pub fn folder(self, path: &str) -> Archive {
        self.raw(path, "", EntryType::Directory, |header| header.set_mode(0o755), b"")
    }

    pub fn folder_with(self, path: &str, edit: impl FnOnce(&mut Header)) -> Archive {
        self.raw(path, "", EntryType::Directory, edit, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Archive {
        self.raw(path, target, EntryType::Symlink, |header| header.set_mode(0o777), b"")
    }

    pub fn hardlink(self, path: &str, target: &str) -> Archive {
        self.raw(path, target, EntryType::Link, |_| {}, b"")
    }

    pub fn node(self, path: &str, kind: EntryType, major: u32, minor: u32) -> Archive {
        let edit = |header: &mut Header| {
            header.set_device_major(major).expect("major");
            header.set_device_minor(minor).expect("minor");
        };
        self.raw(path, "", kind, edit, b"")
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Archive {
        self.0.append_pax_extensions(records.iter().copied()).expect("records");
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().expect("archive")
    }
}

pub fn layer(tar: Vec<u8>) -> LayerSource {
    LayerSource::Tar(Box::new(std::io::Cursor::new(tar)))
}

/// An image of these layers, lowest first.
pub fn image(store: &Arc<Store>, tars: Vec<Vec<u8>>, name: Option<&str>) -> ImageId {
    let mut tars = tars.into_iter();
    let mut image =
        NewImage::of(layer(tars.next().expect("a layer")), RunConfig::default(), jiff::Timestamp::now());
    for tar in tars {
        let (created_by, comment) = Default::default();
        image.layers.push(gantry_images::NewLayer { source: layer(tar), created_by, comment });
    }
    image.name = name.map(reference);
    store.create(image).expect("image")
}

/// Everything beneath a folder, as paths relative to it.
pub fn tree(folder: &Path) -> Vec<PathBuf> {
    let root = gantry_linux::root::Root::open(folder).expect("root");
    gantry_images::pack::walk(&root).expect("walk").into_iter().map(|found| found.path).collect()
}
