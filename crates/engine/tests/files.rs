//! Volumes, mounts, copies and what a container may do. All tests here need root.

mod harness;

use gantry_engine::*;
use gantry_model::container::{HostConfig, Mount, TmpfsOptions, Ulimit};
use harness::{command, no_network, on_node, refused, sh, until};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use tokio::io::AsyncReadExt;

fn with(change: impl FnOnce(&mut HostConfig)) -> HostConfig {
    let mut host = no_network();
    change(&mut host);
    host
}

#[test]
fn volumes_are_filled_from_the_image_kept_and_pruned() {
    on_node(|node| async move {
        let host = with(|h| h.binds = vec!["named:/data".into()]);
        let (code, out, err) =
            node.output(sh("cat /data/from-image; echo more > /data/mine"), host.clone()).await;
        assert_eq!((code, out.as_str(), err.as_str()), (0, "seed\n", ""));
        let (_, out, _) = node.output(sh("cat /data/*"), host.clone()).await;
        assert_eq!(out, "seed\nmore\n");
        let read_only = with(|h| h.binds = vec!["named:/data:ro".into()]);
        let (code, _, err) = node.output(sh("echo x > /data/mine"), read_only).await;
        assert!(code != 0 && err.contains("Read-only"), "{err}");
        let empty = with(|h| h.binds = vec!["plain:/data:nocopy".into()]);
        assert_eq!(node.output(sh("ls /data"), empty).await.1, "");
        let id = node.create("user", sh("true"), host).await;
        assert_eq!(refused(node.engine.volume_remove("named", false).await).0, ErrorKind::Conflict);
        assert_eq!(node.engine.get(&id).unwrap().mounts[0].name, "named");
        node.engine.remove(&id, RemoveOptions::default()).await.unwrap();
        let all = Filters::from([("all".to_owned(), vec!["true".to_owned()])]);
        assert_eq!(node.engine.volume_prune(&Filters::new()).await.unwrap().removed.len(), 0);
        assert_eq!(node.engine.volume_prune(&all).await.unwrap().removed, ["named", "plain"]);
        assert_eq!(refused(node.engine.volume_get("named")).1, "get named: no such volume");
        node.engine.volume_remove("named", true).await.unwrap();
        node
    });
}

#[test]
fn anonymous_volumes_go_with_their_container_if_asked() {
    on_node(|node| async move {
        let mut config = sh("echo x > /vol/file");
        config.volumes = BTreeMap::from([("/vol".to_owned(), Default::default())]);
        let id = node.run("first", config.clone(), no_network()).await;
        node.ended(&id).await;
        let from = with(|h| h.volumes_from = vec!["first:ro".into()]);
        let (code, out, err) = node.output(sh("cat /vol/file; echo y > /vol/file"), from).await;
        assert!(code != 0 && out == "x\n" && err.contains("Read-only"), "{out} {err}");
        assert_eq!(node.engine.volume_list(&Filters::new()).unwrap().len(), 1);
        node.engine.remove(&id, RemoveOptions { volumes: true, ..RemoveOptions::default() }).await.unwrap();
        assert_eq!(node.engine.volume_list(&Filters::new()).unwrap().len(), 0);
        node
    });
}

#[test]
fn a_volume_with_a_device_is_mounted_while_it_is_used() {
    on_node(|node| async move {
        let folder = node.path().join("shared");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("here"), "yes\n").unwrap();
        let options = [("type", "none"), ("o", "bind"), ("device", folder.to_str().unwrap())];
        let request = VolumeRequest {
            name: Some("bound".into()),
            options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..VolumeRequest::default()
        };
        node.engine.volume_create(request).await.unwrap();
        let host = with(|h| h.binds = vec!["bound:/mnt".into()]);
        assert_eq!(node.output(sh("cat /mnt/here"), host).await.1, "yes\n");
        let folder = node.engine.volume_get("bound").unwrap().mountpoint;
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "unmounted again");
        let bad = VolumeRequest { name: Some("../up".into()), ..VolumeRequest::default() };
        assert_eq!(refused(node.engine.volume_create(bad).await).0, ErrorKind::InvalidParameter);
        node
    });
}

fn bound(name: &str, folder: &std::path::Path, o: &str) -> VolumeRequest {
    let options = [("type", "none"), ("o", o), ("device", folder.to_str().unwrap())];
    VolumeRequest {
        name: Some(name.into()),
        options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..VolumeRequest::default()
    }
}

