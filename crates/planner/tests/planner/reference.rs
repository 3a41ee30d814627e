//! The scheduler against a naive one, which knows no groups, heaps or memories: it looks at every node for every task.

use crate::world::{World, node, replicated, version};
use gantry_model::id::{NodeId, ServiceId, TaskId};
use gantry_model::node::{Availability, Node, NodeState};
use gantry_model::service::{
    EndpointSpec, PlacementPreference, PortConfig, ServiceSpec, SpreadOver, TaskResources,
};
use gantry_model::task::{Task, TaskState, TaskStatus};
use gantry_planner::{Change, Object, State, constraint::Constraints};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is asked of one service.
#[derive(Debug, Clone)]
struct Ask {
    replicas: u64,
    memory: i64,
    cpus: i64,
    constraint: Option<&'static str>,
    spread: Vec<&'static str>,
    max_replicas: u64,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
struct Machine {
    zone: u8,
    rack: u8,
    memory: i64,
    availability: Availability,
    up: bool,
}

const GIB: i64 = 1 << 30;

fn asks() -> impl Strategy<Value = Ask> {
    let constraint = prop::option::of(prop::sample::select(vec![
        "node.labels.zone==z0",
        "node.labels.zone!=z1",
        "node.labels.rack==r1",
    ]));
    let spread =
        prop::sample::select(vec![vec![], vec![], vec!["zone"], vec!["zone", "rack"], vec!["none", "rack"]]);
    let port = prop::option::weighted(0.2, 8000..8003u16);
    (0..12u64, 0..4i64, 0..3i64, constraint, spread, 0..4u64, port).prop_map(
        |(replicas, memory, cpus, constraint, spread, max_replicas, port)| Ask {
            replicas,
            memory: memory * GIB / 2,
            cpus: cpus * 500_000_000,
            constraint,
            spread,
            max_replicas: max_replicas.saturating_sub(1),
            port,
        },
    )
}

fn machines() -> impl Strategy<Value = Machine> {
    let availability = prop_oneof![
        8 => Just(Availability::Active),
        1 => Just(Availability::Pause),
        1 => Just(Availability::Drain),
    ];
    (0..3u8, 0..3u8, 1..5i64, availability, prop::bool::weighted(0.9)).prop_map(
        |(zone, rack, memory, availability, up)| Machine {
            zone,
            rack,
            memory: memory * GIB,
            availability,
            up,
        },
    )
}

fn spec_of(name: &str, ask: &Ask) -> ServiceSpec {
    let mut spec = replicated(name, ask.replicas);
    let template = &mut spec.task_template;
    template.resources.reservations =
        Some(TaskResources { nano_cpus: ask.cpus, memory_bytes: ask.memory, ..TaskResources::default() });
    template.placement.constraints = ask.constraint.iter().map(|text| (*text).to_owned()).collect();
    template.placement.max_replicas = ask.max_replicas;
    let over = |label: &&str| PlacementPreference {
        spread: Some(SpreadOver { spread_descriptor: format!("node.labels.{label}") }),
    };
    template.placement.preferences = ask.spread.iter().map(over).collect();
    if let Some(port) = ask.port {
        let port = PortConfig {
            target_port: 80,
            published_port: port,
            publish_mode: "host".into(),
            ..PortConfig::default()
        };
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    }
    spec
}

fn cluster(machines: &[Machine]) -> World {
    let mut world = World::new(machines.len());
    for (number, machine) in (1..).zip(machines) {
        world.change_node(number, |node| {
            node.spec.labels.insert("zone".into(), format!("z{}", machine.zone));
            node.spec.labels.insert("rack".into(), format!("r{}", machine.rack));
            node.spec.availability = machine.availability;
            node.description.resources.memory_bytes = machine.memory;
            if !machine.up {
                node.status.state = NodeState::Down;
            }
        });
    }
    world
}

/// Where the tasks are, without any index: it is counted anew whenever it is asked.
struct Naive {
    nodes: Vec<Arc<Node>>,
    tasks: Vec<Task>,
}

impl Naive {
    fn of(state: &State) -> Self {
        Self {
            nodes: state.nodes().sorted().into_iter().cloned().collect(),
            tasks: state.tasks().iter().map(|task| task.as_ref().clone()).collect(),
        }
    }

