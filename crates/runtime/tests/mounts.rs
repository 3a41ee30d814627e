//! Mounts of every kind, their options, and the root file system. Needs root.

mod harness;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    process::{Command, Output, Stdio},
};

use gantry_runtime::oci::{IdMapping, Mount, Namespace, NamespaceKind};
use harness::{RUNTIME, Sandbox, leftovers, text};

fn mount(kind: &str, source: &str, destination: &str, options: &str) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        ..Mount::default()
    }
}

fn map(container_id: u32, host_id: u32, size: u32) -> Vec<IdMapping> {
    vec![IdMapping { container_id, host_id, size }]
}

/// Runs the container in a mount namespace of its own, in which a script prepares the host's side and looks at it
/// afterwards; `$RUN` runs the container.
fn run_within(sandbox: &Sandbox, script: &str) -> Output {
    sandbox.save();
    let run = format!("{RUNTIME} --root {} run {}", sandbox.root().display(), sandbox.id);
    // Host and container wait for each other by a fifo: one that fails must not keep the other waiting for ever.
    Command::new("timeout")
        .args(["60", "unshare", "--mount", "--propagation", "private", "sh", "-euc", script])
        .env("RUN", run)
        .current_dir(sandbox.bundle())
        .stdin(Stdio::null())
        .output()
        .expect("package util-linux")
}

/// What it wrote, which must have worked.
fn within(sandbox: &Sandbox, script: &str) -> String {
    let output = run_within(sandbox, script);
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

fn failure(sandbox: &Sandbox) -> String {
    let output = sandbox.run();
    assert!(!output.status.success(), "{}", text(&output.stdout));
    assert!(leftovers(sandbox).is_empty());
    text(&output.stderr)
}

/// The options of a mount as the container sees them: its own, then those of the file system.
const OPTIONS_OF: &str = "options_of() { while read a b c d point own rest; do if [ $point = $1 ]; then echo $own ${rest##* }; fi; done < /proc/self/mountinfo; }; ";

#[test]
fn every_option_takes_effect() {
    let mut sandbox =
        Sandbox::script(&format!("{OPTIONS_OF} for i in 1 2 3 4 5 6; do options_of /m$i; done"));
    for (number, options) in [
        "ro,nosuid,nodev,noexec,noatime,nodiratime",
        "noatime,relatime,suid,dev,exec,rw",
        "strictatime,nosymfollow",
        "sync,dirsync,lazytime,mode=700",
        "defaults,noatime,atime,silent,iversion",
        "rro,rnosuid,rnoexec,rnodev,rnoatime,nolazytime,async,nomand,loud,noiversion",
    ]
    .iter()
    .enumerate()
    {
        let place = format!("/m{}", number + 1);
        sandbox.spec.mounts.push(mount("tmpfs", "tmpfs", &place, options));
    }
    let out = sandbox.stdout();
    let own: Vec<&str> = out.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        own,
        [
            "ro,nosuid,nodev,noexec,noatime,nodiratime",
            "rw,relatime",
            "rw,nosymfollow",
            "rw,relatime",
            "rw,relatime",
            "ro,nosuid,nodev,noexec,noatime",
        ],
        "{out}"
    );
    let superblock = out.lines().nth(3).unwrap();
    for word in ["sync", "dirsync", "lazytime", "mode=700"] {
        assert!(superblock.contains(word), "{superblock}");
    }
}

#[test]
fn recursive_options_reach_what_is_mounted_below_and_others_do_not() {
    let script = "mkdir -p ../tree; mount -t tmpfs top ../tree; mkdir ../tree/sub; mount -t tmpfs sub ../tree/sub; $RUN";
    for (options, top, sub) in [
        ("rbind,ro,nosuid", "ro,nosuid,relatime", "rw,relatime"),
        (
            "rbind,rro,rnosuid,rnosymfollow",
            "ro,nosuid,relatime,nosymfollow",
            "ro,nosuid,relatime,nosymfollow",
        ),
        ("rbind,rro,rw", "ro,relatime", "ro,relatime"),
        (
            "rbind,ro,rnoatime,rnodev,rnodiratime",
            "ro,nodev,noatime,nodiratime",
            "rw,nodev,noatime,nodiratime",
        ),
    ] {
        let mut sandbox = Sandbox::script(&format!("{OPTIONS_OF} options_of /t; options_of /t/sub"));
        let source = sandbox.path("tree");
        sandbox.spec.mounts.push(mount("none", source.to_str().unwrap(), "/t", options));
        let out = within(&sandbox, script);
        let own: Vec<&str> = out.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(own, [top, sub], "{options}");
    }
    // A plain bind mount leaves what is below behind.
    let mut sandbox = Sandbox::script("ls /t/sub | wc -l");
    let source = sandbox.path("tree");
    sandbox.spec.mounts.push(mount("bind", source.to_str().unwrap(), "/t", "bind"));
    assert_eq!(within(&sandbox, &format!("{script}; touch ../tree/sub/x; $RUN")), "0\n0\n");
}

