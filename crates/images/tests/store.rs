//! The store's face: images made, named, saved, loaded, removed; root file systems; what survives the end of a process.
//! Needs root: layers keep their owners, whiteouts are device nodes.

mod support;

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use gantry_images::images::PruneOptions;
use gantry_images::oci::{Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, RunConfig};
use gantry_images::tarball::TarReader;
use gantry_images::{
    ChangeKind, ContainerUse, Error, ErrorKind, LayerSource, NewImage, NewLayer, Removed, Store,
};
use gantry_linux::root::{Links, Root};
use gantry_model::digest::{Digest, ImageId};
use gantry_model::id::ContainerId;
use gantry_model::platform::Platform;
use rustix::fs::FileType;
use serde_json::json;
use support::{Archive, image, layer, reference, scratch, store, tree};

fn nobody(_: &ImageId) -> Vec<ContainerUse> {
    Vec::new()
}

fn container(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 32])
}

fn base() -> Vec<u8> {
    Archive::new().folder("etc").file("etc/passwd", b"root").file("etc/hosts", b"hosts").folder("var").done()
}

fn names(store: &Store) -> Vec<String> {
    store.list().into_iter().flat_map(|image| image.repo_tags).collect()
}

/// Unpacks an archive into memory.
fn files_of(archive: &[u8]) -> HashMap<String, Vec<u8>> {
    let mut reader = TarReader::new(Cursor::new(archive));
    let mut files = HashMap::new();
    while let Some(entry) = reader.next_entry().expect("entry") {
        let mut content = Vec::new();
        loop {
            let piece = reader.data().expect("data").to_vec();
            if piece.is_empty() {
                break;
            }
            reader.consume(piece.len());
            content.extend_from_slice(&piece);
        }
        files.insert(String::from_utf8(entry.path).expect("name"), content);
    }
    files
}

#[test]
fn images_are_found_by_name_digest_id_and_prefix() {
    let (_dir, store) = store();
    let id = image(&store, vec![base()], Some("app:1"));
    for name in ["app:1", "docker.io/library/app:1", &id.to_string(), &id.hex(), &id.short(), &id.hex()[..3]]
    {
        assert_eq!(store.resolve(name).expect(name), id, "{name}");
    }
    for name in ["app", "app:2", "zzz", "", "sha256:", "../x", "App:1", &"0".repeat(64)] {
        let error = store.resolve(name).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        assert_eq!(error.to_string(), format!("No such image: {name}"));
    }
    store.tag("app:1", &reference("host:5000/other")).expect("tag");
    let found = store.get("host:5000/other:latest").expect("get");
    assert_eq!(found.repo_tags, ["app:1", "host:5000/other:latest"]);
    assert_eq!((found.config.os.as_str(), found.size), ("linux", 9));
    let pinned = reference("app").with_digest(Digest::of(b""));
    assert_eq!(store.tag("app:1", &pinned).expect_err("digest").kind(), ErrorKind::Invalid);
}

#[test]
fn the_same_files_make_the_same_layer() {
    let (_a, first) = store();
    let (_b, second) = store();
    let blob = |store: &Arc<Store>| {
        let id = image(store, vec![base()], None);
        store.image(&id).expect("image").record.layers[0].clone()
    };
    assert_eq!(blob(&first), blob(&second), "packing is deterministic");
}

#[test]
fn saved_images_load_as_they_were() {
    let (_a, from) = store();
    let one = image(&from, vec![base(), Archive::new().file("etc/.wh.hosts", b"").done()], Some("app:1"));
    let two = image(&from, vec![base()], Some("other/app:2"));
    from.tag("app:1", &reference("app:latest")).expect("tag");
    let mut archive = Vec::new();
    from.save(&["app".to_owned(), two.to_string()], &mut archive).expect("save");
    let files = files_of(&archive);
    assert!(
        files.contains_key("manifest.json")
            && files.contains_key("index.json")
            && files.contains_key("oci-layout")
    );
    let packed = zstd::encode_all(Cursor::new(&archive), 1).expect("zstd");
    for archive in [archive, packed] {
        let (_b, to) = store();
        let loaded = to.load(Cursor::new(archive), None).expect("load");
        assert_eq!(loaded.len(), 2);
        assert_eq!(names(&to).len(), 2);
        assert_eq!(to.resolve("app:1").expect("name"), one);
        let manifest = |store: &Store| store.image(&one).expect("image").record.manifest;
        assert_eq!(manifest(&to), manifest(&from), "the manifest's digest is kept");
        assert!(to.image(&two).expect("by id").repo_tags.is_empty());
        let top = &to.image(&one).expect("image").layer_folders[0];
        assert_eq!(tree(top), [Path::new("etc"), Path::new("etc/hosts")]);
    }
}

