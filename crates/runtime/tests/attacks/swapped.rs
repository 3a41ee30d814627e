//! Races of the set-up: a second process, as another container that shares a volume would, exchanges folders and links
//! while containers are made. What counts is that nothing outside is ever changed, shown or mounted over.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use gantry_runtime::oci::Mount;

use crate::{
    Sentinel, Swapper, bind, for_the_time_of_a_race,
    harness::{Sandbox, leftovers, text},
};

/// A volume that two containers share, with a folder and a link to the outside that are exchanged all the time.
fn shared_volume(sandbox: &Sandbox, target: &Path) -> (PathBuf, Swapper) {
    let volume = sandbox.path("volume");
    fs::create_dir_all(volume.join("place")).unwrap();
    symlink(target, volume.join("link")).unwrap();
    let swapper = Swapper::new(volume.join("place"), volume.join("link"));
    (volume, swapper)
}

fn tmpfs(destination: &str) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some("tmpfs".into()),
        source: Some("tmpfs".into()),
        ..Mount::default()
    }
}

#[test]
fn a_destination_that_becomes_a_link_is_never_mounted_outside() {
    // CVE-2021-30465: between the resolution of a destination and the mount it became a link to the host's root.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("true");
    let (volume, swapper) = shared_volume(&sandbox, outside.path());
    sandbox.spec.mounts.push(bind(&volume, "/volume", &["rbind"]));
    sandbox.spec.mounts.push(tmpfs("/volume/place"));
    sandbox.spec.mounts.push(tmpfs("/volume/place/empty"));
    let race = for_the_time_of_a_race(|| sandbox.run());
    race.check(swapper);
    outside.check();
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_missing_folder_is_never_made_outside() {
    // CVE-2024-45310: the folders on the way to a destination were made by path.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("true");
    let (volume, swapper) = shared_volume(&sandbox, outside.path());
    sandbox.spec.mounts.push(bind(&volume, "/volume", &["rbind"]));
    sandbox.process().cwd = "/volume/place/work/folder".into();
    let file = sandbox.path("a-file");
    fs::write(&file, "bound").unwrap();
    let mut attempt = 0;
    let plain = sandbox.spec.mounts.clone();
    let race = for_the_time_of_a_race(|| {
        attempt += 1;
        sandbox.spec.mounts.clone_from(&plain);
        sandbox.spec.mounts.push(tmpfs(&format!("/volume/place/a{attempt}/b/c")));
        sandbox.spec.mounts.push(bind(&file, &format!("/volume/place/file{attempt}"), &["rbind"]));
        sandbox.run()
    });
    race.check(swapper);
    outside.check();
}

#[test]
fn a_device_is_never_made_outside() {
    // CVE-2026-41579 with a race: /dev lies on a shared volume.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("true");
    let (volume, swapper) = shared_volume(&sandbox, outside.path());
    sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    sandbox.spec.mounts.push(bind(&volume, "/volume", &["rbind"]));
    fs::remove_dir_all(sandbox.rootfs().join("dev")).unwrap();
    symlink("/volume/place", sandbox.rootfs().join("dev")).unwrap();
    let race = for_the_time_of_a_race(|| sandbox.run());
    race.check(swapper);
    outside.check();
}

#[test]
fn a_hidden_path_that_becomes_a_link_hides_nothing_else() {
    // CVE-2025-31133 and CVE-2023-27561 with a race: paths to hide and to protect lie on a shared volume.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("cat /volume/place/file 2>/dev/null; true");
    let (volume, swapper) = shared_volume(&sandbox, outside.path());
    sandbox.spec.mounts.push(bind(&volume, "/volume", &["rbind"]));
    for path in ["/volume/place", "/volume/place/file", "/volume/link/empty", "/volume/link"] {
        sandbox.linux().masked_paths.push(path.into());
        sandbox.linux().readonly_paths.push(path.into());
    }
    let race = for_the_time_of_a_race(|| {
        let output = sandbox.run();
        assert!(!text(&output.stdout).contains("host"), "{}", text(&output.stdout));
        output
    });
    race.check(swapper);
    outside.check();
}

#[test]
fn a_console_that_becomes_a_link_is_never_mounted_elsewhere() {
    // CVE-2025-52565 with a race: /dev/console exchanged with a link to a file of /proc, and of the host.
    for target in [None, Some("/proc/sys/kernel/core_pattern")] {
        let outside = Sentinel::new();
        let mut sandbox = Sandbox::script("cat /proc/sys/kernel/core_pattern; true");
        sandbox.process().terminal = true;
        sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        let dev = sandbox.rootfs().join("dev");
        let file = outside.path().join("file");
        symlink(target.map_or(file.as_path(), Path::new), dev.join("console")).unwrap();
        fs::write(dev.join("other"), "").unwrap();
        let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let swapper = Swapper::new(dev.join("console"), dev.join("other"));
        let race = for_the_time_of_a_race(|| {
            let output = sandbox.run();
            if output.status.success() {
                let out = text(&output.stdout);
                assert!(out.contains(core_pattern.trim_end()), "the console is mounted there: {out}");
            }
            output
        });
        race.check(swapper);
        outside.check();
    }
}
