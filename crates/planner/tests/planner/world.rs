//! A world is a cluster in memory: a state, a planner, and agents on nodes that can be killed, cut off and brought back.

use gantry_model::container::Empty;
use gantry_model::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use gantry_model::network::NetworkSpec;
use gantry_model::node::{Availability, Node, NodeState};
use gantry_model::service::{ContainerSpec, Replicated, Service, ServiceMode, ServiceSpec, Version};
use gantry_model::task::{Task, TaskState, TaskStatus};
use gantry_planner::{
    Assigner, Assignment, Change, ClusterNetwork, ClusterRecord, Ids, Object, ObjectRef, Planner, Revision,
    State, Wanted, edit, init, validate, wanted,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One node's agent: what its containers really do, whatever the managers know.
#[derive(Default)]
pub struct Agent {
    /// Cut off from the managers, or dead.
    pub cut_off: bool,
    /// Containers by task, with the state that the agent would report.
    pub containers: BTreeMap<TaskId, TaskState>,
}

/// A cluster in memory.
pub struct World {
    pub state: State,
    pub planner: Planner,
    pub ids: Ids,
    pub now: Timestamp,
    pub agents: BTreeMap<NodeId, Agent>,
    /// Images whose containers end with an error as soon as they start.
    pub broken: BTreeSet<String>,
    /// Images that no node can fetch.
    pub unpullable: BTreeSet<String>,
    /// Images whose containers end well in the step after they started.
    pub short: BTreeSet<String>,
    seen: HashMap<TaskId, TaskState>,
    assigner: Option<Assigner>,
    /// What each node was told last.
    told: HashMap<NodeId, (Revision, Assignment)>,
}

impl World {
    /// A cluster of so many ready nodes, `n1` and so on.
    pub fn new(nodes: usize) -> Self {
        let mut record = ClusterRecord::default();
        record.cluster.id = ClusterId::parse("c").expect("an id");
        let mut world = Self {
            state: State::default(),
            planner: Planner::default(),
            ids: Ids::new([7; 32]),
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            agents: BTreeMap::new(),
            broken: BTreeSet::new(),
            unpullable: BTreeSet::new(),
            short: BTreeSet::new(),
            seen: HashMap::new(),
            assigner: None,
            told: HashMap::new(),
        };
        let first = world.node_object(1);
        world.agents.insert(first.id.clone(), Agent::default());
        world.apply(&init::cluster_created(record, first, NetworkId::parse("ingress-id").expect("an id")));
        for number in 2..=nodes {
            world.add_node(number);
        }
        world
    }

    fn node_object(&self, number: usize) -> Node {
        let mut node = Node { id: node(number), ..Node::default() };
        node.description.hostname = format!("host{number}");
        node.description.platform.os = "linux".into();
        node.description.platform.architecture = "x86_64".into();
        node.description.resources.nano_cpus = 4_000_000_000;
        node.description.resources.memory_bytes = 8 << 30;
        node.status.state = NodeState::Ready;
        node.status.addr = format!("10.200.{}.{}", number / 250, number % 250 + 1);
        node
    }

    pub fn add_node(&mut self, number: usize) {
        let node = self.node_object(number);
        self.agents.insert(node.id.clone(), Agent::default());
        self.apply(&[Change::create(Object::Node(Box::new(node)))]);
    }

    pub fn apply(&mut self, changes: &[Change]) {
        let index = self.state.index() + 1;
        self.state.apply(index, self.now, changes).expect("the changes are accepted");
    }

    /// Plans and applies until nothing is left to do; returns how many plans that took.
    pub fn settle(&mut self) -> usize {
        for round in 0..20 {
            let plan = self.planner.plan(&self.state, self.now, &mut self.ids);
            if plan.changes.is_empty() {
                // The planner's memory must not hide work.
                let fresh = gantry_planner::plan(&self.state, self.now, &mut self.ids.clone());
                assert_eq!(fresh.changes, [], "a planner without memory has more to do");
                assert_eq!(fresh.wake_at, plan.wake_at, "a planner without memory wakes at another time");
                return round;
            }
            self.apply(&plan.changes);
        }
        let plan = self.planner.plan(&self.state, self.now, &mut self.ids);
        panic!("the plan does not come to rest: {:#?}", plan.changes);
    }

    /// One second: the managers plan, the agents do one step each and report, the managers plan again.
    pub fn step(&mut self) {
        self.settle();
        self.agents_act();
        self.now += SignedDuration::from_secs(1);
        self.settle();
        self.check();
    }

    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// Steps until a condition holds; fails after a minute of the world's time.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..120 {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!("{what} did not come true; tasks:\n{}", self.table());
    }

    fn agents_act(&mut self) {
        let mut reports = Vec::new();
        for (id, agent) in &mut self.agents {
            if agent.cut_off {
                continue;
            }
            let assigned: Vec<Arc<Task>> = self.state.tasks_of_node(id).cloned().collect();
            agent.containers.retain(|task, _| assigned.iter().any(|assigned| assigned.id == *task));
            for task in assigned.iter().filter(|task| !task.status.state.is_terminal()) {
                let image = &task.spec.container_spec.as_ref().map(|c| c.image.clone()).unwrap_or_default();
                let state = agent.containers.entry(task.id.clone()).or_insert(task.status.state);
                *state = match *state {
                    TaskState::Preparing if self.unpullable.contains(image) => TaskState::Rejected,
                    state => {
                        next(state, wanted(task), self.broken.contains(image), self.short.contains(image))
                    }
                };
                let status =
                    TaskStatus { state: *state, timestamp: self.now.to_string(), ..task.status.clone() };
                reports.push(Change::Status { task: task.id.clone(), status });
            }
        }
        self.apply(&reports);
    }

    fn check(&mut self) {
        for task in self.state.tasks().iter() {
            let before = self.seen.insert(task.id.clone(), task.status.state);
            assert!(before.is_none_or(|before| before <= task.status.state), "{} went back", task.id);
        }
        self.check_slots();
        self.check_nodes();
        self.check_addresses();
        // It takes longer than all else.
        if self.state.index().is_multiple_of(3) {
            self.check_assignments();
        }
    }

    /// A node whose revision is the same has the same assignment, and what is made with a memory is what is made without.
    fn check_assignments(&mut self) {
        let state = Arc::new(self.state.clone());
        let assigner = self.assigner.get_or_insert_with(|| Assigner::new(Arc::clone(&state)));
        assigner.advance(&state);
        for node in state.nodes().iter().map(|node| node.id.clone()) {
            let (revision, fresh) = (assigner.revision(&node), gantry_planner::assignment(&state, &node));
            assert_eq!(assigner.assignment(&node), fresh, "{node}");
            if let Some((_, old)) = self.told.get(&node).filter(|(told, _)| *told == revision) {
                assert_eq!(*old, fresh, "{node} would not hear of a change");
            }
            self.told.insert(node, (revision, fresh));
        }
    }

    /// In each slot one container runs, or two while one takes over from the other; those on nodes that the managers
    /// cannot reach do not count, as nobody can stop them.
    fn check_slots(&self) {
        type Slot = (ServiceId, u64, Option<NodeId>);
        let mut running: BTreeMap<Slot, Vec<&Arc<Task>>> = BTreeMap::new();
        for (node, agent) in self.agents.iter().filter(|(_, agent)| !agent.cut_off) {
            for (id, state) in &agent.containers {
                if let Some(task) = self
                    .state
                    .task(id)
                    .filter(|task| *state == TaskState::Running && !task.service_id.is_empty())
                {
                    let node = (task.slot == 0).then(|| node.clone());
                    running.entry((task.service_id.clone(), task.slot, node)).or_default().push(task);
                }
            }
        }
        for (slot, tasks) in running {
            let most = if self.may_overlap(&tasks) { 2 } else { 1 };
            assert!(tasks.len() <= most, "{} tasks run in slot {slot:?}:\n{}", tasks.len(), self.table());
        }
    }

    fn may_overlap(&self, tasks: &[&Arc<Task>]) -> bool {
        tasks.iter().any(|task| {
            let service = self.state.service(&task.service_id);
            let config = service.and_then(|service| service.spec.update_config.as_ref());
            let start_first = config.is_some_and(|config| config.order == "start-first");
            let node = self.state.node(&task.node_id);
            // A node that came back still runs what was replaced meanwhile, until its agent has heard so.
            let replaced = task.desired_state > TaskState::Complete;
            start_first || replaced || node.is_none_or(|node| node.spec.availability == Availability::Drain)
        })
    }

    pub fn check_nodes(&self) {
        for node in self.state.nodes().iter() {
            let Some(load) = self.state.load_of(&node.id) else { continue };
            assert!(load.nano_cpus <= node.description.resources.nano_cpus, "{} is oversubscribed", node.id);
            assert!(
                load.memory_bytes <= node.description.resources.memory_bytes,
                "{} is oversubscribed",
                node.id
            );
            assert!(
                load.host_ports.values().all(|count| *count == 1),
                "two tasks have one port on {}",
                node.id
            );
        }
    }

    fn check_addresses(&self) {
        let mut taken = BTreeSet::new();
        let tasks = self.state.tasks().iter().filter(|task| !task.status.state.is_terminal());
        for attachment in tasks.flat_map(|task| &task.networks_attachments) {
            for address in &attachment.addresses {
                assert!(
                    taken.insert((attachment.network_id.clone(), address.clone())),
                    "{address} was given twice"
                );
            }
        }
    }

    /// Creates a service as the control API does.
    pub fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let id = ServiceId::parse(&format!("s-{}", spec.name)).expect("an id");
        let spec = validate::service_spec(&self.state, spec, None).expect("a good specification");
        self.apply(&[Change::create(Object::Service(Box::new(edit::service_created(id.clone(), spec))))]);
        id
    }

    /// Updates a service as the control API does.
    pub fn update(&mut self, id: &ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.service(id);
        let mut spec = service.spec.clone();
        change(&mut spec);
        let spec = validate::service_spec(&self.state, spec, Some(&service)).expect("a good specification");
        let updated = edit::service_updated(&service, service.version, spec, self.now).expect("an update");
        self.apply(&[Change::replace(Object::Service(Box::new(updated)))]);
    }

    pub fn remove(&mut self, id: &ServiceId) {
        self.apply(&[Change::delete(ObjectRef::Service(id.clone()))]);
    }

    pub fn create_network(&mut self, name: &str, spec: NetworkSpec) -> String {
        let id = format!("net-{name}");
        let spec = validate::network_spec(&self.state, NetworkSpec { name: name.into(), ..spec })
            .expect("a good network");
        let mut network = ClusterNetwork::default();
        network.network.id = id.clone();
        network.network.spec = spec;
        self.apply(&[Change::create(Object::Network(Box::new(network)))]);
        id
    }

    pub fn change_node(&mut self, number: usize, change: impl FnOnce(&mut Node)) {
        let mut changed = self.state.node(&node(number)).expect("the node").as_ref().clone();
        change(&mut changed);
        self.apply(&[Change::replace(Object::Node(Box::new(changed)))]);
    }

    /// The node's agent is not heard of any more, and the managers notice.
    pub fn lose(&mut self, number: usize) {
        self.agents.get_mut(&node(number)).expect("the agent").cut_off = true;
        self.change_node(number, |node| node.status.state = NodeState::Down);
    }

    /// The node's agent is heard of again.
    pub fn regain(&mut self, number: usize) {
        self.agents.get_mut(&node(number)).expect("the agent").cut_off = false;
        self.change_node(number, |node| node.status.state = NodeState::Ready);
    }

    pub fn service(&self, id: &ServiceId) -> Service {
        self.state.service(id).expect("the service").as_ref().clone()
    }

    pub fn update_state(&self, id: &ServiceId) -> String {
        self.service(id).update_status.map(|status| status.state).unwrap_or_default()
    }

    /// The tasks of a service that are wanted and run.
    pub fn running(&self, id: &ServiceId) -> Vec<Arc<Task>> {
        let runs = |task: &&Arc<Task>| {
            task.status.state == TaskState::Running && task.desired_state <= TaskState::Complete
        };
        let mut tasks: Vec<Arc<Task>> = self.state.tasks_of_service(id).filter(runs).cloned().collect();
        tasks.sort_by(|a, b| (a.slot, &a.node_id, &a.created_at).cmp(&(b.slot, &b.node_id, &b.created_at)));
        tasks
    }

    /// How many tasks of a service run on each node.
    pub fn spread(&self, id: &ServiceId) -> Vec<usize> {
        let running = self.running(id);
        self.agents.keys().map(|node| running.iter().filter(|task| task.node_id == *node).count()).collect()
    }

    pub fn table(&self) -> String {
        let mut lines: Vec<String> = self
            .state
            .tasks()
            .iter()
            .map(|t| {
                format!(
                    "{}.{} {} v{} on {}: {:?}, wanted {:?} {}",
                    t.service_name,
                    t.slot,
                    t.created_at,
                    t.spec_version,
                    t.node_id,
                    t.status.state,
                    t.desired_state,
                    t.status.err
                )
            })
            .collect();
        lines.sort();
        lines.join("\n")
    }
}

