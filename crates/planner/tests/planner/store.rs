//! The store: batches, versions, forward-only fields, snapshots.

use crate::world::{World, node, replicated, version};
use gantry_model::id::TaskId;
use gantry_model::node::NodeState;
use gantry_model::task::{TaskState, TaskStatus};
use gantry_planner::{Change, Expect, Object, ObjectRef, Refusal, State};
use proptest::prelude::*;

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let mut world = World::new(1);
    let before = world.state.clone();
    let good = before.node(&node(1)).expect("the node").as_ref().clone();
    let batch = [
        Change::replace(Object::Node(Box::new(good.clone()))),
        // The first change has moved the version on.
        Change::replace(Object::Node(Box::new(good.clone()))),
    ];
    let refused = world.state.apply(9, world.now, &batch).expect_err("a refusal");
    assert_eq!((refused.which, refused.why), (1, Refusal::OutOfSequence(ObjectRef::Node(node(1)))));
    assert_eq!(world.state, before);

    let exists = world.state.apply(9, world.now, &[Change::create(Object::Node(Box::new(good.clone())))]);
    assert_eq!(exists.expect_err("a refusal").why.to_string(), "node n00001 already exists");
    let gone = Change::Delete { object: ObjectRef::Node(node(7)), expect: Expect::At(version(1)) };
    let missing = world.state.apply(9, world.now, &[gone]).expect_err("a refusal");
    assert_eq!(missing.why.to_string(), "node n00007 does not exist");
    world
        .state
        .apply(9, world.now, &[Change::delete(ObjectRef::Node(node(7)))])
        .expect("nothing to delete is fine");

    world.create(replicated("web", 1));
    let mut other = gantry_planner::edit::service_created(
        gantry_model::id::ServiceId::parse("other").expect("an id"),
        replicated("web", 1),
    );
    let refused =
        world.state.apply(10, world.now, &[Change::create(Object::Service(Box::new(other.clone())))]);
    assert_eq!(
        refused.expect_err("a refusal").why.to_string(),
        "name conflicts with an existing object: service web already exists"
    );
    other.spec.name = "web2".into();
    world
        .state
        .apply(10, world.now, &[Change::create(Object::Service(Box::new(other)))])
        .expect("another name is fine");
    assert!(world.state.service_named("web2").is_some());
}

#[test]
fn the_store_notes_since_when_a_node_is_in_its_state() {
    let mut world = World::new(1);
    let since = |world: &World| world.state.node(&node(1)).expect("the node").status.since.clone();
    let first = since(&world);
    world.now += jiff::SignedDuration::from_secs(5);
    world.change_node(1, |node| node.description.hostname = "renamed".into());
    assert_eq!(since(&world), first);
    world.change_node(1, |node| node.status.state = NodeState::Down);
    assert!(since(&world) > first);
}

#[test]
fn a_snapshot_holds_everything() {
    let mut world = World::new(3);
    world.create_network("front", gantry_model::network::NetworkSpec::default());
    let mut spec = replicated("web", 5);
    spec.task_template.networks =
        vec![gantry_model::service::NetworkAttachmentConfig { target: "front".into(), ..Default::default() }];
    spec.task_template.container_spec.as_mut().expect("a container").pull_auth =
        Some(gantry_model::pull_auth::PullAuth::new("secret"));
    let web = world.create(spec);
    world.until("5 tasks", |world| world.running(&web).len() == 5);
    let text = serde_json::to_string(&world.state).expect("JSON");
    let read: State = serde_json::from_str(&text).expect("a state");
    assert_eq!(read, world.state);
    assert_eq!(read.load_of(&node(1)), world.state.load_of(&node(1)));
    assert_eq!(
        gantry_planner::assignment(&read, &node(2)),
        gantry_planner::assignment(&world.state, &node(2)),
        "the indexes are made again"
    );
    world.state = read;
    world.planner = gantry_planner::Planner::default();
    assert_eq!(world.settle(), 0, "a new leader has nothing to do");
}

fn states() -> impl Strategy<Value = TaskState> {
    use TaskState as S;
    prop::sample::select(vec![
        S::New,
        S::Pending,
        S::Assigned,
        S::Accepted,
        S::Preparing,
        S::Ready,
        S::Starting,
        S::Running,
        S::Complete,
        S::Shutdown,
        S::Failed,
        S::Rejected,
        S::Remove,
        S::Orphaned,
    ])
}

proptest! {
    #[test]
    fn neither_state_of_a_task_goes_back(reports in prop::collection::vec((states(), states()), 1..40)) {
        let mut world = World::new(1);
        let web = world.create(replicated("web", 1));
        world.settle();
        let id: TaskId = world.state.tasks_of_service(&web).next().expect("a task").id.clone();
        for (observed, desired) in reports {
            let before = world.state.task(&id).expect("the task").as_ref().clone();
            let status = TaskStatus { state: observed, ..TaskStatus::default() };
            world.apply(&[
                Change::Status { task: id.clone(), status },
                Change::Desire { task: id.clone(), state: desired },
            ]);
            let after = world.state.task(&id).expect("the task");
            prop_assert!(after.status.state >= before.status.state);
            prop_assert!(after.desired_state >= before.desired_state);
            if before.status.state.is_terminal() {
                prop_assert!(after.status.state == before.status.state || after.status.state == TaskState::Orphaned);
            }
        }
    }
}
