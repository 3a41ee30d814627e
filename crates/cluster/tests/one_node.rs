//! A cluster of one node: services, logs, networks, restart, renewal.

mod lab;

use futures_util::StreamExt;
use gantry_cluster::{
    AttachRequest, ErrorKind, InitRequest, LocalNodeState, LogOptions, RegistryAuthFrom, Rollback, Timing,
};
use gantry_model::network::NetworkSpec;
use gantry_model::secret::DataSpec;
use gantry_model::service::{FileTarget, SecretReference, TaskRestartPolicy};
use gantry_model::task::TaskState;
use lab::{Machine, service, until};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_a_swarm_every_question_has_dockers_answer() {
    let machine = Machine::new("one").await;
    assert_eq!(machine.cluster.info().local_node_state, LocalNodeState::Inactive);
    let error = machine.cluster.services().await.expect_err("outside");
    assert_eq!(error.kind, ErrorKind::NotInSwarm);
    assert!(
        error.message.starts_with("This node is not a swarm manager. Use \"docker swarm init\""),
        "{error}"
    );
    let error = machine.cluster.leave(false).await.expect_err("outside");
    assert_eq!(error.message, "This node is not part of a swarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_runs_is_scaled_logs_and_is_removed() {
    let machine = Machine::init("one").await;
    let again = machine.cluster.init(InitRequest::default()).await.expect_err("twice");
    assert_eq!(again.kind, ErrorKind::AlreadyInSwarm);
    let info = machine.cluster.info();
    assert!(info.control_available && info.nodes == 1 && info.managers == 1, "{info:?}");

    machine.cluster.create_service(service("web", "image", 2)).await.expect("create");
    let duplicate = machine.cluster.create_service(service("web", "image", 2)).await.expect_err("duplicate");
    assert_eq!(duplicate.message, "name conflicts with an existing object: service web already exists");
    assert_eq!(duplicate.kind, ErrorKind::AlreadyExists);
    let tasks = machine.wait_running("web", 2).await;
    assert!(
        tasks.iter().all(|task| task.status.container_status.as_ref().is_some_and(|c| c.pid == 1)),
        "{tasks:?}"
    );

    let logs = machine.cluster.service_logs("web", LogOptions::default()).await.expect("logs");
    let lines: Vec<_> = tokio::time::timeout(LONG, logs.collect()).await.expect("logs end");
    assert_eq!(lines.len(), 2, "{lines:?}");

    let current = machine.cluster.service("web").await.expect("inspect");
    let stale = gantry_model::service::Version { index: current.spec_since.index - 1 };
    let refused = machine
        .cluster
        .update_service("web", stale, current.spec.clone(), RegistryAuthFrom::Spec, Rollback::No)
        .await;
    assert_eq!(refused.expect_err("stale").kind, ErrorKind::OutOfSequence);
    let spec = service("web", "image", 4);
    machine
        .cluster
        .update_service("web", current.version, spec, RegistryAuthFrom::Spec, Rollback::No)
        .await
        .expect("scale");
    machine.wait_running("web", 4).await;

    machine.cluster.remove_service("web").await.expect("remove");
    until("all containers are gone", LONG, || async { machine.containers.all.lock().unwrap().is_empty() })
        .await;
    until("all tasks are gone", LONG, || async { machine.cluster.tasks().await.expect("tasks").is_empty() })
        .await;
    let missing = machine.cluster.service("web").await.expect_err("gone");
    assert_eq!((missing.kind, missing.message.as_str()), (ErrorKind::NotFound, "service web not found"));
    machine.cluster.leave(true).await.expect("leave");
    assert_eq!(machine.cluster.info().local_node_state, LocalNodeState::Inactive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_start_or_fails_says_why_and_is_replaced() {
    let machine = Machine::init("one").await;
    let mut spec = service("bad", "reject-me", 1);
    spec.task_template.restart_policy =
        Some(TaskRestartPolicy { delay: Some(0), max_attempts: Some(1), ..TaskRestartPolicy::default() });
    machine.cluster.create_service(spec).await.expect("create");
    until("a task is rejected", LONG, || async {
        !machine.tasks("bad", TaskState::Rejected).await.is_empty()
    })
    .await;
    let rejected = machine.tasks("bad", TaskState::Rejected).await;
    assert_eq!(rejected[0].status.err, "No such image: reject-me");

    let mut spec = service("job", "exit:3", 1);
    spec.task_template.restart_policy =
        Some(TaskRestartPolicy { delay: Some(0), ..TaskRestartPolicy::default() });
    machine.cluster.create_service(spec).await.expect("create");
    until("tasks fail and are replaced", LONG, || async {
        machine.tasks("job", TaskState::Failed).await.len() > 1
    })
    .await;
    let failed = machine.tasks("job", TaskState::Failed).await;
    assert_eq!(failed[0].status.err, "task: non-zero exit (3)");
    assert_eq!(failed[0].status.container_status.as_ref().map(|c| c.exit_code), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_daemon_finds_its_cluster_and_its_containers() {
    let mut machine = Machine::init("one").await;
    machine.cluster.create_service(service("web", "image", 3)).await.expect("create");
    let before = machine.wait_running("web", 3).await;
    let id = machine.id();
    machine.stop().await;
    assert_eq!(machine.containers.running().len(), 3, "containers live on");
    let ended = machine.containers.running()[0].clone();
    machine.containers.exit(&ended, 7);

    machine.start().await;
    assert_eq!(machine.id(), id);
    until("the end while nobody looked is known", LONG, || async {
        machine.tasks("web", TaskState::Failed).await.iter().any(|task| task.id == ended)
    })
    .await;
    let after = machine.wait_running("web", 3).await;
    let kept = after.iter().filter(|task| before.iter().any(|old| old.id == task.id)).count();
    assert_eq!(kept, 2, "healthy tasks are not replaced");
    assert_eq!(machine.containers.starts(), 4, "no container was started twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_joins_and_leaves_a_cluster_network() {
    let mut machine = Machine::init("one").await;
    let spec = NetworkSpec {
        name: "back".into(),
        driver: "overlay".into(),
        attachable: true,
        ..NetworkSpec::default()
    };
    let network = machine.cluster.create_network(spec).await.expect("create");
    let shown = machine.cluster.network("back").await.expect("inspect");
    assert!(!shown.spec.ipam.config[0].subnet.is_empty(), "{shown:?}");
    let request = AttachRequest {
        network: "back".into(),
        container_id: "c1".into(),
        names: vec!["alpha".into()],
        ..AttachRequest::default()
    };
    let place = machine.cluster.attach_network(request.clone()).await.expect("attach");
    assert_eq!(place.network_id, network);
    assert_eq!(place.addresses.len(), 1);
    let overlay = machine.containers.overlays.lock().unwrap().last().cloned().expect("overlay");
    assert!(overlay.networks.iter().any(|known| known.id == network), "{overlay:?}");
    let again = machine.cluster.attach_network(request.clone()).await.expect("again");
    assert_eq!(again.task, place.task);
    assert_eq!(machine.cluster.attachments().expect("list"), vec![place.clone()]);
    let renamed = AttachRequest { names: vec!["beta".into(), "c1".into()], ..request };
    let moved = machine.cluster.attach_network(renamed.clone()).await.expect("renamed");
    assert_eq!((&moved.task, &moved.addresses), (&place.task, &place.addresses));
    until("all nodes find it by its new names", LONG, || async {
        let overlay = machine.containers.overlays.lock().unwrap().last().cloned().expect("overlay");
        let names = overlay.networks.iter().flat_map(|known| &known.endpoints).map(|e| e.names.clone());
        names.collect::<Vec<_>>() == [renamed.names.clone()]
    })
    .await;
    let place = machine.cluster.attachments().expect("list").remove(0);
    assert_eq!(place.names, renamed.names);
    machine.stop().await;
    machine.start().await;
    assert_eq!(machine.cluster.attachments().expect("after a restart"), vec![place.clone()]);
    until("the node leads again", LONG, || async { machine.cluster.network("back").await.is_ok() }).await;

    let used = machine.cluster.remove_network("back").await.expect_err("in use");
    assert_eq!(used.kind, ErrorKind::FailedPrecondition, "{used}");
    machine.cluster.detach_network(&place.task).await.expect("detach");
    until("the network is free", LONG, || async { machine.cluster.remove_network("back").await.is_ok() })
        .await;
    let missing = machine
        .cluster
        .attach_network(AttachRequest { network: "none".into(), ..AttachRequest::default() })
        .await;
    assert_eq!(missing.expect_err("missing").kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_kept_in_use_and_never_shown() {
    let machine = Machine::init("one").await;
    let data = DataSpec { name: "key".into(), data: "c2VjcmV0".into(), ..DataSpec::default() };
    let id = machine.cluster.create_secret(data).await.expect("create");
    let shown = machine.cluster.secret("key").await.expect("inspect");
    assert_eq!((shown.id.clone(), shown.spec.data.as_str()), (id.clone(), ""));
    let mut spec = service("web", "image", 1);
    if let Some(container) = &mut spec.task_template.container_spec {
        container.secrets = vec![SecretReference {
            secret_id: id.to_string(),
            secret_name: "key".into(),
            file: Some(FileTarget { name: "key".into(), ..FileTarget::default() }),
        }];
    }
    machine.cluster.create_service(spec).await.expect("create");
    machine.wait_running("web", 1).await;
    machine.cluster.remove_secret("key").await.expect_err("in use");
    machine.cluster.remove_service("web").await.expect("remove");
    machine.cluster.remove_secret("key").await.expect("free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_specifications_is_made_small_long_before_it_has_many_entries() {
    let timing = Timing { snapshot_bytes: 256 << 10, ..Timing::fast() };
    let mut machine = Machine::with("one", timing).await;
    machine.found().await;
    let mut spec = service("large", "image", 1);
    spec.labels.insert("text".into(), "x".repeat(100 << 10));
    machine.cluster.create_service(spec.clone()).await.expect("create");
    let snapshot = machine.folder.path().join("raft/snapshot.json.zst");
    for round in 0..4 {
        let current = machine.cluster.service("large").await.expect("inspect");
        spec.labels.insert("round".into(), round.to_string());
        let (from, rollback) = (RegistryAuthFrom::Spec, Rollback::No);
        machine
            .cluster
            .update_service("large", current.version, spec.clone(), from, rollback)
            .await
            .expect("update");
    }
    until("there is a snapshot", LONG, || async { snapshot.exists() }).await;
    machine.stop().await;
    machine.start().await;
    let service = machine.cluster.service("large").await.expect("inspect");
    assert_eq!(service.spec.labels.get("round").map(String::as_str), Some("3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renew_themselves() {
    let timing = Timing { certificate_validity: Some(Duration::from_secs(6)), ..Timing::fast() };
    let machine = Machine::with("one", timing).await;
    machine.found().await;
    let path = machine.folder.path().join("certificates/swarm-node.pem");
    let first = std::fs::read(&path).expect("certificate");
    until("the certificate is another one", LONG, || async {
        std::fs::read(&path).expect("certificate") != first
    })
    .await;
    let worker = Machine::worker("two", &machine).await;
    let path = worker.folder.path().join("certificates/swarm-node.pem");
    let first = std::fs::read(&path).expect("certificate");
    until("the worker's certificate is another one", LONG, || async {
        std::fs::read(&path).expect("certificate") != first
    })
    .await;
    machine.cluster.create_service(service("web", "image", 2)).await.expect("create");
    machine.wait_running("web", 2).await;
}