#[test]
fn a_read_only_device_of_a_volume_stays_unchanged() {
    on_node(|node| async move {
        let folder = node.path().join("shared");
        std::fs::create_dir(&folder).unwrap();
        node.engine.volume_create(bound("fixed", &folder, "bind,ro,nosuid")).await.unwrap();
        let host = with(|h| h.binds = vec!["fixed:/mnt".into()]);
        let (code, _, err) = node.output(sh("echo x > /mnt/made"), host).await;
        assert!(code != 0 && err.contains("Read-only"), "{err}");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
        node
    });
}

#[test]
fn what_a_volume_shows_of_the_host_is_not_deleted_with_it() {
    on_node(|node| async move {
        let folder = node.path().join("shared");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("precious"), "x").unwrap();
        node.engine.volume_create(bound("kept", &folder, "bind")).await.unwrap();
        let host = with(|h| h.binds = vec!["kept:/mnt".into()]);
        let id = node.run("user", sh("while ! test -e /tmp/go; do sleep 0.02; done"), host).await;
        let pid = node.engine.get(&id).unwrap().state.pid;
        let mountpoint = node.engine.volume_get("kept").unwrap().mountpoint;
        // The container ends while no engine runs: the next one does not know who has mounted the volume.
        node.engine.close().await;
        std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
        until("the container ends", || !std::path::Path::new(&format!("/proc/{pid}/root")).exists()).await;
        let node = node.reopen().await;
        assert_eq!(node.ended(&id).await.code, 0);
        assert_eq!(std::fs::read_dir(&mountpoint).unwrap().count(), 0, "unmounted");
        node.engine.remove(&id, RemoveOptions::default()).await.unwrap();
        // As if the unmounting had failed.
        rustix::mount::mount_bind(&folder, &mountpoint).unwrap();
        node.engine.volume_remove("kept", false).await.unwrap();
        let node = node.reopen().await;
        assert!(folder.join("precious").exists());
        node
    });
}

#[test]
fn a_folder_of_a_volume_is_never_the_hosts() {
    on_node(|node| async move {
        let outside = node.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let whole = with(|h| h.binds = vec!["vol:/v".into()]);
        let script =
            format!("mkdir -p /v/real && echo in > /v/real/file && ln -s {} /v/link", outside.display());
        assert_eq!(node.output(sh(&script), whole).await.0, 0);
        let part = |subpath: &str| {
            let volume_options = Some(gantry_model::container::VolumeOptions {
                subpath: subpath.into(),
                ..Default::default()
            });
            let mount = Mount {
                r#type: "volume".into(),
                source: "vol".into(),
                target: "/p".into(),
                volume_options,
                ..Mount::default()
            };
            with(|h| h.mounts = vec![mount])
        };
        assert_eq!(node.output(sh("cat /p/file"), part("real")).await.1, "in\n");
        assert_eq!(node.output(sh("cat /p"), part("real/file")).await.1, "in\n");
        let id = node.create("linked", sh("true"), part("link")).await;
        let reason = refused(node.engine.start(&id).await).1;
        assert!(reason.contains("link"), "{reason}");
        assert!(node.engine.archive_stat(&id, "/p/").await.is_err(), "nor by a copy");
        node
    });
}