#[test]
fn a_remount_changes_what_is_there() {
    let mut sandbox = Sandbox::script(&format!("{OPTIONS_OF} options_of /t; echo x > /t/made"));
    sandbox.spec.mounts.push(mount("tmpfs", "tmpfs", "/t", "size=1m"));
    sandbox.spec.mounts.push(mount("tmpfs", "tmpfs", "/t", "remount,noexec,size=64k,nosuid"));
    let out = sandbox.stdout();
    assert!(out.starts_with("rw,nosuid,noexec,relatime rw,size=64k"), "{out}");
}

#[test]
fn a_bind_mount_made_read_only_takes_one_step() {
    let mut sandbox = Sandbox::script("echo x > /t/made; cat /t/file");
    fs::create_dir(sandbox.path("data")).unwrap();
    fs::write(sandbox.path("data/file"), "content\n").unwrap();
    // Relative to the bundle, and to the root.
    sandbox.spec.mounts.push(mount("", "../data", "t", "bind,remount,ro"));
    let output = sandbox.run();
    assert_eq!(text(&output.stdout), "content\n");
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", text(&output.stderr));
    assert!(!sandbox.path("data/made").exists());
}

#[test]
fn mounts_spread_as_their_propagation_says() {
    // The host side mounts below the source while the container runs, the container below its destination.
    let host = "mkdir -p ../tree; mount -t tmpfs top ../tree; mount --make-shared ../tree; mkdir ../tree/host ../tree/inside; mkfifo ../tree/go; \
                $RUN & read line < ../tree/go; mount -t tmpfs host ../tree/host; touch ../tree/host/from-host; echo > ../tree/go; wait; \
                ls ../tree/inside";
    for (options, outward, inward) in [
        ("rbind,rshared", true, true),
        ("rbind,rslave", false, true),
        ("rbind,rprivate", false, false),
        ("rbind", false, false),
    ] {
        let mut sandbox = Sandbox::script(
            "mount -t tmpfs inside /t/inside; touch /t/inside/from-inside; echo > /t/go; read line < /t/go; ls /t/host",
        );
        sandbox.process().capabilities.as_mut().unwrap().effective.push("CAP_SYS_ADMIN".into());
        sandbox.process().capabilities.as_mut().unwrap().permitted.push("CAP_SYS_ADMIN".into());
        sandbox.process().capabilities.as_mut().unwrap().bounding.push("CAP_SYS_ADMIN".into());
        sandbox.linux().seccomp = None;
        let source = sandbox.path("tree");
        sandbox.spec.mounts.push(mount("none", source.to_str().unwrap(), "/t", options));
        let out = within(&sandbox, host);
        assert_eq!(out.contains("from-inside"), outward, "{options}: {out}");
        assert_eq!(out.contains("from-host"), inward, "{options}: {out}");
    }
}

