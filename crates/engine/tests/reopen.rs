//! The engine dies and another one takes over. All tests here need root.

mod harness;

use futures_util::StreamExt;
use gantry_engine::*;
use gantry_model::container::{ContainerStatus, RestartPolicy};
use harness::{Node, command, no_network, on_node, sh, until, within};
use std::time::Duration;

fn pid(node: &Node, id: &str) -> i32 {
    node.engine.get(id).unwrap().state.pid
}

#[test]
fn running_containers_are_found_again_with_their_logs_and_exit_codes() {
    on_node(|node| async move {
        let host = gantry_model::container::HostConfig::default();
        let id =
            node.run("web", sh("while ! test -e /tmp/go; do sleep 0.02; done; echo bye; exit 5"), host).await;
        let before = node.engine.get(&id).unwrap();
        let spec = ExecSpec {
            cmd: vec![
                "sh".into(),
                "-c".into(),
                "while ! test -e /tmp/first; do sleep 0.02; done; exit 6".into(),
            ],
            ..ExecSpec::default()
        };
        let exec = node.engine.exec_create(&id, spec).await.unwrap();
        node.engine.exec_start(&exec, ExecStart::Detached).await.unwrap();
        let node = node.reopen().await;
        let after = node.engine.get(&id).unwrap();
        assert_eq!((after.state.status, after.state.pid), (ContainerStatus::Running, before.state.pid));
        assert_eq!(after.network.networks["bridge"].ip_address, before.network.networks["bridge"].ip_address);
        assert_eq!(after.state.started_at, before.state.started_at);
        assert!(node.engine.exec_get(&exec).unwrap().running);
        assert_eq!(node.exec(&id, "echo still; touch /tmp/first").await.1, "still\n");
        assert_eq!(within(node.engine.exec_wait(&exec)).await.unwrap(), 6);
        node.exec(&id, "touch /tmp/go").await;
        assert_eq!(node.ended(&id).await.code, 5);
        assert_eq!(node.log(&id).await, "bye\n");
        node
    });
}

#[test]
fn an_end_while_no_engine_ran_is_recorded() {
    on_node(|node| async move {
        let id = node.run("short", sh("sleep 0.3; exit 8"), no_network()).await;
        let mut host = no_network();
        host.auto_remove = true;
        node.run("leaving", sh("sleep 0.3"), host).await;
        let mut host = no_network();
        host.restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
        let again = node.run("again", sh("sleep 0.3"), host).await;
        node.engine.close().await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        let node = node.reopen().await;
        let state = node.engine.get(&id).unwrap().state;
        assert_eq!((state.status, state.exit_code), (ContainerStatus::Exited, 8));
        assert!(node.engine.get("leaving").is_err());
        until("a restart", || node.engine.get(&again).unwrap().restart_count > 0).await;
        node
    });
}

#[test]
fn a_killed_monitor_takes_its_container_along_and_says_so() {
    on_node(|node| async move {
        let id = node.run("orphan", command(&["sleep", "1000"]), no_network()).await;
        let process = pid(&node, &id);
        kill_monitor(process);
        assert_eq!(node.ended(&id).await.code, 137);
        let state = node.engine.get(&id).unwrap().state;
        assert!(state.error.contains("monitor died"), "{}", state.error);
        until("the process to go", || !std::path::Path::new(&format!("/proc/{process}")).exists()).await;
        // The same while no engine runs.
        node.engine.start(&id).await.unwrap();
        let process = pid(&node, &id);
        node.engine.close().await;
        kill_monitor(process);
        let node = node.reopen().await;
        let state = node.engine.get(&id).unwrap().state;
        assert_eq!((state.status, state.exit_code), (ContainerStatus::Exited, 137));
        assert!(state.error.contains("monitor was killed"), "{}", state.error);
        node.engine.start(&id).await.unwrap();
        node
    });
}

