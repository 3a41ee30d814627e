//! Overlays both ways: as new kernels take their layers and as old ones do. Needs root.

use gantry_linux::mount::Detached;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

/// A folder with this many layers, each with a file of its own and one that all have.
fn layers(folder: &tempfile::TempDir, count: usize) -> Vec<PathBuf> {
    let lower: Vec<PathBuf> = (0..count).map(|n| folder.path().join(format!("layer-{n}"))).collect();
    for (number, layer) in lower.iter().enumerate() {
        fs::create_dir(layer).unwrap();
        fs::write(layer.join(format!("file-{number}")), "").unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
    }
    fs::create_dir(folder.path().join("upper")).unwrap();
    fs::create_dir(folder.path().join("work")).unwrap();
    lower
}

fn shows_all(mount: &Detached, count: usize) {
    let path = format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd());
    for number in 0..count {
        assert!(fs::exists(format!("{path}/file-{number}")).unwrap(), "file-{number} of {count}");
    }
    assert_eq!(fs::read_to_string(format!("{path}/top")).unwrap(), "0", "the first layer is the top-most");
}

#[test]
fn few_and_many_layers_are_one_tree_by_descriptors() {
    for count in [1, 3, 200] {
        let folder = tempfile::tempdir().unwrap();
        let lower = layers(&folder, count);
        let before = std::env::current_dir().unwrap();
        let (upper, work) = (folder.path().join("upper"), folder.path().join("work"));
        let mount = Detached::overlay_by_descriptors(&lower, Some((&upper, &work)), true, false).unwrap();
        shows_all(&mount, count);
        assert_eq!(std::env::current_dir().unwrap(), before);
        fs::write(format!("/proc/self/fd/{}/made", mount.as_fd().as_raw_fd()), "above").unwrap();
        assert_eq!(fs::read_to_string(upper.join("made")).unwrap(), "above");
    }
}

#[test]
fn layers_alone_are_a_read_only_tree() {
    let folder = tempfile::tempdir().unwrap();
    let lower = layers(&folder, 2);
    let mount = Detached::overlay_by_descriptors(&lower, None, false, false).unwrap();
    shows_all(&mount, 2);
    assert!(fs::write(format!("/proc/self/fd/{}/made", mount.as_fd().as_raw_fd()), "").is_err());
}

#[test]
fn the_kernels_own_way_shows_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let lower = layers(&folder, 40);
    let (upper, work) = (folder.path().join("upper"), folder.path().join("work"));
    shows_all(&Detached::overlay(&lower, Some((&upper, &work)), false, false).unwrap(), 40);
}

#[test]
fn a_layer_that_is_not_there_is_named() {
    let missing = [PathBuf::from("/nosuch/layer")];
    let error = Detached::overlay_by_descriptors(&missing, None, false, false).unwrap_err();
    assert!(error.to_string().contains("/nosuch/layer"), "{error}");
}
