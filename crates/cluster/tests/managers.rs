//! Clusters of several managers and workers: joining, forwarding, lost leaders and majorities, promotion, removal, recovery.

mod lab;

use futures_util::StreamExt;
use gantry_cluster::{
    AttachRequest, ErrorKind, InitRequest, LocalNodeState, LogOptions, RegistryAuthFrom, Rollback, Rotate,
    Timing,
};
use gantry_model::network::NetworkSpec;
use gantry_model::node::{Availability, NodeRole, NodeState};
use gantry_model::task::TaskState;
use lab::{Machine, service, until};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

async fn three() -> (Machine, Machine, Machine) {
    let one = Machine::init("one").await;
    let two = Machine::manager("two", &one).await;
    let three = Machine::manager("three", &one).await;
    (one, two, three)
}

/// The manager that leads, as another sees it.
async fn leader_seen_by(machine: &Machine) -> Option<gantry_model::id::NodeId> {
    let nodes = machine.cluster.nodes().await.ok()?;
    nodes
        .into_iter()
        .find(|node| node.manager_status.as_ref().is_some_and(|status| status.leader))
        .map(|node| node.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_right_token_lets_a_node_in() {
    let one = Machine::init("one").await;
    let other = Machine::init("other").await;
    let tokens = one.cluster.swarm().await.expect("swarm").join_tokens;
    let stranger = Machine::new("stranger").await;

    let error = stranger.join(&one, "nonsense").await.expect_err("no token");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidArgument, "invalid join token"));
    let foreign = other.cluster.swarm().await.expect("swarm").join_tokens.worker;
    let error = stranger.join(&one, &foreign).await.expect_err("another swarm's token");
    assert!(error.message.starts_with("remote CA does not match fingerprint. Expected:"), "{error}");
    let last = if tokens.worker.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &tokens.worker[..tokens.worker.len() - 1]);
    let error = stranger.join(&one, &wrong).await.expect_err("wrong secret");
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(error.message.contains("A valid join token is necessary to join this cluster"), "{error}");

    let swarm = one.cluster.swarm().await.expect("swarm").cluster;
    let rotate = Rotate { worker_token: true, ..Rotate::default() };
    one.cluster.update_swarm(swarm.version, swarm.spec, rotate).await.expect("rotate");
    let rotated = one.cluster.swarm().await.expect("swarm").join_tokens;
    assert_ne!(rotated.worker, tokens.worker);
    assert_eq!(rotated.manager, tokens.manager);
    stranger.join(&one, &tokens.worker).await.expect_err("an old token");
    stranger.join(&one, &rotated.worker).await.expect("the new token");
    let twice = stranger.join(&one, &rotated.worker).await.expect_err("twice");
    assert_eq!(twice.kind, ErrorKind::AlreadyInSwarm);
    let worker = stranger.cluster.nodes().await.expect_err("a worker is asked");
    assert_eq!(worker.kind, ErrorKind::NotManager);
    let nodes = one.cluster.nodes().await.expect("nodes");
    assert_eq!(nodes.len(), 2, "refused nodes leave nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_answers_and_tasks_spread_over_all_nodes() {
    let (one, two, three) = three().await;
    let worker = Machine::worker("four", &two).await;
    three.cluster.create_service(service("web", "image", 8)).await.expect("create at a follower");
    // Whoever wrote sees it at once.
    three.cluster.service("web").await.expect("inspect");
    two.wait_running("web", 8).await;
    for machine in [&one, &two, &three, &worker] {
        assert_eq!(machine.containers.running().len(), 2, "{} has its share", machine.name);
    }
    let logs = two.cluster.service_logs("web", LogOptions::default()).await.expect("logs");
    let lines: Vec<_> = tokio::time::timeout(LONG, logs.collect()).await.expect("logs end");
    assert_eq!(lines.iter().filter(|line| line.is_ok()).count(), 8);

    let network = NetworkSpec {
        name: "back".into(),
        driver: "overlay".into(),
        attachable: true,
        ..NetworkSpec::default()
    };
    two.cluster.create_network(network).await.expect("network");
    let request = AttachRequest {
        network: "back".into(),
        container_id: "c".into(),
        names: vec!["n".into()],
        ..Default::default()
    };
    let place = worker.cluster.attach_network(request).await.expect("attach on a worker");
    assert!(place.addresses[0].ends_with("/24"), "{place:?}");

    let worker_id = worker.id();
    let node = three.cluster.node(worker_id.as_str()).await.expect("node");
    let mut spec = node.spec.clone();
    spec.availability = Availability::Drain;
    three.cluster.update_node(worker_id.as_str(), node.version, spec).await.expect("drain");
    until("the drained node is empty", LONG, || async { worker.containers.running().is_empty() }).await;
    one.wait_running("web", 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_costs_less_than_five_seconds() {
    let (one, two, three) = three().await;
    one.cluster.create_service(service("web", "image", 6)).await.expect("create");
    two.wait_running("web", 6).await;
    let lost = Instant::now();
    one.stop().await;
    until("writes go on", Duration::from_secs(5), || async {
        two.cluster.create_service(service("after", "image", 1)).await.is_ok()
    })
    .await;
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    until("the lost node is down", LONG, || async {
        three.cluster.node(one.id().as_str()).await.expect("node").status.state == NodeState::Down
    })
    .await;
    until("its tasks run elsewhere", LONG, || async {
        two.containers.running().len() + three.containers.running().len() == 7
    })
    .await;
    until("the lost manager shows as unreachable", LONG, || async {
        let node = three.cluster.node(one.id().as_str()).await.expect("node");
        node.manager_status.is_some_and(|status| status.reachability == "unreachable" && !status.leader)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_reads_go_on_and_writes_fail_at_once() {
    let (one, mut two, mut three) = three().await;
    one.cluster.create_service(service("web", "image", 3)).await.expect("create");
    one.wait_running("web", 3).await;
    two.stop().await;
    three.stop().await;
    until("the majority is missed", LONG, || async { leader_seen_by(&one).await.is_none() }).await;
    let asked = Instant::now();
    let error = one.cluster.create_service(service("more", "image", 1)).await.expect_err("no majority");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(error.kind, ErrorKind::Unavailable);
    // By now no election can be under way any more.
    let asked = Instant::now();
    one.cluster.create_service(service("more", "image", 1)).await.expect_err("no majority");
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    assert!(error.message.contains("The swarm does not have a leader."), "{error}");
    assert_eq!(one.cluster.services().await.expect("reads").len(), 1);
    assert_eq!(one.cluster.nodes().await.expect("reads").len(), 3);
    assert!(!one.containers.running().is_empty());

    two.start().await;
    three.start().await;
    until("writes go on", LONG, || async {
        one.cluster.create_service(service("more", "image", 1)).await.is_ok()
    })
    .await;
    three.wait_running("more", 1).await;
    one.wait_running("web", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_the_election_and_a_follower_forgets_a_leader_that_is_gone() {
    let (one, two, three) = three().await;
    one.stop().await;
    two.cluster.create_service(service("web", "image", 1)).await.expect("written by the next leader");
    let leader = leader_seen_by(&two).await.expect("a leader");
    let (leader, follower) = if leader == two.id() { (&two, &three) } else { (&three, &two) };
    leader.stop().await;
    until("the last one sees no leader", Duration::from_secs(5), || async {
        leader_seen_by(follower).await.is_none()
    })
    .await;
    let lost = Instant::now();
    follower.cluster.create_service(service("more", "image", 1)).await.expect_err("no majority");
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_log_is_empty_begins_anew() {
    let (one, two, mut three) = three().await;
    one.cluster.create_service(service("web", "image", 3)).await.expect("create");
    one.wait_running("web", 3).await;
    let id = three.id();
    three.stop().await;
    let log = three.folder.path().join("raft/log.redb");
    // Another file of that name: the thread that wrote the old one may still hold it.
    std::fs::remove_file(&log).and_then(|()| std::fs::write(&log, b"")).expect("empty the log");
    three.start().await;
    until("it knows the service again", LONG, || async { three.cluster.service("web").await.is_ok() }).await;
    assert_eq!(three.id(), id);
    // It counts as a member again: the others may lose one.
    until("all managers are reachable", LONG, || async {
        let nodes = two.cluster.nodes().await.unwrap_or_default();
        nodes.iter().all(|n| n.manager_status.as_ref().is_some_and(|s| s.reachability == "reachable"))
    })
    .await;
    one.stop().await;
    until("writes go on", Duration::from_secs(10), || async {
        three.cluster.create_service(service("after", "image", 1)).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_removed_meanwhile_is_told() {
    let (one, _two, mut three) = three().await;
    let id = three.id();
    three.stop().await;
    until("it is down", LONG, || async {
        one.cluster.node(id.as_str()).await.is_ok_and(|node| node.status.state == NodeState::Down)
    })
    .await;
    set_role(&one, &three, NodeRole::Worker).await.expect("demote");
    until("it is out of Raft and removed", LONG, || async {
        one.cluster.remove_node(id.as_str(), true).await.is_ok()
    })
    .await;
    three.start().await;
    until("it says that it is not let in", LONG, || async {
        let info = three.cluster.info();
        info.local_node_state == LocalNodeState::Error && info.error.contains("Permission denied")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_settings_are_named_and_the_node_can_leave() {
    let mut one = Machine::init("one").await;
    one.stop().await;
    let settings = one.folder.path().join("node.json");
    let good = std::fs::read(&settings).expect("settings");
    std::fs::write(&settings, b"{").expect("damage");
    one.start().await;
    let info = one.cluster.info();
    assert_eq!(info.local_node_state, LocalNodeState::Error);
    for word in ["node.json", "EOF", "docker swarm leave --force"] {
        assert!(info.error.contains(word), "{word} is not in {:?}", info.error);
    }
    // Restored, it goes on by itself.
    std::fs::write(&settings, good).expect("restore");
    until("the node is back", LONG, || async { one.cluster.nodes().await.is_ok() }).await;
    one.stop().await;
    std::fs::write(&settings, b"{").expect("damage");
    one.start().await;
    one.cluster.leave(true).await.expect("leave");
    assert_eq!(one.cluster.info().local_node_state, LocalNodeState::Inactive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_back_within_its_grace_keeps_its_tasks() {
    let one = Machine::init("one").await;
    let mut worker = Machine::worker("two", &one).await;
    one.cluster.create_service(service("web", "image", 4)).await.expect("create");
    let before = one.wait_running("web", 4).await;
    worker.stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    worker.start().await;
    until("the worker is heard", LONG, || async { worker.cluster.info().error.is_empty() }).await;
    let after = one.wait_running("web", 4).await;
    let kept = after.iter().filter(|task| before.iter().any(|old| old.id == task.id)).count();
    assert_eq!(kept, 4);
    assert_eq!(worker.containers.starts(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_without_managers_even_through_a_restart() {
    let mut one = Machine::init("one").await;
    let mut worker = Machine::worker("two", &one).await;
    one.cluster.create_service(service("web", "image", 4)).await.expect("create");
    one.wait_running("web", 4).await;
    one.stop().await;
    worker.stop().await;
    worker.start().await;
    assert_eq!(worker.containers.running().len(), 2);
    let ended = worker.containers.running()[0].clone();
    worker.containers.exit(&ended, 1);
    one.start().await;
    until("what happened meanwhile is known", LONG, || async {
        one.tasks("web", TaskState::Failed).await.iter().any(|task| task.id == ended)
    })
    .await;
    one.wait_running("web", 4).await;
}

async fn set_role(by: &Machine, node: &Machine, role: NodeRole) -> Result<(), gantry_cluster::Error> {
    let object = by.cluster.node(node.id().as_str()).await?;
    let mut spec = object.spec.clone();
    spec.role = role;
    by.cluster.update_node(node.id().as_str(), object.version, spec).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_promoted_and_demoted_and_the_last_manager_stays() {
    let one = Machine::init("one").await;
    let last = set_role(&one, &one, NodeRole::Worker).await.expect_err("the last manager");
    assert_eq!(last.message, "attempting to demote the last manager of the swarm");
    let two = Machine::worker("two", &one).await;
    set_role(&one, &two, NodeRole::Manager).await.expect("promote");
    until("the promoted node answers", LONG, || async {
        two.cluster.nodes().await.is_ok_and(|nodes| nodes.len() == 2)
    })
    .await;
    until("it is reachable", LONG, || async {
        let node = one.cluster.node(two.id().as_str()).await.expect("node");
        node.manager_status.is_some_and(|status| status.reachability == "reachable")
    })
    .await;
    two.cluster.create_service(service("web", "image", 2)).await.expect("create at the new manager");
    one.wait_running("web", 2).await;

    // The leader itself: it hands over first.
    set_role(&two, &one, NodeRole::Worker).await.expect("demote the leader");
    until("the other leads alone", LONG, || async {
        leader_seen_by(&two).await == Some(two.id()) && two.cluster.info().remote_managers.len() == 1
    })
    .await;
    until("the demoted node is a worker", LONG, || async {
        one.cluster.nodes().await.is_err_and(|error| error.kind == ErrorKind::NotManager)
    })
    .await;
    until("a worker keeps no log", LONG, || async { !one.folder.path().join("raft").exists() }).await;
    let web = two.cluster.service("web").await.expect("inspect");
    let scaled = two.cluster.update_service(
        "web",
        web.version,
        service("web", "image", 4),
        RegistryAuthFrom::Spec,
        Rollback::No,
    );
    scaled.await.expect("scale");
    two.wait_running("web", 4).await;
    assert_eq!(one.containers.running().len(), 2, "tasks of the demoted node run on");

    // The same node a second time: as a member of Raft it begins anew.
    set_role(&two, &one, NodeRole::Manager).await.expect("promote again");
    until("it answers again", LONG, || async {
        one.cluster.nodes().await.is_ok_and(|nodes| nodes.len() == 2)
    })
    .await;
    until("both are members", LONG, || async { one.cluster.info().remote_managers.len() == 2 }).await;
    until("demoted again", LONG, || async { set_role(&two, &one, NodeRole::Worker).await.is_ok() }).await;
    until("the demoted node is a worker again", LONG, || async {
        one.cluster.nodes().await.is_err_and(|error| error.kind == ErrorKind::NotManager)
    })
    .await;

    let member = two.cluster.remove_node(two.id().as_str(), true).await.expect_err("a manager");
    assert_eq!(member.kind, ErrorKind::FailedPrecondition);
    let busy = two.cluster.remove_node(one.id().as_str(), false).await.expect_err("not down");
    assert!(busy.message.contains("is not down and can't be removed"), "{busy}");
    let id = one.id();
    one.cluster.leave(false).await.expect("a worker leaves");
    until("it is down", LONG, || async {
        two.cluster.node(id.as_str()).await.is_ok_and(|node| node.status.state == NodeState::Down)
    })
    .await;
    two.cluster.remove_node(id.as_str(), false).await.expect("remove");
    two.wait_running("web", 4).await;
    assert!(one.containers.all.lock().unwrap().is_empty(), "a node that left keeps no tasks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_leaves_only_when_forced_and_the_majority_stays() {
    let (one, two, three) = three().await;
    let refused = one.cluster.leave(false).await.expect_err("a manager");
    assert!(
        refused.message.starts_with(
            "You are attempting to leave the swarm on a node that is participating as a manager."
        )
    );
    one.cluster.leave(true).await.expect("forced");
    until("two managers remain", LONG, || async { two.cluster.info().remote_managers.len() == 2 }).await;
    two.cluster.create_service(service("web", "image", 2)).await.expect("create");
    three.wait_running("web", 2).await;
    // The node is free: it can join again, as another node.
    let token = three.cluster.swarm().await.expect("swarm").join_tokens.manager;
    one.join(&three, &token).await.expect("join again");
    assert_eq!(one.cluster.nodes().await.expect("nodes").len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_majority_is_recovered_by_force_with_all_state() {
    let (one, two, three) = three().await;
    three.cluster.create_service(service("web", "image", 3)).await.expect("create");
    one.wait_running("web", 3).await;
    two.stop().await;
    three.stop().await;
    let id = one.id();
    let request = InitRequest { force_new_cluster: true, ..InitRequest::default() };
    assert_eq!(one.cluster.init(request).await.expect("recover"), id);
    assert_eq!(one.cluster.service("web").await.expect("kept").spec.name, "web");
    one.cluster.create_service(service("more", "image", 1)).await.expect("write");
    one.wait_running("more", 1).await;
    one.wait_running("web", 3).await;
    let next = Machine::manager("next", &one).await;
    assert_eq!(next.cluster.service("web").await.expect("there too").spec.name, "web");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_manager_catches_up_from_a_snapshot() {
    let timing = Timing { snapshot_every: 20, ..Timing::fast() };
    let mut one = Machine::with("one", timing).await;
    one.found().await;
    for number in 0..30 {
        one.cluster.create_service(service(&format!("s{number}"), "image", 1)).await.expect("create");
    }
    one.wait_running("s29", 1).await;
    until("a snapshot is made", LONG, || async { one.folder.path().join("raft/snapshot.json.zst").exists() })
        .await;
    let two = Machine::manager("two", &one).await;
    assert_eq!(two.cluster.services().await.expect("services").len(), 30);
    one.stop().await;
    one.start().await;
    until("the restarted manager has all", LONG, || async {
        one.cluster.services().await.is_ok_and(|services| services.len() == 30)
    })
    .await;
    one.wait_running("s0", 1).await;
}