#[test]
fn a_user_of_the_host_reaches_nothing_of_containers_and_images() {
    on_node(|node| async move {
        let mut config = sh("id -u; ls /");
        config.user = "1000:1000".into();
        // The folders' modes do not matter inside.
        assert_eq!(node.output(config, no_network()).await.0, 0);
        for name in ["data", "images", "run/c", "run/x", "run/f"] {
            let mode = std::fs::metadata(node.path().join(name)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
        node
    });
}

#[test]
fn binds_and_memory_are_mounted_as_asked() {
    on_node(|node| async move {
        let source = node.path().join("host-dir");
        let host = with(|h| {
            h.binds = vec![format!("{}:/host", source.display())];
            h.tmpfs = BTreeMap::from([("/scratch".to_owned(), "size=64k".to_owned())]);
            h.mounts = vec![Mount {
                r#type: "tmpfs".into(),
                target: "/mem".into(),
                tmpfs_options: Some(TmpfsOptions { size_bytes: 65536, mode: 0o1700 }),
                ..Mount::default()
            }];
            h.readonly_rootfs = true;
            h.shm_size = 1 << 20;
        });
        let script = "echo a > /host/made && echo b > /scratch/x && stat -c %a /mem; echo c > /nope; mount | grep -c tmpfs.*size=64k; mount | grep shm";
        let (_, out, err) = node.output(sh(script), host).await;
        assert!(out.starts_with("1700\n2\n") && out.contains("size=1024k"), "{out} {err}");
        assert!(err.contains("Read-only"), "{err}");
        assert_eq!(std::fs::read_to_string(source.join("made")).unwrap(), "a\n");
        let missing = with(|h| {
            let m = Mount {
                r#type: "bind".into(),
                source: "/no/where".into(),
                target: "/x".into(),
                ..Mount::default()
            };
            h.mounts = vec![m];
        });
        let request = CreateRequest { config: sh("true"), host: missing, ..CreateRequest::default() };
        let text = refused(node.engine.create(request).await).1;
        assert_eq!(
            text,
            "invalid mount config for type \"bind\": bind source path does not exist: /no/where"
        );
        node
    });
}

#[test]
fn privileges_are_those_asked_for() {
    on_node(|node| async move {
        let caps = "grep -i -e capbnd -e nonewprivs -e seccomp: /proc/self/status";
        let (_, out, _) = node.output(sh(caps), no_network()).await;
        assert!(
            out.contains("00000000a80425fb") && out.contains("NoNewPrivs:\t0") && out.contains("Seccomp:\t2"),
            "{out}"
        );
        let host = with(|h| {
            h.cap_drop = vec!["ALL".into()];
            h.cap_add = vec!["kill".into()];
            h.security_opt = vec!["no-new-privileges".into(), "seccomp=unconfined".into()];
            h.resources.ulimits = vec![Ulimit { name: "nofile".into(), soft: 77, hard: 88 }];
            h.sysctls = BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned())]);
        });
        let (_, out, err) = node
            .output(
                sh(&format!("{caps}; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")),
                host,
            )
            .await;
        assert!(
            out.contains("0000000000000020") && out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t0"),
            "{out}"
        );
        assert!(out.ends_with("77\n7\n"), "{out} {err}");
        let (_, out, _) = node
            .output(
                sh("ls /dev/mem /dev/kmsg 2>&1; mount -t tmpfs x /tmp && echo mounted"),
                with(|h| h.privileged = true),
            )
            .await;
        assert!(out.contains("/dev/kmsg") && out.ends_with("mounted\n"), "{out}");
        let (code, _, _) = node.output(sh("mount -t tmpfs x /tmp"), no_network()).await;
        assert_ne!(code, 0);
        node
    });
}

#[test]
fn namespaces_can_be_shared() {
    on_node(|node| async move {
        let id =
            node.run("other", command(&["sleep", "1000"]), with(|h| h.ipc_mode = "shareable".into())).await;
        node.exec(&id, "echo shared > /dev/shm/file").await;
        let host = with(|h| {
            h.pid_mode = "container:other".into();
            h.ipc_mode = "container:other".into();
            h.network_mode = "container:other".into();
        });
        let (_, out, err) = node.output(sh("ps | grep -c '[s]leep 1000'; cat /dev/shm/file"), host).await;
        assert_eq!(out, "1\nshared\n", "{err}");
        let (code, _, err) = node.output(sh("true"), with(|h| h.ipc_mode = "host".into())).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let (_, out, _) = node.output(sh("hostname"), with(|h| h.uts_mode = "host".into())).await;
        assert_eq!(out.trim(), rustix::system::uname().nodename().to_str().unwrap());
        node
    });
}

async fn tar_of(mut reader: ArchiveReader) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        let _ = entry.read_to_string(&mut text);
        (entry.path().unwrap().to_string_lossy().into_owned(), text)
    });
    entries.collect()
}

fn tarball(entries: &[(&str, &str)]) -> ArchiveReader {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(1000);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    Box::new(std::io::Cursor::new(tar.into_inner().unwrap()))
}