/// Kills the parent of a container's first process.
fn kill_monitor(process: i32) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let parent: i32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert_ne!(parent, i32::try_from(std::process::id()).unwrap(), "{comm}");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(parent).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[test]
fn a_machine_that_went_down_is_noticed() {
    on_node(|node| async move {
        let id = node.run("lost", command(&["sleep", "1000"]), no_network()).await;
        let mut host = no_network();
        host.restart_policy = RestartPolicy { name: "unless-stopped".into(), maximum_retry_count: 0 };
        let kept = node.run("kept", command(&["sleep", "1000"]), host.clone()).await;
        let stopped = node.run("stopped", command(&["sleep", "1000"]), host).await;
        node.engine.stop(&stopped, None, StopTimeout::After(Duration::ZERO)).await.unwrap();
        let pids = [pid(&node, &id), pid(&node, &kept)];
        node.engine.close().await;
        for process in pids {
            kill_monitor(process);
            let process = rustix::process::Pid::from_raw(process).unwrap();
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        std::fs::remove_dir_all(node.path().join("run/c")).unwrap();
        std::fs::remove_dir_all(node.path().join("run/runtime")).unwrap();
        let node = node.reopen().await;
        assert_eq!(node.engine.get(&id).unwrap().state.exit_code, 255);
        assert_eq!(node.engine.get(&stopped).unwrap().state.status, ContainerStatus::Exited);
        until("the start by policy", || {
            node.engine.get(&kept).unwrap().state.status == ContainerStatus::Running
        })
        .await;
        node
    });
}

#[test]
fn halves_of_containers_are_swept() {
    on_node(|node| async move {
        let id = node.create("whole", sh("true"), no_network()).await;
        let stray = "ab".repeat(32);
        std::fs::create_dir(node.path().join("data/containers").join(&stray)).unwrap();
        std::fs::create_dir(node.path().join("run/c").join(&stray[..32])).unwrap();
        let image = node.images.resolve(harness::IMAGE).unwrap();
        node.images.prepare_rootfs(&stray, &image).unwrap();
        let node = node.reopen().await;
        assert!(!node.path().join("data/containers").join(&stray).exists());
        assert!(!node.path().join("run/c").join(&stray[..32]).exists());
        assert_eq!(node.images.rootfs_containers(), [id]);
        node
    });
}

#[test]
fn paused_containers_stay_paused_and_follow_works_after() {
    on_node(|node| async move {
        let id = node.run("frozen", sh("while true; do echo tick; sleep 0.05; done"), no_network()).await;
        node.engine.pause(&id).await.unwrap();
        let node = node.reopen().await;
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Paused);
        node.engine.unpause(&id).await.unwrap();
        let options = LogOptions { stdout: true, follow: true, tail: Some(0), ..LogOptions::default() };
        let lines = node.engine.logs(&id, options).await.unwrap();
        assert_eq!(within(lines.take(2).count()).await, 2);
        node
    });
}

#[test]
fn starting_stopping_and_removing_at_once_never_leaves_halves() {
    on_node(|node| async move {
        let id = node.create("busy", command(&["sleep", "1000"]), no_network()).await;
        let mut tasks = Vec::new();
        for n in 0..24 {
            let (engine, id) = (node.engine.clone(), id.clone());
            tasks.push(tokio::spawn(async move {
                let done = match n % 4 {
                    0 => engine.start(&id).await,
                    1 => engine.stop(&id, None, StopTimeout::After(Duration::ZERO)).await,
                    2 => engine.restart(&id, None, StopTimeout::After(Duration::ZERO)).await,
                    _ => engine.kill(&id, None).await,
                };
                if let Err(error) = done {
                    assert_ne!(error.kind(), ErrorKind::System, "{}", error.whole());
                }
            }));
        }
        for task in tasks {
            within(task).await.unwrap();
        }
        node.engine.remove(&id, RemoveOptions { force: true, volumes: true, link: false }).await.unwrap();
        assert!(!node.path().join("data/containers").join(&id).exists());
        assert!(node.images.rootfs_containers().is_empty());
        assert!(node.networks.sandboxes().is_empty());
        node
    });
}
