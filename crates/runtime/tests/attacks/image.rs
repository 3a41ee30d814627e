//! What a hostile image does by itself: links, files and folders in the places where the runtime makes something.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use gantry_runtime::oci::{Mount, defaults};

use crate::{
    Sentinel, applets, bind,
    harness::{Sandbox, leftovers, text},
    run_to_its_end,
};

/// Replaces a folder of the image by a link.
fn link(sandbox: &Sandbox, name: &str, target: &Path) {
    let place = sandbox.rootfs().join(name);
    if place.is_dir() {
        fs::remove_dir_all(&place).unwrap();
    }
    symlink(target, place).unwrap();
}

#[test]
fn a_dev_that_leads_out_takes_and_gives_nothing() {
    // CVE-2026-41579: /dev of the image is a link to the host, and nothing is mounted there; devices, /dev/ptmx and the
    // links of /dev were made, and a ptmx removed, outside. Here they are made at that path within the image.
    for relative in [false, true] {
        let outside = Sentinel::new();
        let mut sandbox = Sandbox::script("true");
        let target = match relative {
            true => Path::new("../../../../../../..").join(outside.path().strip_prefix("/").unwrap()),
            false => outside.path().to_owned(),
        };
        link(&sandbox, "dev", &target);
        fs::create_dir_all(sandbox.rootfs().join(outside.path().strip_prefix("/").unwrap())).unwrap();
        sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        // Whether it is refused or done inside is the runtime's affair.
        sandbox.run();
        outside.check();
    }
}

#[test]
fn a_listed_device_is_made_inside_and_replaces_nothing_outside() {
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("ls -l /link/file");
    link(&sandbox, "link", outside.path());
    let device = defaults::devices().into_iter().find(|device| device.path == "/dev/null").unwrap();
    sandbox.linux().devices = vec![gantry_runtime::oci::Device { path: "/link/file".into(), ..device }];
    let output = sandbox.run();
    outside.check();
    let inside = sandbox.rootfs().join(outside.path().strip_prefix("/").unwrap()).join("file");
    if output.status.success() {
        assert!(fs::symlink_metadata(inside).unwrap().file_type().is_char_device());
    }
}

#[test]
fn proc_and_sys_are_where_their_names_say_however_they_are_spelt() {
    // CVE-2023-27561 and CVE-2023-28642: with /proc behind a link the masks and labels were somewhere else.
    for destination in ["/proc", "/proc/", "/./proc", "//proc", "/sys", "/sys/", "/tmp/../proc"] {
        let mut sandbox = Sandbox::script("ls /elsewhere");
        let name = if destination.contains("sys") { "sys" } else { "proc" };
        fs::create_dir(sandbox.rootfs().join("elsewhere")).unwrap();
        link(&sandbox, name, Path::new("/elsewhere"));
        let kind = if name == "sys" { "sysfs" } else { "proc" };
        let mount = sandbox.spec.mounts.iter_mut().find(|mount| mount.kind.as_deref() == Some(kind)).unwrap();
        mount.destination = destination.into();
        let output = sandbox.run();
        assert!(!output.status.success(), "{destination}: {}", text(&output.stdout));
        assert!(leftovers(&sandbox).is_empty());
    }
}

#[test]
fn a_volume_over_proc_does_not_take_its_writes() {
    // CVE-2019-16884, CVE-2025-52881: labels and sysctls are written through a /proc that a volume has replaced.
    let outside = Sentinel::new();
    let fake = Sandbox::script("true");
    let volume = fake.path("fake-proc");
    fs::create_dir_all(volume.join("sys/net/ipv4")).unwrap();
    fs::create_dir_all(volume.join("self/attr/apparmor")).unwrap();
    let target = volume.join("sys/net/ipv4/ip_unprivileged_port_start");
    symlink(outside.path().join("file"), &target).unwrap();
    symlink(outside.path().join("file"), volume.join("self/attr/exec")).unwrap();
    for destination in ["/proc", "/proc/", "/tmp/../proc"] {
        let mut sandbox = Sandbox::script("true");
        sandbox.linux().sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
        sandbox.spec.mounts.push(bind(&volume, destination, &["rbind"]));
        // A volume over the whole of /proc is the administrator's choice or refused; it takes nothing either way.
        sandbox.run();
        outside.check();
    }
    let mut sandbox = Sandbox::script("true");
    sandbox.spec.mounts.push(bind(&volume.join("sys"), "/proc/sys", &["rbind"]));
    assert!(text(&sandbox.run().stderr).contains("inside /proc"));
}