#[test]
fn files_are_copied_in_and_out_running_and_stopped() {
    on_node(|node| async move {
        let host = with(|h| h.binds = vec!["cp:/vol".into()]);
        let id = node.create("cp", command(&["sleep", "1000"]), host).await;
        for round in ["stopped", "running"] {
            if round == "running" {
                node.engine.start(&id).await.unwrap();
            }
            node.engine.archive_put(&id, "/tmp", tarball(&[("dir/file", round)]), true, false).await.unwrap();
            node.engine.archive_put(&id, "/vol", tarball(&[("file", round)]), true, true).await.unwrap();
            let (stat, reader) = node.engine.archive_get(&id, "/tmp/dir").await.unwrap();
            assert_eq!((stat.name.as_str(), stat.mode >> 31), ("dir", 1));
            assert_eq!(
                tar_of(reader).await,
                [("dir/".into(), String::new()), ("dir/file".into(), round.to_owned())]
            );
            let (_, reader) = node.engine.archive_get(&id, "/vol/file").await.unwrap();
            assert_eq!(tar_of(reader).await, [("file".into(), round.to_owned())]);
            let text = refused(node.engine.archive_stat(&id, "/none").await).1;
            assert_eq!(text, format!("Could not find the file /none in container {id}"));
            let over = node.engine.archive_put(&id, "/tmp", tarball(&[("dir", "file")]), true, false).await;
            assert_eq!(refused(over).0, ErrorKind::InvalidParameter);
        }
        assert_eq!(
            node.exec(&id, "cat /tmp/dir/file /vol/file; stat -c %u /tmp/dir/file /vol/file").await.1,
            "runningrunning0\n1000\n"
        );
        // A link that leads out of the container leads nowhere.
        std::fs::write(node.path().join("secret"), "outside").unwrap();
        let secret = node.path().join("secret");
        node.exec(
            &id,
            &format!("mkdir -p /a; ln -s {} /a/link; ln -s ../../../../../.. /a/up", secret.display()),
        )
        .await;
        node.exec(&id, &format!("busybox ln -s {} /tmp/link", secret.display())).await;
        let follow = node.engine.archive_get(&id, "/tmp/link/").await;
        assert!(follow.is_err());
        let before = node.engine.changes(&id).await.unwrap();
        assert!(
            before.iter().any(|c| c.path == "/tmp/dir/file" && c.kind == ChangeKind::Added),
            "{before:?}"
        );
        let whole = tar_of(node.engine.export(&id).await.unwrap()).await;
        assert!(whole.iter().any(|(name, _)| name == "bin/busybox"));
        assert!(whole.iter().any(|(name, text)| name == "tmp/dir/file" && text == "running"));
        let size = node.engine.size(&id).await.unwrap();
        assert!(size.rw > 0 && size.root_fs > size.rw, "{size:?}");
        node
    });
}

#[test]
fn a_commit_is_an_image_with_the_changes() {
    on_node(|node| async move {
        let id = node.run("base", sh("echo committed > /new; rm /etc/group; sleep 1000"), no_network()).await;
        while node.exec(&id, "test -e /new && ! test -e /etc/group").await.0 != 0 {}
        let request = CommitRequest {
            reference: Some("gty-made:1".into()),
            pause: true,
            changes: vec!["CMD [\"cat\", \"/new\"]".into(), "ENV X=y".into()],
            ..CommitRequest::default()
        };
        let image = node.engine.commit(&id, request).await.unwrap();
        assert!(image.starts_with("sha256:"));
        let config =
            gantry_model::container::ContainerConfig { image: "gty-made:1".into(), ..Default::default() };
        assert_eq!(node.output(config, no_network()).await.1, "committed\n");
        let mut config = sh("test -e /etc/group || echo $X gone");
        config.image = image;
        assert_eq!(node.output(config, no_network()).await.1, "y gone\n");
        node
    });
}

#[test]
fn files_in_memory_are_there_and_nowhere_else() {
    on_node(|node| async move {
        let secret = InjectedFile {
            path: "/run/secrets/key".into(),
            data: b"s3cret".to_vec(),
            uid: 1000,
            gid: 0,
            mode: 0o400,
        };
        let mut config = sh("cat /run/secrets/key; stat -c ' %a %u' /run/secrets/key");
        config.user = "alice".into();
        let request =
            CreateRequest { config, host: no_network(), files: vec![secret], ..CreateRequest::default() };
        let id: String = node.engine.create(request).await.unwrap().id.into();
        node.engine.start(&id).await.unwrap();
        node.ended(&id).await;
        assert_eq!(node.log(&id).await, "s3cret 400 1000\n");
        node.engine.remove(&id, RemoveOptions::default()).await.unwrap();
        assert_eq!(std::fs::read_dir(node.path().join("run/f")).unwrap().count(), 0);
        node
    });
}