    fn on<'n>(&'n self, node: &'n NodeId) -> impl Iterator<Item = &'n Task> {
        self.tasks.iter().filter(move |task| {
            task.node_id == *node
                && task.status.state >= TaskState::Assigned
                && !task.status.state.is_terminal()
        })
    }

    fn of_service(&self, node: &NodeId, service: &ServiceId) -> u64 {
        let live = |task: &&Task| task.service_id == *service && task.desired_state <= TaskState::Complete;
        self.on(node).filter(live).count() as u64
    }

    fn passes(&self, task: &Task, node: &Node) -> bool {
        let needs = task.spec.resources.reservations.clone().unwrap_or_default();
        let taken = |what: fn(&TaskResources) -> i64| -> i64 {
            self.on(&node.id).filter_map(|task| task.spec.resources.reservations.as_ref()).map(what).sum()
        };
        let has = &node.description.resources;
        let port_is_taken = |port: &PortConfig| {
            self.on(&node.id)
                .flat_map(|task| &task.host_ports)
                .any(|other| other.published_port == port.published_port)
        };
        let placement = &task.spec.placement;
        node.status.state == NodeState::Ready
            && node.spec.availability == Availability::Active
            && (needs.memory_bytes == 0
                || needs.memory_bytes <= has.memory_bytes - taken(|needs| needs.memory_bytes))
            && (needs.nano_cpus == 0 || needs.nano_cpus <= has.nano_cpus - taken(|needs| needs.nano_cpus))
            && Constraints::parse(&placement.constraints).expect("constraints").met_by(node)
            && !task.host_ports.iter().any(port_is_taken)
            && (placement.max_replicas == 0
                || self.of_service(&node.id, &task.service_id) < placement.max_replicas)
    }

    /// The best node, and how good it is: tasks of the service in each branch of the labels, tasks of the service, tasks.
    fn best(&self, task: &Task) -> Option<NodeId> {
        let mut fit: Vec<&Arc<Node>> = self.nodes.iter().filter(|node| self.passes(task, node)).collect();
        let labels = task.spec.placement.preferences.iter().filter_map(|p| p.spread.as_ref());
        let labels: Vec<&str> =
            labels.filter_map(|spread| spread.spread_descriptor.strip_prefix("node.labels.")).collect();
        for depth in 1..=labels.len() {
            let path = |node: &Node| -> Vec<String> {
                let value = |label: &&str| node.spec.labels.get(*label).cloned().unwrap_or_default();
                labels[..depth].iter().map(value).collect()
            };
            let tasks_in = |branch: &[String]| -> u64 {
                let there = self.nodes.iter().filter(|node| path(node) == branch);
                there.map(|node| self.of_service(&node.id, &task.service_id)).sum()
            };
            let branches: BTreeMap<Vec<String>, u64> =
                fit.iter().map(|node| path(node)).map(|path| (path.clone(), tasks_in(&path))).collect();
            let best = branches.into_iter().min_by_key(|(path, tasks)| (*tasks, path.clone()))?.0;
            fit.retain(|node| path(node) == best);
        }
        let rank = |node: &&Arc<Node>| {
            let live = |task: &&Task| task.desired_state <= TaskState::Complete;
            let total = self.on(&node.id).filter(live).count();
            (self.of_service(&node.id, &task.service_id), total, node.id.clone())
        };
        fit.into_iter().min_by_key(rank).map(|node| node.id.clone())
    }