#[test]
fn hidden_paths_that_are_links_of_the_image_hide_nothing_of_the_host() {
    // CVE-2025-31133 the other way round: the place to be hidden is chosen by the image.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("cat /hidden/file /hidden-file 2>&1; true");
    link(&sandbox, "hidden", outside.path());
    symlink(outside.path().join("file"), sandbox.rootfs().join("hidden-file")).unwrap();
    sandbox.linux().masked_paths.extend(["/hidden".into(), "/hidden-file".into(), "/hidden/file".into()]);
    sandbox.linux().readonly_paths.extend(["/hidden".into(), "/hidden-file".into()]);
    let output = sandbox.run();
    assert!(!text(&output.stdout).contains("host"), "{}", text(&output.stdout));
    outside.check();
}

#[test]
fn the_null_device_of_the_image_is_not_shown_in_place_of_hidden_files() {
    // CVE-2025-31133: /dev/null as a link to a file of /proc, or as another device. A volume at /dev brings it.
    for target in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/dev/zero"] {
        let folder = tempfile::tempdir().unwrap();
        symlink(target, folder.path().join("null")).unwrap();
        let mut sandbox = Sandbox::script("wc -c < /proc/keys; ls -l /proc/keys; cat /proc/keys");
        sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        sandbox.spec.mounts.push(bind(folder.path(), "/dev", &["rbind"]));
        let output = sandbox.run();
        if output.status.success() {
            let out = text(&output.stdout);
            assert!(out.starts_with("0\n") && out.contains("1,   3") && out.lines().count() == 2, "{out}");
        }
    }
}

#[test]
fn the_console_lands_on_nothing_that_the_image_or_a_volume_points_at() {
    // CVE-2025-52565: /dev/console, or /dev/pts, is a link at the time of the mount.
    let outside = Sentinel::new();
    for (name, target) in [
        ("console", "/proc/sysrq-trigger".to_owned()),
        ("console", "/proc/sys/kernel/core_pattern".to_owned()),
        ("console", outside.path().join("file").to_str().unwrap().to_owned()),
        ("pts", outside.path().to_str().unwrap().to_owned()),
        ("ptmx", outside.path().join("file").to_str().unwrap().to_owned()),
    ] {
        let mut sandbox = Sandbox::script("cat /proc/sys/kernel/core_pattern; tty; true");
        sandbox.process().terminal = true;
        sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        symlink(&target, sandbox.rootfs().join("dev").join(name)).unwrap();
        let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let output = sandbox.run();
        let out = text(&output.stdout);
        if output.status.success() {
            assert!(out.contains(core_pattern.trim_end()), "{name} -> {target}: {out}");
        }
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), core_pattern);
        outside.check();
    }
}

#[test]
fn folders_for_mounts_are_made_inside() {
    // CVE-2024-45310 without the race: what is missing on the way to a destination is made where the link leads inside.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("true");
    link(&sandbox, "link", &outside.path().join("empty"));
    symlink("../../../../../../..", sandbox.rootfs().join("up")).unwrap();
    let folder = outside.path().strip_prefix("/").unwrap().to_str().unwrap().to_owned();
    for destination in ["/link/a/b/c".to_owned(), format!("/up/{folder}/empty/d"), "/../../link/e".to_owned()]
    {
        sandbox.spec.mounts.push(Mount {
            destination,
            kind: Some("tmpfs".into()),
            source: Some("tmpfs".into()),
            ..Mount::default()
        });
    }
    sandbox.process().cwd = "/link/work/folder".into();
    sandbox.run();
    outside.check();
}