#[test]
fn the_root_propagates_as_asked() {
    for (word, shown) in [
        ("", ""),
        ("private", ""),
        ("rslave", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let mut sandbox = Sandbox::script(
            "while read a b c d point own optional rest; do if [ $point = / ]; then echo $optional; fi; done < /proc/self/mountinfo",
        );
        sandbox.linux().rootfs_propagation = Some(word.into());
        let out = sandbox.stdout();
        assert!(out.starts_with(if shown.is_empty() { "-" } else { shown }), "{word}: {out}");
    }
    let mut sandbox = Sandbox::script("true");
    sandbox.linux().rootfs_propagation = Some("wide".into());
    assert!(failure(&sandbox).contains("linux.rootfsPropagation: unknown word \"wide\""));
}

#[test]
fn what_the_host_mounts_below_a_slave_root_appears() {
    let script = "mkdir -p ../tree; mount --bind rootfs rootfs; mount --make-shared rootfs; mkdir rootfs/late; mkfifo rootfs/go; \
                  $RUN & read line < rootfs/go; mount -t tmpfs late rootfs/late; touch rootfs/late/seen; echo > rootfs/go; wait";
    for (word, seen) in [("rslave", "seen\n"), ("rprivate", "")] {
        let mut sandbox = Sandbox::script("echo > /go; read line < /go; ls /late");
        sandbox.linux().rootfs_propagation = Some(word.into());
        assert_eq!(within(&sandbox, script), seen, "{word}");
    }
}

#[test]
fn ids_of_a_bind_mount_are_mapped() {
    let mut sandbox = Sandbox::script("busybox stat -c %u:%g /t/file; touch /t/made");
    fs::create_dir(sandbox.path("data")).unwrap();
    fs::write(sandbox.path("data/file"), "").unwrap();
    chown(sandbox.path("data"), Some(1000), Some(1000)).unwrap();
    chown(sandbox.path("data/file"), Some(1000), Some(1001)).unwrap();
    let source = sandbox.path("data");
    for options in ["bind,idmap", "rbind,ridmap", "bind"] {
        let mut mapped = mount("none", source.to_str().unwrap(), "/t", options);
        mapped.uid_mappings = map(1000, 0, 10);
        mapped.gid_mappings = map(1000, 5000, 10);
        sandbox.spec.mounts.retain(|mount| mount.destination != "/t");
        // Group 0 of the container is none of those of the mount: 5000 is.
        sandbox.process().user.gid = 5000;
        sandbox.spec.mounts.push(mapped);
        assert_eq!(sandbox.stdout(), "0:5001\n", "{options}");
        let made = fs::metadata(sandbox.path("data/made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (1000, 1000), "{options}");
        fs::remove_file(sandbox.path("data/made")).unwrap();
    }
}

#[test]
fn ridmap_maps_what_is_below_and_idmap_does_not() {
    let script = "mkdir -p ../tree; mount -t tmpfs top ../tree; mkdir ../tree/sub; mount -t tmpfs sub ../tree/sub; \
                  touch ../tree/file ../tree/sub/file; $RUN";
    for (options, owners) in [("rbind,idmap", "7000\n0\n"), ("rbind,ridmap", "7000\n7000\n")] {
        let mut sandbox = Sandbox::script("busybox stat -c %u /t/file; busybox stat -c %u /t/sub/file");
        let source = sandbox.path("tree");
        let mut mapped = mount("none", source.to_str().unwrap(), "/t", options);
        mapped.uid_mappings = map(0, 7000, 1);
        mapped.gid_mappings = map(0, 7000, 1);
        sandbox.spec.mounts.push(mapped);
        assert_eq!(within(&sandbox, script), owners, "{options}");
    }
}

/// A new user namespace that maps root to 100000.
fn add_user_namespace(sandbox: &mut Sandbox) {
    sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    sandbox.linux().uid_mappings = map(0, 100_000, 65_536);
    sandbox.linux().gid_mappings = map(0, 100_000, 65_536);
    let rootfs = sandbox.rootfs();
    for folder in rootfs.ancestors().take(3) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["", "dev", "proc", "sys", "tmp"] {
        chown(rootfs.join(name), Some(100_000), Some(100_000)).unwrap();
    }
}

#[test]
fn idmap_without_mappings_takes_those_of_the_container() {
    let mut sandbox = Sandbox::script("busybox stat -c %u /t/file; touch /t/made");
    fs::create_dir(sandbox.path("data")).unwrap();
    fs::write(sandbox.path("data/file"), "").unwrap();
    let source = sandbox.path("data");
    sandbox.spec.mounts.push(mount("none", source.to_str().unwrap(), "/t", "bind,idmap"));
    assert!(failure(&sandbox).contains("/t: idmap without mappings needs a user namespace"));
    add_user_namespace(&mut sandbox);
    // On the disk it is root's; the container's root is 100000, and yet the owner.
    assert_eq!(sandbox.stdout(), "0\n");
    assert_eq!(fs::metadata(sandbox.path("data/made")).unwrap().uid(), 0);
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let mut sandbox = Sandbox::script("true");
    let mut mapped = mount("tmpfs", "tmpfs", "/t", "idmap");
    mapped.uid_mappings = map(0, 1, 1);
    mapped.gid_mappings = map(0, 1, 1);
    sandbox.spec.mounts.push(mapped.clone());
    assert!(failure(&sandbox).contains("/t: ids can be mapped for bind mounts only"));
    mapped.options = vec!["bind".into()];
    mapped.source = Some("/tmp".into());
    mapped.gid_mappings.clear();
    *sandbox.spec.mounts.last_mut().unwrap() = mapped;
    assert!(failure(&sandbox).contains("gidMappings: is missing"));
}

#[test]
fn a_tmpfs_can_begin_with_what_it_hides() {
    let mut sandbox = Sandbox::script(
        "cd /data; busybox stat -c '%n %a %u:%g %Y' file deep/folder/leaf; busybox readlink link; [ -p fifo ] && echo fifo; cat deep/folder/leaf; \
         busybox stat -c '%a %Y' deep; echo x > new || echo read-only; cat /data2/new 2>&1; ls /data3",
    );
    let data = sandbox.rootfs().join("data");
    fs::create_dir_all(data.join("deep/folder")).unwrap();
    fs::write(data.join("file"), "x").unwrap();
    fs::write(data.join("deep/folder/leaf"), "leaf\n").unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4711)).unwrap();
    chown(data.join("deep/folder/leaf"), Some(33), Some(44)).unwrap();
    symlink("/nowhere/else", data.join("link")).unwrap();
    // A link of the image that leads out of the root is copied as what it is.
    symlink("/etc/shadow", data.join("shadow")).unwrap();
    assert!(Command::new("mkfifo").arg(data.join("fifo")).status().unwrap().success());
    let old =
        fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000));
    for name in ["file", "deep/folder/leaf", "deep"] {
        fs::File::open(data.join(name)).unwrap().set_times(old).unwrap();
    }
    fs::set_permissions(data.join("deep"), fs::Permissions::from_mode(0o555)).unwrap();
    sandbox.spec.mounts.push(mount("tmpfs", "tmpfs", "/data", "tmpcopyup,ro,mode=755"));
    sandbox.spec.mounts.push(mount("tmpfs", "tmpfs", "/data3", "tmpcopyup"));
    let output = sandbox.run();
    assert_eq!(
        text(&output.stdout),
        "file 4711 0:0 1000000\ndeep/folder/leaf 644 33:44 1000000\n/nowhere/else\nfifo\nleaf\n555 1000000\nread-only\n\
         cat: can't open '/data2/new': No such file or directory\n",
        "{}",
        text(&output.stderr)
    );
    assert!(!data.join("new").exists());
    sandbox.spec.mounts.push(mount("bind", "/tmp", "/t", "bind,tmpcopyup"));
    assert!(failure(&sandbox).contains("/t: tmpcopyup is for tmpfs only"));
}