/// The next state of a container.
fn next(state: TaskState, wanted: Wanted, broken: bool, short: bool) -> TaskState {
    use TaskState as S;
    match (state, wanted) {
        (state, _) if state.is_terminal() => state,
        (_, Wanted::Stop | Wanted::Remove) => S::Shutdown,
        (S::New | S::Pending | S::Assigned, _) => S::Preparing,
        (S::Accepted | S::Preparing, _) => S::Ready,
        (S::Ready, Wanted::Prepare) => S::Ready,
        (S::Ready, _) => S::Starting,
        (_, _) if broken => S::Failed,
        (S::Running, _) if short => S::Complete,
        (_, _) => S::Running,
    }
}

pub fn node(number: usize) -> NodeId {
    NodeId::parse(&format!("n{number:05}")).expect("an id")
}

/// A replicated service.
pub fn replicated(name: &str, replicas: u64) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
    spec.mode.replicated = Some(Replicated { replicas: Some(replicas) });
    spec.task_template.container_spec =
        Some(ContainerSpec { image: "app:1".into(), ..ContainerSpec::default() });
    spec
}

/// A global service.
pub fn global(name: &str) -> ServiceSpec {
    ServiceSpec {
        mode: ServiceMode { global: Some(Empty {}), ..ServiceMode::default() },
        ..replicated(name, 1)
    }
}

pub fn set_image(spec: &mut ServiceSpec, image: &str) {
    spec.task_template.container_spec.as_mut().expect("a container").image = image.into();
}

pub fn version(index: u64) -> Version {
    Version { index }
}