#[test]
fn a_passwd_that_never_ends_or_never_begins_holds_nobody_up() {
    // HOME is looked up in the image: a fifo has no writer, a device no end.
    for kind in ["fifo", "zero", "link", "huge"] {
        let mut sandbox = Sandbox::script("echo $HOME");
        sandbox.process().env.retain(|entry| !entry.starts_with("HOME="));
        let passwd = sandbox.rootfs().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        match kind {
            "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, 0o644.into()).unwrap(),
            "zero" => rustix::fs::mknodat(
                rustix::fs::CWD,
                &passwd,
                rustix::fs::FileType::CharacterDevice,
                0o644.into(),
                rustix::fs::makedev(1, 5),
            )
            .unwrap(),
            "link" => symlink("/etc/shadow", &passwd).unwrap(),
            _ => fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap(),
        }
        let output = run_to_its_end(&sandbox);
        assert_eq!(text(&output.stdout), "/\n", "{kind}: {}", text(&output.stderr));
    }
}

#[test]
fn a_proc_of_the_image_lends_no_descriptor() {
    // Without a /proc of its own a container has that of its image; what the runtime opens by a descriptor's name there
    // would be the image's choice.
    let outside = Sentinel::new();
    let mut sandbox = Sandbox::script("echo $HOME");
    sandbox.process().env.retain(|entry| !entry.starts_with("HOME="));
    sandbox.spec.mounts.retain(|mount| !mount.destination.starts_with("/proc"));
    let fds = sandbox.rootfs().join("proc/self/fd");
    fs::create_dir_all(&fds).unwrap();
    let passwd = sandbox.path("passwd");
    fs::write(&passwd, "root:x:0:0::/stolen:/bin/sh\n").unwrap();
    fs::copy(&passwd, sandbox.rootfs().join("other")).unwrap();
    for number in 0..64 {
        let place = fds.join(number.to_string());
        match number % 2 {
            0 => symlink("/other", &place).unwrap(),
            _ => rustix::fs::mkfifoat(rustix::fs::CWD, &place, 0o644.into()).unwrap(),
        }
    }
    let output = run_to_its_end(&sandbox);
    assert!(!text(&output.stdout).contains("stolen"), "{}", text(&output.stdout));
    assert!(output.status.success(), "{}", text(&output.stderr));
    outside.check();
}

#[test]
fn set_user_ids_of_an_image_are_worth_nothing_under_no_new_privileges() {
    let mut sandbox = Sandbox::script("/bin/suid/busybox id -u; grep NoNewPrivs /proc/self/status");
    applets(&sandbox, &["grep"]);
    fs::create_dir(sandbox.rootfs().join("bin/suid")).unwrap();
    let suid = sandbox.rootfs().join("bin/suid/busybox");
    fs::copy("/bin/busybox", &suid).unwrap();
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(fs::metadata(&suid).unwrap().uid(), 0);
    sandbox.process().user.uid = 33;
    let out = sandbox.stdout();
    assert!(out.starts_with("33\n") && out.contains("NoNewPrivs:\t1"), "{out}");
}

#[test]
fn a_hook_inside_the_container_has_the_rights_of_the_program_and_no_more() {
    // The path of a startContainer hook is one of the image, which may put anything there.
    let mut sandbox = Sandbox::script("cat /tmp/hook");
    let script = "{ cat /proc/self/status; ls /proc/$$/fd; } > /tmp/hook";
    sandbox.spec.hooks = Some(gantry_runtime::oci::Hooks {
        start_container: vec![gantry_runtime::oci::Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..gantry_runtime::oci::Hook::default()
        }],
        ..gantry_runtime::oci::Hooks::default()
    });
    let out = sandbox.stdout();
    for line in ["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let descriptors: Vec<&str> = out.lines().filter(|line| line.len() < 4).collect();
    assert!(descriptors.iter().all(|fd| ["0", "1", "2", "3", "10"].contains(fd)), "{descriptors:?}");
}