/// The layout that Docker wrote before version 25: a folder for each layer, plain tars, links between equal ones.
fn legacy(tar: &[u8], diff_id: &Digest) -> Vec<u8> {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]}});
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", Digest::of(&config).hex());
    let list =
        json!([{"Config": name, "RepoTags": ["old:1", "old:2"], "Layers": ["aa/layer.tar", "bb/layer.tar"]}]);
    Archive::new()
        .symlink("bb/layer.tar", "../aa/layer.tar")
        .file("manifest.json", list.to_string().as_bytes())
        .file("aa/layer.tar", tar)
        .file("aa/VERSION", b"1.0")
        .file(&name, &config)
        .done()
}

#[test]
fn old_archives_load_too() {
    let (_dir, store) = store();
    let tar = base();
    let loaded = store.load(Cursor::new(legacy(&tar, &Digest::of(&tar))), None).expect("load");
    assert_eq!(loaded[0].names, ["old:1", "old:2"]);
    let image = store.get("old:2").expect("image");
    assert_eq!(image.record.layers.len(), 2);
    let manifest = store.content().read(&image.record.manifest.digest, 10_000).expect("manifest");
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("manifest");
    assert!(manifest.layers[0].media_type.ends_with("tar+gzip"), "plain tars are packed");
    store.collect().expect("collect");
    assert!(!store.content().has(&Digest::of(&tar)), "the plain one is not kept");
}

