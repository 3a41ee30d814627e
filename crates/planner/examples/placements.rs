//! Measures the scheduler: `cargo run --release -p gantry-planner --example placements [NODES] [TASKS]`.
//!
//! Plans a whole cluster's tasks from nothing, as one leader would: services of 100 tasks each, half of them with a
//! constraint, a tenth spread over zones. Counts only planning; applying the plan, which every manager does, is given
//! beside it. Then one node is lost, to show what a plan costs in a cluster that is otherwise at rest.

use gantry_model::id::{NetworkId, NodeId, ServiceId};
use gantry_model::node::{Node, NodeState};
use gantry_model::service::{
    ContainerSpec, PlacementPreference, Replicated, ServiceSpec, SpreadOver, TaskResources,
};
use gantry_model::task::{TaskState, TaskStatus};
use gantry_planner::{Change, ClusterRecord, Ids, Object, Planner, State, edit, init};
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

const REPLICAS: u64 = 100;

fn node(number: u64) -> Node {
    let id = NodeId::parse(&format!("node{number}")).unwrap_or_default();
    let mut node = Node { id, ..Node::default() };
    node.status.state = NodeState::Ready;
    node.status.addr = format!("10.{}.{}.{}", 100 + number / 62_500, number / 250 % 250, number % 250 + 1);
    node.description.resources.nano_cpus = 64_000_000_000;
    node.description.resources.memory_bytes = 256 << 30;
    node.spec.labels.insert("zone".into(), format!("z{}", number % 3));
    node
}

fn service(number: u64) -> ServiceSpec {
    let mut spec = ServiceSpec { name: format!("service-{number}"), ..ServiceSpec::default() };
    spec.mode.replicated = Some(Replicated { replicas: Some(REPLICAS) });
    let template = &mut spec.task_template;
    template.container_spec = Some(ContainerSpec { image: "app:1".into(), ..ContainerSpec::default() });
    template.resources.reservations =
        Some(TaskResources { nano_cpus: 100_000_000, memory_bytes: 64 << 20, ..TaskResources::default() });
    if number.is_multiple_of(2) {
        template.placement.constraints = vec!["node.labels.zone!=z2".into()];
    }
    if number.is_multiple_of(10) {
        let spread = SpreadOver { spread_descriptor: "node.labels.zone".into() };
        template.placement.preferences = vec![PlacementPreference { spread: Some(spread) }];
    }
    spec
}

struct Bench {
    state: State,
    planner: Planner,
    ids: Ids,
    now: Timestamp,
}

impl Bench {
    fn apply(&mut self, changes: &[Change]) -> Duration {
        let began = Instant::now();
        if let Err(refused) = self.state.apply(self.state.index() + 1, self.now, changes) {
            println!("refused: {refused}: {}", refused.why);
        }
        began.elapsed()
    }

    /// Plans and applies until nothing is left; the times of both, and the number of changes.
    fn settle(&mut self) -> (Duration, Duration, usize) {
        let (mut planning, mut applying, mut changes) = (Duration::ZERO, Duration::ZERO, 0);
        loop {
            let began = Instant::now();
            let plan = self.planner.plan(&self.state, self.now, &mut self.ids);
            planning += began.elapsed();
            if plan.changes.is_empty() {
                return (planning, applying, changes);
            }
            changes += plan.changes.len();
            applying += self.apply(&plan.changes);
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (nodes, tasks) = (args.next().unwrap_or(10_000), args.next().unwrap_or(1_000_000));
    let mut bench = Bench {
        state: State::default(),
        planner: Planner::default(),
        ids: Ids::new([1; 32]),
        now: Timestamp::UNIX_EPOCH,
    };
    let ingress = NetworkId::parse("ingress").unwrap_or_default();
    bench.apply(&init::cluster_created(ClusterRecord::default(), node(1), ingress));
    let rest: Vec<Change> =
        (2..=nodes).map(|number| Change::create(Object::Node(Box::new(node(number))))).collect();
    bench.apply(&rest);
    bench.settle();
    let create = |number| {
        let id = ServiceId::parse(&format!("s{number}")).unwrap_or_default();
        Change::create(Object::Service(Box::new(edit::service_created(id, service(number)))))
    };
    let services: Vec<Change> = (0..tasks / REPLICAS).map(create).collect();
    bench.apply(&services);

    let (planning, applying, _) = bench.settle();
    let placed = bench.state.tasks().iter().filter(|task| task.status.state == TaskState::Assigned).count();
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
    println!("nodes {nodes}, services {}, tasks placed {placed}", services.len());
    println!("planning {:.2} s: {:.0} placements/s", planning.as_secs_f64(), rate(placed, planning));
    println!(
        "planning and applying {:.2} s: {:.0}/s",
        (planning + applying).as_secs_f64(),
        rate(placed, planning + applying)
    );

    let running = bench.state.tasks().iter().map(|task| {
        let status = TaskStatus { state: TaskState::Running, ..task.status.clone() };
        Change::Status { task: task.id.clone(), status }
    });
    let running: Vec<Change> = running.collect();
    bench.apply(&running);
    bench.settle();
    let (idle, ..) = bench.settle();
    println!("a plan at rest: {:.2} ms", idle.as_secs_f64() * 1e3);
    let mut lost = node(7);
    lost.status.state = NodeState::Down;
    bench.apply(&[Change::force(Object::Node(Box::new(lost)))]);
    bench.settle();
    bench.now += SignedDuration::from_secs(60);
    let (planning, applying, changes) = bench.settle();
    println!(
        "one node lost: {changes} changes, planned in {:.0} ms, applied in {:.0} ms",
        planning.as_secs_f64() * 1e3,
        applying.as_secs_f64() * 1e3
    );
}
