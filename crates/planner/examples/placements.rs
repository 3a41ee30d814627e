//! Measures the planner: `cargo run --release -p gantry-planner --example placements [NODES] [TASKS] [SCENE]`.
//!
//! Each scene plans a whole cluster's tasks from nothing, as one leader would, and applies the plan, as every manager does. Both are
//! given in seconds of the clock and of processor time: on a machine that does other work as well, the latter is what counts. Then
//! all tasks run, and it shows what a plan costs at rest, after one report, and when one node is lost.

use gantry_model::container::Empty;
use gantry_model::id::{NetworkId, NodeId, ServiceId};
use gantry_model::network::{Ipam, IpamConfig, NetworkSpec};
use gantry_model::node::{Node, NodeState};
use gantry_model::service::{
    ContainerSpec, EndpointSpec, NetworkAttachmentConfig, PlacementPreference, PortConfig, Replicated,
    ServiceSpec, SpreadOver, TaskResources,
};
use gantry_model::task::{TaskState, TaskStatus};
use gantry_planner::{Change, ClusterNetwork, ClusterRecord, Ids, Object, Planner, State, edit, init};
use jiff::{SignedDuration, Timestamp};
use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};

/// What is asked for: the number of nodes, and the services for so many tasks.
type Scene = (&'static str, fn(u64, u64) -> Vec<ServiceSpec>);

const SCENES: [Scene; 6] = [
    ("mixed services of 100", mixed),
    ("one service", one),
    ("networks and ports, services of 100", networked),
    ("spread over three levels, services of 1000", levels),
    ("global services", global),
    ("services of 10 with ports of their nodes", host_ports),
];

/// Time by the clock and of the processor.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

/// A moment by both clocks.
#[derive(Clone, Copy)]
struct Mark {
    wall: Instant,
    cpu: Duration,
}

impl Mark {
    fn now() -> Self {
        // proc(5): the first number is the time on a processor, in nanoseconds. (The clock for it is not there under valgrind.)
        let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        let cpu = text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let cpu = Duration::from_nanos(cpu);
        Self { wall: Instant::now(), cpu }
    }

    fn spent(self) -> Spent {
        Self::now() - self
    }
}

impl Sub for Mark {
    type Output = Spent;

    fn sub(self, earlier: Self) -> Spent {
        Spent { wall: self.wall - earlier.wall, cpu: self.cpu.saturating_sub(earlier.cpu) }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

impl Spent {
    fn seconds(self, count: usize) -> String {
        let rate = |time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        format!("{wall:7.2} s {cpu:7.2} s CPU {:9.0}/s {:9.0}/s CPU", rate(self.wall), rate(self.cpu))
    }

    fn milliseconds(self, rounds: u32) -> String {
        let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(rounds);
        format!("{:.3} ms, {:.3} ms CPU", each(self.wall), each(self.cpu))
    }
}

fn node(number: u64) -> Node {
    let id = NodeId::parse(&format!("node{number:020}")).unwrap_or_default();
    let mut node = Node { id, ..Node::default() };
    node.status.state = NodeState::Ready;
    node.status.addr = format!("10.{}.{}.{}", 100 + number / 62_500, number / 250 % 250, number % 250 + 1);
    node.description.resources.nano_cpus = 64_000_000_000;
    node.description.resources.memory_bytes = 256 << 30;
    for (label, value) in
        [("zone", number % 3), ("region", number % 5), ("hall", number % 40), ("rack", number % 400)]
    {
        node.spec.labels.insert(label.into(), format!("{label}{value}"));
    }
    node
}

fn replicated(number: u64, replicas: u64) -> ServiceSpec {
    let mut spec = ServiceSpec { name: format!("service-{number}"), ..ServiceSpec::default() };
    spec.mode.replicated = Some(Replicated { replicas: Some(replicas) });
    let template = &mut spec.task_template;
    template.container_spec = Some(ContainerSpec {
        image: format!("registry.example/team/application-{number}:1.2.3"),
        env: vec!["LOG_LEVEL=info".into(), format!("SERVICE={number}")],
        ..ContainerSpec::default()
    });
    template.resources.reservations =
        Some(TaskResources { nano_cpus: 100_000_000, memory_bytes: 64 << 20, ..TaskResources::default() });
    spec
}

fn spread_over(labels: &[&str]) -> Vec<PlacementPreference> {
    let over = |label: &&str| PlacementPreference {
        spread: Some(SpreadOver { spread_descriptor: format!("node.labels.{label}") }),
    };
    labels.iter().map(over).collect()
}

/// Half of them with a constraint, a tenth spread over zones.
fn mixed(_: u64, tasks: u64) -> Vec<ServiceSpec> {
    let service = |number: u64| {
        let mut spec = replicated(number, 100);
        let placement = &mut spec.task_template.placement;
        if number.is_multiple_of(2) {
            placement.constraints = vec!["node.labels.zone!=zone2".into()];
        }
        if number.is_multiple_of(10) {
            placement.preferences = spread_over(&["zone"]);
        }
        spec
    };
    (0..tasks / 100).map(service).collect()
}

fn one(_: u64, tasks: u64) -> Vec<ServiceSpec> {
    vec![replicated(0, tasks.min(100_000))]
}

/// Each in one of ten networks, a tenth of them published.
fn networked(_: u64, tasks: u64) -> Vec<ServiceSpec> {
    let service = |number: u64| {
        let mut spec = replicated(number, 100);
        let target = format!("network{}", number % 10);
        spec.task_template.networks =
            vec![NetworkAttachmentConfig { target, ..NetworkAttachmentConfig::default() }];
        if number.is_multiple_of(10) {
            let ports = vec![PortConfig { target_port: 80, ..PortConfig::default() }];
            spec.endpoint_spec = Some(EndpointSpec { ports, ..EndpointSpec::default() });
        }
        spec
    };
    (0..tasks.min(200_000) / 100).map(service).collect()
}

fn levels(_: u64, tasks: u64) -> Vec<ServiceSpec> {
    let service = |number: u64| {
        let mut spec = replicated(number, 1000);
        spec.task_template.placement.preferences = spread_over(&["region", "hall", "rack"]);
        spec
    };
    (0..tasks.min(200_000) / 1000).map(service).collect()
}

fn global(nodes: u64, tasks: u64) -> Vec<ServiceSpec> {
    let service = |number: u64| {
        let mut spec = replicated(number, 0);
        spec.mode.replicated = None;
        spec.mode.global = Some(Empty {});
        spec
    };
    (0..(tasks.min(200_000) / nodes).max(1)).map(service).collect()
}

fn host_ports(_: u64, tasks: u64) -> Vec<ServiceSpec> {
    let service = |number: u64| {
        let mut spec = replicated(number, 10);
        let port = PortConfig {
            target_port: 80,
            published_port: 10_000 + u16::try_from(number % 50).unwrap_or(0),
            publish_mode: "host".into(),
            ..PortConfig::default()
        };
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
        spec
    };
    (0..tasks.min(200_000) / 10).map(service).collect()
}

fn network(number: u64) -> ClusterNetwork {
    let id = format!("network{number}");
    let subnet = format!("172.{}.0.0/16", 16 + number);
    let ipam = Ipam { config: vec![IpamConfig { subnet, ..IpamConfig::default() }], ..Ipam::default() };
    let mut network = ClusterNetwork::default();
    network.network.spec =
        NetworkSpec { name: id.clone(), driver: "overlay".into(), ipam, ..NetworkSpec::default() };
    network.network.id = id;
    network
}

struct Bench {
    state: State,
    planner: Planner,
    ids: Ids,
    now: Timestamp,
}

#[derive(Default)]
struct Settled {
    planning: Spent,
    applying: Spent,
    changes: usize,
}

impl Bench {
    fn new(nodes: u64) -> Self {
        let mut bench = Self {
            state: State::default(),
            planner: Planner::default(),
            ids: Ids::new([1; 32]),
            now: Timestamp::UNIX_EPOCH,
        };
        let ingress = NetworkId::parse("ingress").unwrap_or_default();
        bench.apply(&init::cluster_created(ClusterRecord::default(), node(1), ingress));
        let rest = (2..=nodes).map(|number| Change::create(Object::Node(Box::new(node(number)))));
        let networks = (0..10).map(|number| Change::create(Object::Network(Box::new(network(number)))));
        bench.apply(&rest.chain(networks).collect::<Vec<_>>());
        bench.settle();
        bench
    }

    fn apply(&mut self, changes: &[Change]) -> Spent {
        let began = Mark::now();
        if let Err(refused) = self.state.apply(self.state.index() + 1, self.now, changes) {
            println!("refused: {refused}: {}", refused.why);
        }
        began.spent()
    }

    /// Plans and applies until nothing is left.
    fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        loop {
            let began = Mark::now();
            let plan = self.planner.plan(&self.state, self.now, &mut self.ids);
            settled.planning += began.spent();
            if plan.changes.is_empty() {
                return settled;
            }
            settled.changes += plan.changes.len();
            settled.applying += self.apply(&plan.changes);
        }
    }

    /// Every task runs.
    fn start(&mut self) {
        let running: Vec<Change> = self
            .state
            .tasks()
            .iter()
            .filter(|task| task.status.state == TaskState::Assigned)
            .map(|task| {
                let status = TaskStatus { state: TaskState::Running, ..task.status.clone() };
                Change::Status { task: task.id.clone(), status }
            })
            .collect();
        let spent = self.apply(&running);
        println!("  all report that they run: applied     {}", spent.seconds(running.len()));
        self.settle();
    }

    fn rest(&mut self) {
        const ROUNDS: u32 = 100;
        let began = Mark::now();
        for _ in 0..ROUNDS {
            self.planner.plan(&self.state, self.now, &mut self.ids);
        }
        println!("  a plan at rest: {}", began.spent().milliseconds(ROUNDS));
        let Some(task) = self.state.tasks().iter().next().cloned() else { return };
        let (mut planning, mut applying) = (Spent::default(), Spent::default());
        for round in 0..ROUNDS {
            let status = TaskStatus { message: format!("report {round}"), ..task.status.clone() };
            applying += self.apply(&[Change::Status { task: task.id.clone(), status }]);
            let began = Mark::now();
            self.planner.plan(&self.state, self.now, &mut self.ids);
            planning += began.spent();
        }
        println!(
            "  after one task's report: applied in {}; planned in {}",
            applying.milliseconds(ROUNDS),
            planning.milliseconds(ROUNDS)
        );
    }

    fn lose_a_node(&mut self) {
        let mut lost = self.state.node(&node(7).id).map(|node| node.as_ref().clone()).unwrap_or_default();
        lost.status.state = NodeState::Down;
        self.apply(&[Change::force(Object::Node(Box::new(lost)))]);
        let mut settled = self.settle();
        self.now += SignedDuration::from_secs(60);
        let later = self.settle();
        settled.planning += later.planning;
        settled.applying += later.applying;
        settled.changes += later.changes;
        println!(
            "  one node lost: {} changes, planned in {}; applied in {}",
            settled.changes,
            settled.planning.milliseconds(1),
            settled.applying.milliseconds(1)
        );
    }
}

/// A line of /proc/self/status, in KiB.
fn memory(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.split_whitespace().nth(1));
    found.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn play((name, services): Scene, nodes: u64, tasks: u64) {
    let mut bench = Bench::new(nodes);
    let before = memory("VmRSS");
    let specs = services(nodes, tasks);
    println!("{name}: {nodes} nodes, {} services", specs.len());
    let create = |(number, spec): (usize, ServiceSpec)| {
        let id = ServiceId::parse(&format!("service{number:018}")).unwrap_or_default();
        Change::create(Object::Service(Box::new(edit::service_created(id, spec))))
    };
    let services: Vec<Change> = specs.into_iter().enumerate().map(create).collect();
    bench.apply(&services);
    drop(services);
    let settled = bench.settle();
    let placed = bench.state.tasks().iter().filter(|task| task.status.state == TaskState::Assigned).count();
    println!("  {placed} tasks placed, of {}", bench.state.tasks().len());
    println!("  planned  {}", settled.planning.seconds(placed));
    println!("  applied  {}", settled.applying.seconds(placed));
    let mut both = settled.planning;
    both += settled.applying;
    println!("  together {}", both.seconds(placed));
    let each = memory("VmRSS").saturating_sub(before) * 1024 / u64::try_from(placed.max(1)).unwrap_or(1);
    println!("  memory: {each} bytes for each task; at most {} MiB", memory("VmHWM") / 1024);
    bench.start();
    bench.rest();
    bench.lose_a_node();
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().and_then(|arg| arg.parse::<u64>().ok()).unwrap_or(default);
    let (nodes, tasks) = (number(10_000), number(1_000_000));
    let wanted = args.next().unwrap_or_default();
    println!("load: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    for scene in SCENES.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        play(scene, nodes, tasks);
    }
}