/// An OCI layout of one image for each platform; `bend` may change the index, each layer says its architecture.
fn layout(architectures: &[&str], bend: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut archive = Archive::new();
    let mut entries = Vec::new();
    for architecture in architectures {
        let tar = Archive::new().file("architecture", architecture.as_bytes()).done();
        let config = json!({"architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]}});
        let config = config.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": [{"mediaType": OCI_LAYER, "digest": Digest::of(&tar), "size": tar.len()}]});
        let manifest = manifest.to_string().into_bytes();
        entries
            .push(json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(&manifest), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": format!("docker.io/library/made:{architecture}")}}));
        for blob in [&tar, &config, &manifest] {
            archive = archive.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
        }
    }
    let mut index = json!({"schemaVersion": 2, "manifests": entries});
    bend(&mut index);
    archive.file("index.json", index.to_string().as_bytes()).file("oci-layout", b"{}").done()
}

#[test]
fn a_layout_gives_the_images_of_the_platform() {
    let loads = |architectures: &[&str], platform: Option<&str>| {
        let (_dir, store) = store();
        let platform = platform.map(|text| Platform::parse(text).expect("platform"));
        let loaded = store.load(Cursor::new(layout(architectures, |_| {})), platform.as_ref());
        loaded.map(|loaded| loaded.into_iter().flat_map(|image| image.names).collect::<Vec<_>>())
    };
    let host = Platform::host().architecture;
    assert_eq!(loads(&["s390x", &host], None).expect("load"), [format!("made:{host}")]);
    assert_eq!(loads(&["s390x", &host], Some("linux/s390x")).expect("load"), ["made:s390x"]);
    assert_eq!(loads(&["s390x"], None).expect("the only one"), ["made:s390x"]);
    let error = loads(&["s390x", "mips64le"], None).expect_err("none fits").to_string();
    assert!(error.contains(&format!("linux/{host}")) && error.contains("linux/s390x"), "{error}");
    assert!(loads(&[&host], Some("linux/s390x")).is_err());
}

#[test]
fn dockers_list_is_loaded_for_the_platform_that_is_wanted() {
    let (_dir, store) = store();
    let tar = base();
    let archive = legacy(&tar, &Digest::of(&tar));
    let platform = |text: &str| Platform::parse(text).expect("platform");
    let error =
        store.load(Cursor::new(&archive), Some(&platform("linux/s390x"))).expect_err("none").to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/amd64"), "{error}");
    store.load(Cursor::new(&archive), Some(&platform("linux/amd64"))).expect("load");
    store.require_platform("old:1", &platform("linux/amd64")).expect("it is");
    let error = store.require_platform("old:1", &platform("linux/s390x")).expect_err("it is not");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn archives_that_lie_about_sizes_and_digests_are_refused() {
    let (_dir, store) = store();
    let host = Platform::host().architecture;
    let lying = layout(&[&host], |index| index["manifests"][0]["size"] = json!(1));
    let error = store.load(Cursor::new(lying), None).expect_err("size").to_string();
    assert!(error.contains("instead of 1"), "{error}");
    let list = json!([{"Config": "c", "RepoTags": [format!("app@{}", Digest::of(b"x"))], "Layers": []}]);
    let archive = Archive::new()
        .file("manifest.json", list.to_string().as_bytes())
        .file("c", br#"{"os":"linux","architecture":"amd64"}"#);
    let error = store.load(Cursor::new(archive.done()), None).expect_err("digest").to_string();
    assert!(error.contains("app@sha256:"), "{error}");
    assert!(store.list().is_empty());
}

#[test]
fn a_prune_takes_interrupted_downloads_along() {
    let (dir, store) = store();
    std::fs::write(dir.path().join("partial/half"), [0; 1000]).expect("partial");
    let options = PruneOptions { dangling_only: true, until: None, filter: &|_| true };
    assert_eq!(store.prune(options, &nobody).expect("prune").reclaimed, 1000);
    assert!(!dir.path().join("partial/half").exists());
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let (dir, store) = store();
    let tar = base();
    let lying = legacy(&tar, &Digest::of(b"other"));
    assert!(store.load(Cursor::new(lying), None).expect_err("diff id").chain().contains("diff id"));
    let cases = [
        (Archive::new().file("x", b"y").done(), "neither manifest.json nor index.json"),
        (Archive::new().file("manifest.json", b"{").done(), "manifest.json is not valid"),
        (legacy(&tar, &Digest::of(&tar))[..2000].to_vec(), "truncated"),
        (
            Archive::new()
                .file("manifest.json", br#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#)
                .done(),
            "is missing",
        ),
        (vec![0x1f, 0x8b, 8, 0, 1, 2, 3], "can't be read"),
    ];
    for (archive, expected) in cases {
        let text = store.load(Cursor::new(archive), None).expect_err(expected).chain();
        assert!(text.contains(expected), "{text}");
    }
    assert!(store.list().is_empty());
    store.collect().expect("collect");
    assert!(store.content().list().expect("blobs").is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("layers")).expect("layers").count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).expect("tmp").count(), 0);
}

#[test]
fn removal_follows_dockers_rules() {
    let (dir, store) = store();
    let id = image(&store, vec![base(), Archive::new().file("top", b"x").done()], Some("app:1"));
    let shared = image(&store, vec![base()], Some("base:1"));
    store.tag("app:1", &reference("app:2")).expect("tag");
    let untagged = store.remove("app:2", false, &nobody).expect("one of two names");
    assert_eq!(untagged, [Removed::Untagged("app:2".to_owned())]);
    store.tag("app:1", &reference("team/app:1")).expect("tag");
    let refused = store.remove(&id.hex(), false, &nobody).expect_err("two repositories");
    let text = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        id.short()
    );
    assert_eq!((refused.to_string(), refused.kind()), (text, ErrorKind::Conflict));
    store.remove("team/app:1", false, &nobody).expect("untag");
    let running = |_: &ImageId| vec![ContainerUse { id: container(7), running: true }];
    let stopped = |_: &ImageId| vec![ContainerUse { id: container(7), running: false }];
    let refused = store.remove("app:1", false, &stopped).expect_err("in use").to_string();
    assert!(
        refused.contains("(must force) - container 070707070707 is using its referenced image"),
        "{refused}"
    );
    let refused = store.remove(&id.to_string(), true, &running).expect_err("running").to_string();
    assert!(refused.contains("(cannot be forced) - image is being used by running container"), "{refused}");
    let kept = store.remove("app:1", true, &running).expect("only the name goes");
    assert_eq!(kept, [Removed::Untagged("app:1".to_owned())]);
    assert!(store.image(&id).expect("still here").is_dangling());
    let removed = store.remove(&id.short(), false, &nobody).expect("remove");
    assert_eq!(removed.len(), 2, "the image and its own layer, not the shared one: {removed:?}");
    assert_eq!(store.resolve(&id.hex()).expect_err("gone").kind(), ErrorKind::NotFound);
    assert!(store.image(&shared).expect("shared").layer_folders[0].join("etc/passwd").exists());
    assert_eq!(std::fs::read_dir(dir.path().join("layers")).expect("layers").count(), 1);
}

#[test]
fn a_container_that_is_made_during_a_removal_keeps_its_image() {
    let (_dir, store) = store();
    let id = image(&store, vec![base()], Some("app:1"));
    let one = container(1);
    // It takes its root when everybody has been asked already who uses the image.
    let meanwhile = |image: &ImageId| {
        store.prepare_rootfs(one.as_str(), image).expect("rootfs");
        Vec::new()
    };
    let refused = store.remove("app:1", false, &meanwhile).expect_err("in use");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("container 010101010101 is using"), "{refused}");
    assert!(store.image(&id).is_ok());
    store.remove_rootfs(one.as_str()).expect("remove");
    store.remove("app:1", false, &nobody).expect("unused");
    assert_eq!(store.prepare_rootfs(one.as_str(), &id).expect_err("gone").kind(), ErrorKind::NotFound);
}

#[test]
fn prune_takes_what_nobody_uses() {
    let (_dir, store) = store();
    let dangling = image(&store, vec![Archive::new().file("a", b"12345").done()], None);
    let used = image(&store, vec![Archive::new().file("b", b"1").done()], None);
    let named = image(&store, vec![Archive::new().file("c", b"1").done()], Some("named"));
    let in_use = |id: &ImageId| match *id == used {
        true => vec![ContainerUse { id: container(1), running: false }],
        false => Vec::new(),
    };
    let all = |_: &gantry_images::oci::ImageConfig| true;
    let past = jiff::Timestamp::from_second(1).expect("time");
    let none = PruneOptions { dangling_only: true, until: Some(past), filter: &all };
    assert!(store.prune(none, &in_use).expect("prune").removed.is_empty());
    let options = PruneOptions { dangling_only: true, until: None, filter: &all };
    let pruned = store.prune(options, &in_use).expect("prune");
    assert_eq!(pruned.reclaimed, 5);
    assert!(pruned.removed.contains(&Removed::Deleted(dangling.to_string())));
    assert_eq!(store.list().len(), 2);
    let options = PruneOptions { dangling_only: false, until: None, filter: &all };
    let pruned = store.prune(options, &in_use).expect("prune");
    assert!(pruned.removed.contains(&Removed::Untagged("named:latest".to_owned())));
    assert!(store.image(&named).is_err() && store.image(&used).is_ok());
}

#[test]
fn a_containers_layers_outlive_their_image() {
    let (dir, store) = store();
    let id = image(&store, vec![base()], Some("app:1"));
    let one = container(1);
    let rootfs = store.prepare_rootfs(one.as_str(), &id).expect("rootfs");
    assert!(rootfs.upper.is_dir() && rootfs.work.is_dir() && rootfs.lower[0].join("etc/passwd").exists());
    assert_eq!(store.rootfs(one.as_str()).expect("again"), rootfs);
    assert!(matches!(store.prepare_rootfs(one.as_str(), &id), Err(Error::RootfsExists(_))));
    assert!(matches!(store.prepare_rootfs("../../etc", &id), Err(Error::ContainerId(_))));
    store.remove("app:1", true, &nobody).expect("remove by force");
    assert!(store.list().is_empty() && rootfs.lower[0].join("etc/passwd").exists());
    drop(store);
    let store = Store::open(dir.path()).expect("reopen");
    assert_eq!(store.rootfs_containers(), [one.as_str()]);
    assert!(rootfs.lower[0].join("etc/passwd").exists(), "also after a restart");
    store.remove_rootfs(one.as_str()).expect("remove");
    store.remove_rootfs(one.as_str()).expect("nothing there is fine");
    assert!(!rootfs.lower[0].exists() && !rootfs.upper.exists());
    assert!(store.content().list().expect("blobs").is_empty());
}

/// Changes an upper folder as overlayfs would.
fn change(upper: &Path) {
    let root = Root::open(upper).expect("root");
    root.mkdir("etc", 0o755).expect("etc");
    let time = gantry_linux::root::FileTime { seconds: 1_600_000_000, nanoseconds: 0 };
    root.mknod("etc/hosts", FileType::CharacterDevice, 0, 0).expect("whiteout");
    std::fs::write(upper.join("etc/passwd"), "changed").expect("write");
    root.mkdir("var", 0o755).expect("var");
    root.set_xattr("var", Links::Keep, "trusted.overlay.opaque".as_ref(), b"y").expect("opaque");
    std::fs::write(upper.join("var/new"), "12345678").expect("write");
    root.hardlink("var/new", "var/second").expect("link");
    root.symlink("/etc/passwd", "new-link").expect("link");
    for folder in ["etc", "var"] {
        root.set_times(folder, Links::Keep, (time, time)).expect("times");
    }
}

#[test]
fn changes_are_listed_and_committed() {
    let (_dir, store) = store();
    let id = image(&store, vec![base()], Some("app:1"));
    let one = container(2);
    let rootfs = store.prepare_rootfs(one.as_str(), &id).expect("rootfs");
    assert!(store.changes(one.as_str()).expect("changes").is_empty());
    change(&rootfs.upper);
    let changes = store.changes(one.as_str()).expect("changes");
    let shown: Vec<String> = changes
        .iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{kind} {}", change.path.display())
        })
        .collect();
    let expected =
        ["C /etc", "D /etc/hosts", "C /etc/passwd", "A /new-link", "C /var", "A /var/new", "A /var/second"];
    assert_eq!(shown, expected);
    let size = store.container_size(one.as_str()).expect("size");
    assert_eq!((size.writable, size.total), (15, 24), "a file with two names counts once");
    let source = LayerSource::Container(one.to_string());
    let commit = NewImage {
        base: Some(id),
        layers: vec![NewLayer { source, created_by: "/bin/sh".to_owned(), comment: "why".to_owned() }],
        config: RunConfig { cmd: Some(vec!["x".to_owned()]), ..RunConfig::default() },
        platform: None,
        author: "me".to_owned(),
        comment: "why".to_owned(),
        created: jiff::Timestamp::now(),
        name: Some(reference("app:2")),
    };
    let committed = store.create(commit).expect("commit");
    let image = store.image(&committed).expect("image");
    assert_eq!(image.record.parent, Some(id));
    let top = Root::open(&image.layer_folders[0]).expect("root");
    let whiteout = top.stat("etc/hosts", Links::Keep).expect("whiteout");
    assert!(gantry_images::unpack::is_overlay_whiteout(&whiteout));
    let opaque = top.get_xattr("var", Links::Keep, "trusted.overlay.opaque".as_ref()).expect("xattr");
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
    assert_eq!(top.stat("var/new", Links::Keep).expect("stat").st_nlink, 2);
    let history = store.history("app:2").expect("history");
    assert_eq!(
        (history[0].id.clone(), history[0].comment.as_str(), history[0].size),
        (committed.to_string(), "why", 15)
    );
    assert_eq!((history.len(), history[1].id.as_str()), (2, "<missing>"));
}

