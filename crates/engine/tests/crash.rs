//! A process that uses the engine is killed at random moments; the next one finds a consistent node. Needs root.

mod harness;

use gantry_engine::{CreateRequest, RemoveOptions, StopTimeout};
use gantry_model::container::{ContainerStatus, HostConfig};
use harness::{Node, in_namespaces, make_image, no_network, on_runtime, sh, within};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Names the folder of the node, for the process that is killed.
const FOLDER: &str = "GTY_CRASH_FOLDER";
const ROUNDS: u32 = 12;

#[test]
fn whatever_kill_9_leaves_is_put_in_order() {
    in_namespaces(|folder| {
        make_image(&gantry_images::Store::open(folder.path().join("images")).unwrap(), folder.path());
        let mut folder = folder;
        for round in 0..ROUNDS {
            kill_a_busy_process(folder.path(), round);
            let (give, take) = std::sync::mpsc::channel();
            on_runtime(async move {
                let node = Node::open(folder).await;
                check(&node, round).await;
                give.send(node.close().await).unwrap();
            });
            folder = take.recv().unwrap();
        }
    });
}

/// Runs the other test of this file in a process of its own, and kills that after a while that grows with the rounds.
fn kill_a_busy_process(folder: &Path, round: u32) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "busy_until_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // Its first line after the test runner's says that the node is open.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(process.stdout.take().unwrap()));
    while !lines.next().unwrap().unwrap().contains("open") {}
    std::thread::sleep(Duration::from_millis(u64::from(20 + round * 37 % 300)));
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Makes, starts, stops and removes containers until it is killed.
#[test]
#[ignore = "run by the other test, in a process that is killed"]
fn busy_until_killed() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("run by the other test"));
    on_runtime(async move {
        let opening = folder.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let images = gantry_images::Store::open(opening.join("images")).unwrap();
            (images, harness::open_networks(&opening))
        });
        let (images, networks) = opened.await.unwrap();
        let cgroup = folder.file_name().unwrap().to_string_lossy().into_owned();
        let engine = harness::open_engine(&folder, &harness::monitor(), &cgroup, &images, &networks).await;
        println!("open");
        let workers = (0..3).map(|worker| {
            let engine = engine.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let host = if n % 2 == 0 { no_network() } else { HostConfig::default() };
                    let name = Some(format!("busy-{worker}-{n}-{}", std::process::id()));
                    let request =
                        CreateRequest { name, config: sh("sleep 1000"), host, ..CreateRequest::default() };
                    let id: String = engine.create(request).await.unwrap().id.into();
                    engine.start(&id).await.unwrap();
                    match n % 3 {
                        0 => engine.kill(&id, None).await.unwrap(),
                        1 => engine.restart(&id, None, StopTimeout::After(Duration::ZERO)).await.unwrap(),
                        _ => {}
                    }
                    if n % 4 != 3 {
                        let options = RemoveOptions { force: true, volumes: true, link: false };
                        engine.remove(&id, options).await.unwrap();
                    }
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
    });
}

/// Records, processes, file systems and sandboxes agree; every container can be started and removed.
async fn check(node: &Node, round: u32) {
    let list = node.engine.list();
    let ids: BTreeSet<String> = list.iter().map(|c| c.id.to_string()).collect();
    assert_eq!(node.images.rootfs_containers().into_iter().collect::<BTreeSet<_>>(), ids, "round {round}");
    let running: BTreeSet<String> = list
        .iter()
        .filter(|c| c.state.status == ContainerStatus::Running)
        .map(|c| c.id.to_string())
        .collect();
    let (node_cgroup, wanted) = (node.cgroup.clone(), running.clone());
    // A monitor that lost its engine before the start order is still undoing: that takes moments.
    harness::until("processes of running containers only", move || {
        cgroups_with_processes(&node_cgroup) == wanted
    })
    .await;
    let sandboxes: BTreeSet<String> = node.networks.sandboxes().into_iter().collect();
    assert_eq!(sandboxes, running, "round {round}");
    for container in &list {
        assert!(
            matches!(
                container.state.status,
                ContainerStatus::Created | ContainerStatus::Running | ContainerStatus::Exited
            ),
            "round {round}: {:?}",
            container.state
        );
        let id = container.id.as_str();
        if container.state.status != ContainerStatus::Running {
            within(node.engine.start(id)).await.unwrap_or_else(|e| panic!("round {round}: {}", e.whole()));
        }
        assert_eq!(node.exec(id, "echo alive").await.1, "alive\n", "round {round}");
    }
    node.empty().await;
    assert!(node.engine.list().is_empty(), "round {round}");
    assert!(
        node.images.rootfs_containers().is_empty() && node.networks.sandboxes().is_empty(),
        "round {round}"
    );
    let _ = Arc::strong_count(&node.images);
}

/// Ids of the containers that have processes in their cgroup.
fn cgroups_with_processes(parent: &str) -> BTreeSet<String> {
    let hierarchies = gantry_linux::cgroup::Hierarchies::detect().unwrap();
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies.iter() {
        let Ok(entries) = std::fs::read_dir(hierarchy.mount.join(parent)) else { continue };
        for entry in entries.flatten().filter(|e| e.path().is_dir()) {
            let processes = std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
            if !processes.is_empty() {
                found.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found
}