    /// Where each waiting task goes, in the order in which the scheduler takes them.
    fn place_all(&mut self, mut waiting: Vec<Task>) -> BTreeMap<TaskId, NodeId> {
        waiting.sort_by(|a, b| {
            (&a.service_id, a.spec_version, a.slot, &a.created_at, &a.id).cmp(&(
                &b.service_id,
                b.spec_version,
                b.slot,
                &b.created_at,
                &b.id,
            ))
        });
        let mut found = BTreeMap::new();
        for mut task in waiting {
            if let Some(node) = self.best(&task) {
                found.insert(task.id.clone(), node.clone());
                task.node_id = node;
                task.status.state = TaskState::Assigned;
            }
            self.tasks.retain(|other| other.id != task.id);
            self.tasks.push(task);
        }
        found
    }
}

/// Lets the planner place what waits, and compares with what the naive scheduler does.
fn compare(world: &mut World) {
    loop {
        let plan = world.planner.plan(&world.state, world.now, &mut world.ids);
        if plan.changes.is_empty() {
            return;
        }
        // What a plan makes and places at once is for the naive one made, and waits.
        let mut before = world.state.clone();
        let created = |change: &Change| match change {
            Change::Put { object: Object::Task(task), .. } => Some(task.as_ref().clone()),
            _ => None,
        };
        let made: Vec<Task> = plan.changes.iter().filter_map(created).collect();
        let others: Vec<Change> =
            plan.changes.iter().filter(|change| created(change).is_none()).cloned().collect();
        before.apply(before.index() + 1, world.now, &others).expect("the other changes");
        let mut naive = Naive::of(&before);
        let unplaced = |task: &Task| Task {
            node_id: NodeId::default(),
            status: TaskStatus { state: TaskState::New, ..TaskStatus::default() },
            ..task.clone()
        };
        let untouched = before.unplaced().filter(|task| made.iter().all(|made| made.id != task.id));
        let waiting: Vec<Task> =
            made.iter().map(unplaced).chain(untouched.map(|task| task.as_ref().clone())).collect();
        naive.tasks.retain(|task| waiting.iter().all(|other| other.id != task.id));
        let expected = naive.place_all(waiting);
        let placed = made.iter().filter(|task| !task.node_id.is_empty());
        let found: BTreeMap<TaskId, NodeId> =
            placed.map(|task| (task.id.clone(), task.node_id.clone())).collect();
        assert_eq!(found, expected);
        world.apply(&plan.changes);
        world.check_nodes();
        check_limits(&world.state);
    }
}

fn check_limits(state: &State) {
    let naive = Naive::of(state);
    for task in state.tasks().iter().filter(|task| !task.node_id.is_empty()) {
        let most = task.spec.placement.max_replicas;
        let here = naive.of_service(&task.node_id, &task.service_id);
        assert!(
            most == 0 || here <= most,
            "{here} tasks of {} on {}, at most {most}",
            task.service_id,
            task.node_id
        );
    }
}

fn report(world: &mut World, state: TaskState) {
    let reports: Vec<Change> = world
        .state
        .tasks()
        .iter()
        .filter(|task| task.status.state == TaskState::Assigned)
        .map(|task| Change::Status {
            task: task.id.clone(),
            status: TaskStatus { state, ..task.status.clone() },
        })
        .collect();
    world.apply(&reports);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_task_goes_where_a_scheduler_that_looks_at_all_nodes_would_put_it(
        machines in prop::collection::vec(machines(), 1..10),
        first in prop::collection::vec(asks(), 1..5),
        then in prop::collection::vec(asks(), 1..5),
        scaled in 0..30u64,
        lost in 0..10usize,
    ) {
        let mut world = cluster(&machines);
        let mut services = Vec::new();
        for (number, ask) in first.iter().enumerate() {
            services.push(world.create(spec_of(&format!("a{number}"), ask)));
        }
        compare(&mut world);
        report(&mut world, TaskState::Running);
        for (number, ask) in then.iter().enumerate() {
            services.push(world.create(spec_of(&format!("b{number}"), ask)));
        }
        world.update(&services[0], |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(scaled));
        compare(&mut world);
        report(&mut world, TaskState::Running);
        // A node is lost; after its grace its tasks go elsewhere.
        world.change_node(lost % machines.len() + 1, |node| node.status.state = NodeState::Down);
        world.now += jiff::SignedDuration::from_secs(60);
        compare(&mut world);
    }
}

#[test]
fn a_spread_counts_the_tasks_on_nodes_that_take_no_more() {
    let mut world = World::new(4);
    for (number, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        world.change_node(number, |node| drop(node.spec.labels.insert("zone".into(), zone.into())));
    }
    let spread = |spec: &mut ServiceSpec| {
        let over = SpreadOver { spread_descriptor: "node.labels.zone".into() };
        spec.task_template.placement.preferences = vec![PlacementPreference { spread: Some(over) }];
    };
    let mut spec = replicated("web", 4);
    spread(&mut spec);
    let web = world.create(spec);
    world.until("4 tasks", |world| world.running(&web).len() == 4);
    // Zone a keeps two tasks; one of them is on a node that takes no more.
    world.change_node(1, |node| node.spec.availability = Availability::Pause);
    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(6));
    world.until("6 tasks", |world| world.running(&web).len() == 6);
    let zone_a: usize = world.spread(&web)[..2].iter().sum();
    assert_eq!(zone_a, 3);
    assert_eq!(world.state.node(&node(1)).map(|node| node.version > version(0)), Some(true));
}