#[test]
fn import_applies_instructions_and_takes_any_packing() {
    let (_dir, store) = store();
    let packed = zstd::encode_all(Cursor::new(base()), 1).expect("zstd");
    let changes = ["CMD [\"/bin/x\"]".to_owned(), "ENV A=b".to_owned()];
    let id = store
        .import(Box::new(Cursor::new(packed)), &changes, "Imported", None, Some(reference("imported")))
        .expect("import");
    let image = store.get("imported").expect("image");
    assert_eq!((image.id, image.config.comment.as_deref()), (id, Some("Imported")));
    assert_eq!(image.config.config.expect("config").env, Some(vec!["A=b".to_owned()]));
    let bad = store.import(Box::new(Cursor::new(base())), &["RUN x".to_owned()], "", None, None);
    assert_eq!(bad.expect_err("instruction").kind(), ErrorKind::Invalid);
}

#[test]
fn a_folder_of_the_host_becomes_an_image() {
    let (_dir, store) = store();
    let folder = scratch();
    std::fs::create_dir(folder.path().join("bin")).expect("bin");
    std::fs::copy("/bin/busybox", folder.path().join("bin/busybox")).expect("busybox-static is installed");
    let source = LayerSource::Folder(folder.path().to_path_buf());
    let id = store.create(NewImage::of(source, RunConfig::default(), jiff::Timestamp::now())).expect("image");
    let found = store.image(&id).expect("image").layer_folders[0].join("bin/busybox");
    assert_eq!(std::fs::read(found).expect("read"), std::fs::read("/bin/busybox").expect("read"));
}