#[test]
fn options_that_nothing_would_look_at_are_refused() {
    let mut sandbox = Sandbox::script("true");
    sandbox.spec.mounts.push(mount("bind", "/tmp", "/t", "bind,size=3"));
    assert!(failure(&sandbox).contains("/t: a bind mount has no file system option \"size=3\""));
    *sandbox.spec.mounts.last_mut().unwrap() = mount("tmpfs", "tmpfs", "/t", "nosuch=3");
    let error = failure(&sandbox);
    assert!(error.contains("mount tmpfs to /t: make it: mount tmpfs with option nosuch=3"), "{error}");
    *sandbox.spec.mounts.last_mut().unwrap() = mount("nosuchfs", "x", "/t", "");
    let error = failure(&sandbox);
    assert!(error.contains("mount x to /t: make it: mount nosuchfs: No such device"), "{error}");
    *sandbox.spec.mounts.last_mut().unwrap() = mount("bind", "/nope", "/t", "");
    let error = failure(&sandbox);
    assert!(error.contains("mount /nope to /t: bind /nope: No such file or directory"), "{error}");
}

#[test]
fn only_a_proc_file_system_goes_to_proc() {
    let mut sandbox = Sandbox::script("true");
    sandbox.spec.mounts[0] = mount("tmpfs", "tmpfs", "/proc", "");
    assert!(failure(&sandbox).contains("/proc can only be a proc file system"));
    sandbox.spec.mounts[0] = mount("bind", "/tmp", "/proc", "bind");
    assert!(failure(&sandbox).contains("/proc can only be a proc file system"));
    // The host's own is one.
    sandbox.spec.mounts[0] = mount("bind", "/proc", "/proc", "rbind");
    assert!(sandbox.run().status.success());
}

