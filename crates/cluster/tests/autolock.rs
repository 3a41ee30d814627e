//! Autolock: what a manager has on disk is sealed, and it starts again only with the unlock key.

mod lab;

use gantry_cluster::{ErrorKind, InitRequest, LocalNodeState, Rotate};
use gantry_model::secret::DataSpec;
use gantry_model::service::Version;
use gantry_model::swarm::SwarmSpec;
use gantry_model::task::TaskState;
use lab::{Machine, service, until};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);
/// In the name of a secret and of a service, so that it is in the log, the snapshot and the orders.
const MARK: &str = "nobody-reads-this";

async fn spec(machine: &Machine) -> (Version, SwarmSpec) {
    let swarm = machine.cluster.swarm().await.expect("swarm");
    (swarm.cluster.version, swarm.cluster.spec)
}

async fn autolock(machine: &Machine, on: bool) {
    let (version, mut spec) = spec(machine).await;
    spec.encryption_config.auto_lock_managers = on;
    machine.cluster.update_swarm(version, spec, Rotate::default()).await.expect("update");
}

/// Waits until the node's data key is kept as the cluster wants it.
async fn until_locked(machine: &Machine, locked: bool) {
    let file = machine.folder.path().join("certificates/data-key.json");
    let wanted = format!("\"locked\":{locked}");
    until(&format!("{} says {wanted}", file.display()), LONG, || async {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&wanted))
    })
    .await;
}

fn holds(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(holds(&path, text));
        } else if std::fs::read(&path).expect("file").windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_waits_for_its_key_and_its_containers_live_on() {
    let mut machine = Machine::init("one").await;
    assert_eq!(machine.cluster.unlock_key().await.expect("key"), "", "not without autolock");
    let data = DataSpec { name: MARK.into(), data: "c2VjcmV0".into(), ..DataSpec::default() };
    machine.cluster.create_secret(data).await.expect("secret");
    machine.cluster.create_service(service(MARK, "image", 2)).await.expect("service");
    let before = machine.wait_running(MARK, 2).await;
    autolock(&machine, true).await;
    let key = machine.cluster.unlock_key().await.expect("key");
    assert!(key.starts_with("SWMKEY-1-"), "{key}");
    until_locked(&machine, true).await;
    let error = machine.cluster.unlock(&key).await.expect_err("it is open");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::AlreadyExists, "swarm is not locked"));
    let id = machine.id();
    machine.stop().await;
    for secret in [MARK, "c2VjcmV0", "PRIVATE KEY", key.as_str()] {
        assert_eq!(holds(machine.folder.path(), secret), Vec::<String>::new(), "{secret}");
    }

    machine.start().await;
    let info = machine.cluster.info();
    assert_eq!((info.local_node_state, info.node_id), (LocalNodeState::Locked, id));
    assert!(!info.control_available);
    let error = machine.cluster.services().await.expect_err("locked");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.starts_with("Swarm is encrypted and needs to be unlocked"), "{error}");
    assert_eq!(machine.cluster.init(InitRequest::default()).await.expect_err("init"), error);
    let error = machine.cluster.leave(false).await.expect_err("leave");
    assert!(error.message.contains("Please unlock it first or use `--force`"), "{error}");
    for wrong in ["", "SWMKEY-1-", "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let error = machine.cluster.unlock(wrong).await.expect_err("wrong key");
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidArgument, "invalid key"));
    }
    assert_eq!(machine.containers.running().len(), 2, "containers live on");

    machine.cluster.unlock(&format!("{key}\n")).await.expect("unlock");
    let after = machine.wait_running(MARK, 2).await;
    assert!(after.iter().all(|task| before.iter().any(|old| old.id == task.id)), "{after:?}");
    assert_eq!(machine.containers.starts(), 2);
    assert_eq!(machine.cluster.unlock_key().await.expect("key"), key);

    autolock(&machine, false).await;
    until_locked(&machine, false).await;
    machine.stop().await;
    machine.start().await;
    machine.wait_running(MARK, 2).await;
    assert_eq!(machine.cluster.unlock_key().await.expect("key"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manager_takes_a_new_key_and_a_worker_has_none() {
    let first = Machine::new("one").await;
    let request = InitRequest {
        listen_addr: first.addr.clone(),
        advertise_addr: first.addr.clone(),
        auto_lock_managers: true,
        ..InitRequest::default()
    };
    first.cluster.init(request).await.expect("init");
    let mut second = Machine::manager("two", &first).await;
    let worker = Machine::worker("three", &first).await;
    until_locked(&first, true).await;
    until_locked(&second, true).await;
    until_locked(&worker, false).await;

    let old = first.cluster.unlock_key().await.expect("key");
    let file = second.folder.path().join("certificates/data-key.json");
    let kept = std::fs::read(&file).expect("file");
    let (version, spec) = spec(&first).await;
    let rotate = Rotate { manager_unlock_key: true, ..Rotate::default() };
    first.cluster.update_swarm(version, spec, rotate).await.expect("rotate");
    let new = first.cluster.unlock_key().await.expect("key");
    assert_ne!(new, old);
    until("the second manager took the new key", LONG, || async {
        std::fs::read(&file).is_ok_and(|now| now != kept)
    })
    .await;
    second.stop().await;
    second.start().await;
    assert_eq!(second.cluster.unlock(&old).await.expect_err("old key").message, "invalid key");
    second.cluster.unlock(&new).await.expect("unlock");
    first.cluster.create_service(service("web", "image", 3)).await.expect("service");
    until("all nodes work", LONG, || async {
        let tasks = first.tasks("web", TaskState::Running).await;
        tasks.len() == 3 && tasks.iter().any(|task| task.node_id == second.id())
    })
    .await;

    // Who is no manager any more has no log to protect, and starts by itself.
    let (id, node) = (second.id(), first.cluster.node(second.id().as_str()).await.expect("node"));
    let mut spec = node.spec.clone();
    spec.role = gantry_model::node::NodeRole::Worker;
    first.cluster.update_node(id.as_str(), node.version, spec).await.expect("demote");
    until_locked(&second, false).await;
}