#[test]
fn what_a_killed_process_left_is_swept_and_lost_layers_come_back() {
    let (dir, store) = store();
    let id = image(&store, vec![base()], Some("app:1"));
    let chain = store.image(&id).expect("image").record.chain()[0];
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked(_))));
    drop(store);
    let at = |name: &str| dir.path().join(name);
    // Killed while unpacking, between rename and record, while deleting, while preparing a container.
    std::fs::create_dir_all(at("tmp/half/diff/etc")).expect("half");
    std::fs::write(at("tmp/blob"), "half").expect("half");
    let orphan = format!("layers/{}/diff", Digest::of(b"orphan").hex());
    std::fs::create_dir_all(at(&orphan)).expect("orphan");
    std::fs::create_dir_all(at("trash/old/deep")).expect("trash");
    std::fs::create_dir_all(at(&format!("containers/{}/upper", container(9)))).expect("container");
    // And a layer's folder is lost, its blob is not.
    std::fs::remove_dir_all(at(&format!("layers/{}", chain.hex()))).expect("lose");
    let store = Store::open(dir.path()).expect("reopen");
    assert!(!at("tmp/half").exists() && !at("tmp/blob").exists() && !at(&orphan).exists());
    assert_eq!(std::fs::read_dir(at("containers")).expect("containers").count(), 0);
    let rootfs = store.prepare_rootfs(container(3).as_str(), &id).expect("unpacked again");
    assert!(rootfs.lower[0].join("etc/passwd").exists());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::fs::read_dir(at("trash")).expect("trash").count() > 0 {
        assert!(std::time::Instant::now() < deadline, "the trash is emptied");
        std::thread::yield_now();
    }
    drop(store);
    // The configuration is cut short: the image is dropped, the store opens.
    std::fs::write(dir.path().join("blobs/sha256").join(id.hex()), "{").expect("damage");
    let store = Store::open(dir.path()).expect("reopen");
    assert!(store.list().is_empty());
    assert!(store.rootfs(container(3).as_str()).is_ok(), "its containers stay");
    drop(store);
    std::fs::remove_dir_all(&rootfs.upper).expect("lose");
    drop(Store::open(dir.path()).expect("reopen"));
    assert!(rootfs.upper.is_dir(), "a container's lost folder is made anew");
}

#[test]
fn an_image_without_layers_has_a_root() {
    let (_dir, store) = store();
    let mut empty = NewImage::of(layer(Vec::new()), RunConfig::default(), jiff::Timestamp::now());
    empty.layers.clear();
    let id = store.create(empty).expect("image");
    let rootfs = store.prepare_rootfs(container(4).as_str(), &id).expect("rootfs");
    assert_eq!(rootfs.lower.len(), 1);
    assert!(tree(&rootfs.lower[0]).is_empty());
}