#[test]
fn cgroups_of_v1_show_each_hierarchy_at_the_containers_own_group() {
    for own_namespace in [false, true] {
        let mut sandbox = Sandbox::script(&format!(
            "{OPTIONS_OF} cat /sys/fs/cgroup/pids/cgroup.procs | busybox head -n 1; ls /sys/fs/cgroup; options_of /sys/fs/cgroup/memory; \
             busybox tail -n 1 /proc/self/cgroup; mkdir /sys/fs/cgroup/pids/x 2>&1"
        ));
        sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Cgroup);
        if own_namespace {
            sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: None });
        }
        let output = sandbox.run();
        let out = text(&output.stdout);
        assert!(out.starts_with("1\n"), "its own group is the root: {out}");
        for name in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let name = name.unwrap().file_name().into_string().unwrap();
            assert!(name == "unified" || out.contains(&name), "{name}: {out}");
        }
        assert!(out.contains("ro,nosuid,nodev,noexec"), "{out}");
        assert_eq!(out.contains(":/\n"), own_namespace, "{out}");
        assert!(out.contains("Read-only file system"), "{out}");
    }
}

#[test]
fn cgroups_of_v2_show_the_containers_own_group() {
    for own_namespace in [false, true] {
        let mut sandbox =
            Sandbox::script("cat /cg/cgroup.procs | busybox head -n 1; mkdir /cg/below && echo made");
        sandbox.spec.mounts.push(mount("cgroup2", "cgroup", "/cg", "nosuid,noexec,nodev"));
        sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Cgroup);
        if own_namespace {
            sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: None });
        }
        let output = sandbox.run();
        assert_eq!(text(&output.stdout), "1\nmade\n", "{own_namespace}: {}", text(&output.stderr));
        assert!(leftovers(&sandbox).is_empty());
    }
}

#[test]
fn no_link_of_an_image_leads_a_cgroup_mount_into_proc() {
    for kind in ["cgroup", "cgroup2"] {
        let mut sandbox = Sandbox::script("true");
        symlink("/proc/sys", sandbox.rootfs().join("cg")).unwrap();
        sandbox.spec.mounts.push(mount(kind, "cgroup", "/cg", ""));
        assert!(failure(&sandbox).contains("/cg cannot be mounted because it is inside /proc"), "{kind}");
    }
}

#[test]
fn a_user_namespace_sees_the_hosts_sysfs_where_it_may_not_mount_its_own() {
    let mut sandbox = Sandbox::script(
        "ls -d /sys/kernel; echo x > /sys/kernel/uevent_helper; mount | busybox grep -c ' /sys '",
    );
    add_user_namespace(&mut sandbox);
    // The host's network namespace is not the container's to show.
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    let output = sandbox.run();
    assert!(text(&output.stdout).starts_with("/sys/kernel\n"), "{}", text(&output.stderr));
    assert!(output.status.success());
}

#[test]
fn queues_and_terminals_are_the_containers_own() {
    let sandbox = Sandbox::script(
        "ls /dev/mqueue | wc -l; touch /dev/mqueue/own && ls /dev/mqueue; ls /dev/pts; busybox readlink /dev/ptmx; busybox stat -c %a /dev/pts/ptmx",
    );
    assert_eq!(sandbox.stdout(), "0\nown\nptmx\npts/ptmx\n666\n");
}

