//! Where tasks go, and why they cannot.

use crate::world::{World, global, node, replicated};
use gantry_model::id::ServiceId;
use gantry_model::node::{Availability, NodePlatform, NodeState};
use gantry_model::service::{
    EndpointSpec, PlacementPreference, PortConfig, ServiceSpec, SpreadOver, TaskResources,
};
use gantry_model::task::TaskState;

fn reasons(world: &World, service: &ServiceId) -> Vec<String> {
    let mut reasons: Vec<String> = world
        .state
        .tasks_of_service(service)
        .filter(|task| task.status.state == TaskState::Pending)
        .map(|task| task.status.err.clone())
        .collect();
    reasons.sort();
    reasons
}

fn with(name: &str, replicas: u64, change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = replicated(name, replicas);
    change(&mut spec);
    spec
}

fn memory(bytes: i64) -> Option<TaskResources> {
    Some(TaskResources { memory_bytes: bytes, ..TaskResources::default() })
}

#[test]
fn a_task_that_fits_nowhere_says_why_in_dockers_words() {
    let mut world = World::new(5);
    world.change_node(1, |node| node.spec.availability = Availability::Pause);
    world.change_node(2, |node| node.status.state = NodeState::Down);
    world.change_node(3, |node| drop(node.spec.labels.insert("zone".into(), "a".into())));
    let huge = world.create(with("huge", 1, |spec| {
        spec.task_template.resources.reservations = memory(64 << 30);
    }));
    let far = world.create(with("far", 1, |spec| {
        spec.task_template.placement.constraints = vec!["node.labels.zone==a".into()];
        spec.task_template.resources.reservations = memory(7 << 30);
    }));
    let more = world.create(with("more", 1, |spec| {
        spec.task_template.placement.constraints = vec!["node.labels.zone==a".into()];
        spec.task_template.resources.reservations = memory(7 << 30);
    }));
    let arm = world.create(with("arm", 1, |spec| {
        spec.task_template.placement.platforms =
            vec![NodePlatform { os: "linux".into(), architecture: "arm64".into() }];
    }));
    let few = world.create(with("few", 4, |spec| spec.task_template.placement.max_replicas = 1));
    world.steps(8);
    assert_eq!(
        reasons(&world, &huge),
        ["no suitable node (insufficient resources on 3 nodes; 2 nodes not available for new tasks)"]
    );
    assert_eq!(world.running(&far).len(), 1);
    assert_eq!(
        reasons(&world, &more),
        [
            "no suitable node (2 nodes not available for new tasks; scheduling constraints not satisfied on 2 nodes; \
          insufficient resources on 1 node)"
        ]
    );
    assert_eq!(
        reasons(&world, &arm),
        ["no suitable node (unsupported platform on 3 nodes; 2 nodes not available for new tasks)"]
    );
    assert_eq!(world.running(&few).len(), 3);
    assert_eq!(
        reasons(&world, &few),
        ["no suitable node (max replicas per node limit exceed; 2 nodes not available for new tasks)"]
    );

    // Nothing is written again while nothing changes.
    let index = world.state.index();
    world.settle();
    assert_eq!(world.state.index(), index);
    // And what was missing being there, the task goes.
    world.remove(&far);
    world.until("the place is taken", |world| world.running(&more).len() == 1);
}

#[test]
fn without_nodes_there_is_no_suitable_node() {
    let mut world = World::new(1);
    world.apply(&[gantry_planner::Change::delete(gantry_planner::ObjectRef::Node(node(1)))]);
    world.agents.clear();
    let web = world.create(replicated("web", 1));
    world.settle();
    assert_eq!(reasons(&world, &web), ["no suitable node"]);
}

#[test]
fn tasks_are_spread_over_labels_before_nodes() {
    let mut world = World::new(4);
    for (number, zone) in [(1, "a"), (2, "b"), (3, "b"), (4, "b")] {
        world.change_node(number, |node| drop(node.spec.labels.insert("zone".into(), zone.into())));
    }
    let spread = SpreadOver { spread_descriptor: "node.labels.zone".into() };
    let web = world.create(with("web", 6, |spec| {
        spec.task_template.placement.preferences = vec![PlacementPreference { spread: Some(spread) }];
    }));
    world.until("6 tasks", |world| world.running(&web).len() == 6);
    assert_eq!(world.spread(&web), [3, 1, 1, 1]);
}

#[test]
fn the_least_loaded_nodes_are_taken_first_and_reservations_are_kept() {
    let mut world = World::new(3);
    let big = world.create(with("big", 3, |spec| {
        spec.task_template.resources.reservations = memory(5 << 30);
    }));
    world.until("3 tasks", |world| world.spread(&big) == [1, 1, 1]);
    let more = world.create(with("more", 4, |spec| {
        spec.task_template.resources.reservations = memory(2 << 30);
    }));
    world.steps(8);
    assert_eq!(world.spread(&more), [1, 1, 1]);
    assert_eq!(reasons(&world, &more), ["no suitable node (insufficient resources on 3 nodes)"]);

    let other = world.create(with("pin", 5, |spec| {
        spec.task_template.placement.constraints = vec!["node.hostname==host1".into()];
    }));
    world.until("5 tasks", |world| world.spread(&other) == [5, 0, 0]);
    let next = world.create(replicated("next", 2));
    world.until("2 tasks", |world| world.running(&next).len() == 2);
    assert_eq!(world.spread(&next), [0, 1, 1]);
}

#[test]
fn a_port_of_a_node_is_one_tasks_alone() {
    let mut world = World::new(2);
    let port = PortConfig {
        target_port: 80,
        published_port: 8080,
        publish_mode: "host".into(),
        ..PortConfig::default()
    };
    let ports = |spec: &mut ServiceSpec| {
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port.clone()], ..EndpointSpec::default() });
    };
    let web = world.create(with("web", 3, ports));
    world.settle();
    let mut agent = global("agent");
    ports(&mut agent);
    let agent = world.create(agent);
    world.steps(8);
    assert_eq!(world.running(&web).len() + world.running(&agent).len(), 2);
    let all: Vec<String> = [&web, &agent].into_iter().flat_map(|id| reasons(&world, id)).collect();
    assert!(
        all.contains(&"no suitable node (host-mode port already in use on 2 nodes)".to_owned()),
        "{all:?}"
    );
    assert!(
        all.contains(&"no suitable node (host-mode port already in use on 1 node)".to_owned()),
        "{all:?}"
    );
}