#[test]
fn without_pivot_root_the_root_is_moved_and_the_hosts_proc_is_gone() {
    let mut sandbox = Sandbox::script(
        "ls /; while read a b c d point own rest; do echo $point; done < /proc/self/mountinfo",
    );
    sandbox.spec.root.as_mut().unwrap().readonly = true;
    sandbox.save();
    let output = sandbox.output(&["run", "--no-pivot", &sandbox.id]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(out.contains("bin\ndev\n") && out.contains("\n/\n/proc\n"), "{out}");
    assert_eq!(out.lines().filter(|line| *line == "/proc").count(), 1, "{out}");
    // Nothing on the host was unmounted.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts.contains(" /proc ") && mounts.contains(" /sys "));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn a_root_that_is_none_is_named() {
    let mut sandbox = Sandbox::script("true");
    let root = |path: &str| Some(gantry_runtime::oci::Root { path: path.into(), readonly: false });
    sandbox.spec.root = root("nope");
    let error = failure(&sandbox);
    assert!(
        error.contains("open root file system") && error.contains("nope: No such file or directory"),
        "{error}"
    );
    sandbox.spec.root = root("config.json");
    assert!(failure(&sandbox).contains("config.json is not a folder"));
    sandbox.spec.root = root("");
    assert!(failure(&sandbox).contains("root.path: is missing"));
    sandbox.spec.root = None;
    assert!(failure(&sandbox).contains("root: is missing"));
}

#[test]
fn a_user_namespace_with_the_hosts_processes_sees_the_hosts_proc() {
    let mut sandbox = Sandbox::script(
        "cat /proc/$$/comm; ls /proc/sys/kernel/core_pattern; echo x > /proc/sys/kernel/core_pattern; cat /proc/kcore",
    );
    add_user_namespace(&mut sandbox);
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Pid);
    let output = sandbox.run();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(out, "sh\n/proc/sys/kernel/core_pattern\n", "{error}");
    assert!(error.contains("core_pattern"), "it is read-only: {error}");
}

#[test]
fn on_a_host_with_v2_only_a_cgroup_mount_has_its_form() {
    // The same kernel, of which only the unified hierarchy is in sight.
    let script = "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; $RUN; test ! -d /sys/fs/cgroup/gantry-test/$ID";
    for own_namespace in [false, true] {
        for kind in ["cgroup", "cgroup2"] {
            let mut sandbox = Sandbox::script(&format!(
                "{OPTIONS_OF} busybox head -n 1 /sys/fs/cgroup/cgroup.procs; options_of /sys/fs/cgroup; mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused; cat /proc/self/cgroup"
            ));
            sandbox.linux().resources = None;
            sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Cgroup);
            if own_namespace {
                sandbox.linux().namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: None });
            }
            for mount in &mut sandbox.spec.mounts {
                if mount.kind.as_deref() == Some("cgroup") {
                    mount.kind = Some(kind.into());
                }
            }
            let out = within(&sandbox, &script.replace("$ID", &sandbox.id));
            assert!(out.starts_with("1\nro,nosuid,nodev,noexec,relatime rw"), "{kind}: {out}");
            assert!(out.contains("\nrefused\n"), "{kind}: {out}");
            assert_eq!(out.contains("0::/\n"), own_namespace, "{kind}: {out}");
        }
    }
}

#[test]
fn a_file_is_bound_where_a_link_of_the_image_leads_to_nothing_yet() {
    // As /etc/resolv.conf of images with systemd does.
    let mut sandbox = Sandbox::script("cat /etc/resolv.conf; cat /run/resolve/stub; ls /var/later/there");
    std::os::unix::fs::symlink("../run/resolve/stub", sandbox.rootfs().join("etc/resolv.conf")).unwrap();
    std::os::unix::fs::symlink("/srv/nothing", sandbox.rootfs().join("var")).unwrap();
    fs::write(sandbox.path("resolv.conf"), "nameserver 127.0.0.11\n").unwrap();
    let source = sandbox.path("resolv.conf").to_string_lossy().into_owned();
    sandbox.spec.mounts.extend([
        gantry_runtime::oci::Mount {
            destination: "/etc/resolv.conf".into(),
            kind: Some("bind".into()),
            source: Some(source),
            options: vec!["bind".into(), "ro".into()],
            ..Default::default()
        },
        gantry_runtime::oci::Mount {
            destination: "/var/later/there".into(),
            kind: Some("tmpfs".into()),
            source: Some("tmpfs".into()),
            ..Default::default()
        },
    ]);
    assert_eq!(sandbox.stdout(), "nameserver 127.0.0.11\nnameserver 127.0.0.11\n");
    assert!(sandbox.rootfs().join("srv/nothing/later/there").is_dir());
}
