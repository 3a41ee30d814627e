//! The state of the cluster: all objects in memory, with indexes; what the Raft state machine holds.
//!
//! A copy is cheap ([`crate::table`]). [`State::apply`] is the only way to change it, and a function of its arguments
//! alone, so every manager that applies the same log has the same state.

use crate::change::{Change, Expect, Refusal, Refused};
use crate::index::{Addresses, Indexes, NodeLoad, PublishMode, protocol_of};
use crate::numbers::Numbers;
use crate::object::{ClusterNetwork, ClusterRecord, Object, ObjectRef};
use crate::subnet::AddressSet;
use crate::table::{Handle, Keyed, Table};
use crate::time;
use gantry_model::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use gantry_model::node::{Node, NodeState};
use gantry_model::secret::{Config, Secret};
use gantry_model::service::{PortConfig, Service, Version};
use gantry_model::task::{NetworkAttachment, Task, TaskState, TaskStatus};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// All objects of the cluster, with indexes.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(crate) index: u64,
    pub(crate) cluster: Option<Arc<ClusterRecord>>,
    pub(crate) nodes: Table<Node>,
    pub(crate) services: Table<Service>,
    pub(crate) tasks: Table<Task>,
    pub(crate) networks: Table<ClusterNetwork>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) configs: Table<Config>,
    pub(crate) indexes: Indexes,
}

/// Equal objects and index; the indexes follow from these.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
            && self.cluster == other.cluster
            && self.nodes == other.nodes
            && self.services == other.services
            && self.tasks == other.tasks
            && self.networks == other.networks
            && self.secrets == other.secrets
            && self.configs == other.configs
    }
}

impl State {
    /// Index of the last batch that was applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The cluster, once it is initialised.
    pub fn cluster(&self) -> Option<&Arc<ClusterRecord>> {
        self.cluster.as_ref()
    }

    /// A node.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id.as_str())
    }

    /// A service.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id.as_str())
    }

    /// A service by its exact name.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.service(self.indexes.service_names.get(name)?)
    }

    /// A task.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id.as_str())
    }

    /// A network.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<ClusterNetwork>> {
        self.networks.get(id.as_str())
    }

    /// A network by its exact name.
    pub fn network_named(&self, name: &str) -> Option<&Arc<ClusterNetwork>> {
        self.networks.iter().find(|network| network.network.spec.name == name)
    }

    /// The routing mesh's network.
    pub fn ingress_network(&self) -> Option<&Arc<ClusterNetwork>> {
        self.networks.iter().find(|network| network.network.spec.ingress)
    }

    /// A secret.
    pub fn secret(&self, id: &SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(id.as_str())
    }

    /// A config.
    pub fn config(&self, id: &ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(id.as_str())
    }

    /// All nodes.
    pub fn nodes(&self) -> &Table<Node> {
        &self.nodes
    }

    /// All services.
    pub fn services(&self) -> &Table<Service> {
        &self.services
    }

    /// All tasks, attachments too.
    pub fn tasks(&self) -> &Table<Task> {
        &self.tasks
    }

    /// All networks.
    pub fn networks(&self) -> &Table<ClusterNetwork> {
        &self.networks
    }

    /// All secrets.
    pub fn secrets(&self) -> &Table<Secret> {
        &self.secrets
    }

    /// All configs.
    pub fn configs(&self) -> &Table<Config> {
        &self.configs
    }

    /// The tasks of a service, in no order that means anything.
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.by_service.get(id.as_str()).map(|group| &group.tasks))
    }

    /// The tasks that were given to a node.
    pub fn tasks_of_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.by_node.get(id.as_str()).map(|node| &node.tasks))
    }

    /// The tasks that stand for containers outside services.
    pub fn attachments(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.by_service.get("").map(|group| &group.tasks))
    }

    /// The tasks of a set of handles.
    pub(crate) fn listed<'s>(&'s self, handles: Option<&'s Numbers>) -> impl Iterator<Item = &'s Arc<Task>> {
        handles.into_iter().flat_map(Numbers::iter).filter_map(move |handle| self.tasks.at(handle))
    }

    /// The tasks that wait for a node.
    pub fn unplaced(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(Some(&self.indexes.unplaced))
    }

    /// What the tasks of a node take of it.
    pub fn load_of(&self, id: &NodeId) -> Option<&NodeLoad> {
        self.indexes.by_node.get(id.as_str()).map(|node| &node.load)
    }

    /// The tasks with a place in a network that have not ended.
    pub fn members_of(&self, network: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.networks.get(network).map(|network| &network.members))
    }

    /// The addresses of a network that are in use.
    pub fn addresses_of(&self, network: &str) -> Option<&AddressSet> {
        self.indexes.networks.get(network).map(|network| &network.addresses)
    }

    /// Applies a batch: all of it, or nothing. Sets the version of every object that it puts to `index`, its time of
    /// change to `now`, and its time of creation where it has none.
    pub fn apply(&mut self, index: u64, now: Timestamp, changes: &[Change]) -> Result<(), Refused> {
        let mut next = self.clone();
        let moment = Moment::new(index, now);
        for (which, change) in changes.iter().enumerate() {
            next.apply_one(&moment, change).map_err(|why| Refused { which, why })?;
        }
        next.index = index;
        *self = next;
        Ok(())
    }

    fn apply_one(&mut self, moment: &Moment, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Put { object, expect } => {
                self.check(&object.reference(), *expect)?;
                self.check_name(object)?;
                self.check_ports(object)?;
                self.put(moment, object);
            }
            Change::Delete { object, expect } => {
                self.check(object, *expect)?;
                self.delete(moment.index, object);
            }
            Change::Status { task, status } => self.observe(moment, task, status),
            Change::Desire { task, state } => self.desire(moment, task, *state),
        }
        Ok(())
    }

    /// The version in which the store has an object.
    pub fn version_of(&self, object: &ObjectRef) -> Option<Version> {
        match object {
            ObjectRef::Cluster => self.cluster.as_ref().map(|record| record.cluster.version),
            ObjectRef::Node(id) => self.node(id).map(|node| node.version),
            ObjectRef::Service(id) => self.service(id).map(|service| service.version),
            ObjectRef::Task(id) => self.task(id).map(|task| task.version),
            ObjectRef::Network(id) => self.network(id).map(|network| network.version),
            ObjectRef::Secret(id) => self.secret(id).map(|secret| secret.version),
            ObjectRef::Config(id) => self.config(id).map(|config| config.version),
        }
    }

    fn check(&self, object: &ObjectRef, expect: Expect) -> Result<(), Refusal> {
        match (expect, self.version_of(object)) {
            (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
            (Expect::Absent, Some(_)) => Err(Refusal::Exists(object.clone())),
            (Expect::At(_), None) => Err(Refusal::Missing(object.clone())),
            (Expect::At(wanted), Some(version)) if wanted == version => Ok(()),
            (Expect::At(_), Some(_)) => Err(Refusal::OutOfSequence(object.clone())),
        }
    }

    fn check_name(&self, object: &Object) -> Result<(), Refusal> {
        let (kind, name, taken) = match object {
            Object::Service(new) => {
                let holder = self.indexes.service_names.get(&new.spec.name);
                ("service", &new.spec.name, holder.is_some_and(|id| *id != new.id))
            }
            Object::Network(new) => {
                let name = &new.network.spec.name;
                let holder = self.network_named(name);
                ("network", name, holder.is_some_and(|other| other.network.id != new.network.id))
            }
            Object::Secret(new) => {
                let taken =
                    self.secrets.iter().any(|other| other.spec.name == new.spec.name && other.id != new.id);
                ("secret", &new.spec.name, taken)
            }
            Object::Config(new) => {
                let taken =
                    self.configs.iter().any(|other| other.spec.name == new.spec.name && other.id != new.id);
                ("config", &new.spec.name, taken)
            }
            Object::Cluster(_) | Object::Node(_) | Object::Task(_) => return Ok(()),
        };
        if taken { Err(Refusal::NameConflict { kind: kind.to_owned(), name: name.clone() }) } else { Ok(()) }
    }

    /// What was checked when the change was made may be taken by the time it is applied. Only what is newly asked for is looked at: a
    /// service that has its ports is never refused.
    fn check_ports(&self, object: &Object) -> Result<(), Refusal> {
        let Object::Service(new) = object else { return Ok(()) };
        let old = self.service(&new.id);
        let had = old.as_ref().map(|old| old.spec.ports()).unwrap_or_default();
        for port in new.spec.ports().iter().filter(|port| !had.contains(port)) {
            if let Some((holder, _)) = self.holder_of(port, Some(&new.id)) {
                let service =
                    self.service(&holder).map(|service| service.spec.name.clone()).unwrap_or_default();
                return Err(Refusal::PortConflict { port: port.published_port, service });
            }
        }
        Ok(())
    }

    /// Another service that publishes a port so that this one cannot. Two may publish the same on the nodes of their tasks,
    /// where the scheduler keeps them apart; a port of the mesh is one service's alone.
    pub(crate) fn holder_of(
        &self,
        port: &PortConfig,
        own: Option<&ServiceId>,
    ) -> Option<(ServiceId, PublishMode)> {
        let services = self.indexes.ports.get(&(protocol_of(port), port.published_port))?;
        let both_on_nodes =
            |mode: PublishMode| mode == PublishMode::Host && PublishMode::of(port) == PublishMode::Host;
        let mut others = services.iter().filter(|(id, mode)| own != Some(*id) && !both_on_nodes(**mode));
        others.next().map(|(id, mode)| (id.clone(), *mode))
    }

    fn put(&mut self, moment: &Moment, object: &Object) {
        let mut object = object.clone();
        match &mut object {
            Object::Cluster(record) => {
                let cluster = &mut record.cluster;
                moment.mark(&mut cluster.version, &mut cluster.created_at, &mut cluster.updated_at);
            }
            Object::Node(node) => {
                moment.mark(&mut node.version, &mut node.created_at, &mut node.updated_at);
                let known = self.node(&node.id).filter(|old| old.status.state == node.status.state);
                node.status.since = known.map_or_else(|| moment.text.clone(), |old| old.status.since.clone());
                node.status.gone &= node.status.state == NodeState::Down;
            }
            Object::Service(service) => {
                let stored = self.service(&service.id);
                match stored.filter(|stored| stored.spec == service.spec) {
                    Some(stored) => service.spec_since = stored.spec_since,
                    None => service.spec_since = Version { index: moment.index },
                }
                moment.mark(&mut service.version, &mut service.created_at, &mut service.updated_at);
            }
            Object::Task(task) => {
                moment.mark(&mut task.version, &mut task.created_at, &mut task.updated_at);
                self.share_template(task);
            }
            Object::Network(network) => {
                moment.mark(&mut network.version, &mut network.network.created, &mut network.updated_at);
            }
            Object::Secret(secret) => {
                moment.mark(&mut secret.version, &mut secret.created_at, &mut secret.updated_at)
            }
            Object::Config(config) => {
                moment.mark(&mut config.version, &mut config.created_at, &mut config.updated_at)
            }
        }
        self.insert(moment.index, object);
    }

    /// Lets a task that came as text, with a copy of its template of its own, share that of the service's newest task.
    fn share_template(&self, task: &mut Task) {
        let group = self.indexes.by_service.get(task.service_id.as_str());
        let newest = group.and_then(|group| self.tasks.at(group.tasks.last()?));
        if let Some(newest) = newest.filter(|newest| newest.spec_version == task.spec_version)
            && newest.spec == task.spec
        {
            task.spec = newest.spec.clone();
        }
    }

    /// Puts an object as it is, version and times included, and keeps the indexes.
    pub(crate) fn insert(&mut self, index: u64, object: Object) {
        match object {
            Object::Cluster(record) => {
                self.indexes.networks_touched = index;
                self.cluster = Some(Arc::new(*record));
            }
            Object::Node(node) => {
                self.indexes.node(index, &node.id, Some(&node));
                self.nodes.insert(Arc::new(*node));
            }
            Object::Service(service) => {
                let service = Arc::new(*service);
                let old = self.services.insert(Arc::clone(&service));
                self.indexes.service(index, old.as_deref(), Some(&service));
            }
            Object::Task(task) => self.put_task(index, *task),
            Object::Network(network) => {
                let network = Arc::new(*network);
                let old = self.networks.insert(Arc::clone(&network));
                self.indexes.network(index, old.as_deref(), Some(&network));
            }
            Object::Secret(secret) => {
                self.indexes.data_touched = index;
                self.secrets.insert(Arc::new(*secret));
            }
            Object::Config(config) => {
                self.indexes.data_touched = index;
                self.configs.insert(Arc::new(*config));
            }
        }
    }

    fn put_task(&mut self, index: u64, task: Task) {
        let task = Arc::new(task);
        let (handle, old) = self.tasks.put(Arc::clone(&task));
        self.indexes.task(index, handle, old.as_deref(), Some(&task));
        if !task.node_id.is_empty() && !self.nodes.contains(task.node_id.as_str()) {
            self.indexes.missing_node(&task.node_id);
        }
    }

    /// Gives a task that waits its node, and the addresses that it has no other of.
    pub(crate) fn place(&mut self, index: u64, handle: Handle, placement: Placement<'_>) {
        let Some(task) = self.tasks.at_mut(handle) else { return };
        let task = Arc::make_mut(task);
        let had = &task.networks_attachments;
        let addresses = if placement.attachments.is_empty() || !had.is_empty() {
            Addresses::Kept
        } else {
            Addresses::New
        };
        if addresses == Addresses::New {
            task.networks_attachments = placement.attachments;
        }
        task.node_id.clone_from(placement.node);
        task.status.state = TaskState::Assigned;
        placement.now.clone_into(&mut task.status.timestamp);
        placement.message.clone_into(&mut task.status.message);
        task.status.err.clear();
        self.indexes.placed(index, handle, task, addresses);
    }

    pub(crate) fn delete(&mut self, index: u64, object: &ObjectRef) {
        match object {
            ObjectRef::Cluster => self.cluster = None,
            ObjectRef::Node(id) => {
                self.nodes.remove(id.as_str());
                self.indexes.node(index, id, None);
            }
            ObjectRef::Service(id) => {
                let old = self.services.remove(id.as_str());
                self.indexes.service(index, old.as_deref(), None);
                self.indexes.forget_service(id.as_str());
            }
            ObjectRef::Task(id) => {
                let handle = self.tasks.handle(id.as_str());
                if let Some((handle, old)) = handle.and_then(|at| Some((at, self.tasks.remove_at(at)?))) {
                    self.indexes.task(index, handle, Some(&old), None);
                    self.indexes.forget_node(&old.node_id, self.nodes.contains(old.node_id.as_str()));
                    if !self.services.contains(old.service_id.as_str()) {
                        self.indexes.forget_service(old.service_id.as_str());
                    }
                }
            }
            ObjectRef::Network(id) => {
                let old = self.networks.remove(id.as_str());
                self.indexes.network(index, old.as_deref(), None);
            }
            ObjectRef::Secret(id) => {
                self.indexes.data_touched = index;
                self.secrets.remove(id.as_str());
            }
            ObjectRef::Config(id) => {
                self.indexes.data_touched = index;
                self.configs.remove(id.as_str());
            }
        }
    }

    /// Takes a status that was observed.
    pub(crate) fn observe(&mut self, moment: &Moment, task: &TaskId, status: &TaskStatus) {
        let Some(handle) = self.tasks.handle(task.as_str()) else { return };
        let forward = |old: &Task| moves_forward(&old.status, status);
        self.advance(moment, handle, forward, |task| {
            task.status.clone_from(status);
            if task.running_at.is_empty() && status.state == TaskState::Running {
                task.running_at.clone_from(&moment.text);
            }
            if task.ended_at.is_empty() && status.state.is_terminal() {
                task.ended_at.clone_from(&moment.text);
            }
        });
    }

    /// Raises the state that is wanted.
    pub(crate) fn desire(&mut self, moment: &Moment, task: &TaskId, state: TaskState) {
        let Some(handle) = self.tasks.handle(task.as_str()) else { return };
        let forward = |old: &Task| old.desired_state < state;
        self.advance(moment, handle, forward, |task| task.desired_state = state);
    }

    fn advance(
        &mut self,
        moment: &Moment,
        handle: Handle,
        forward: impl FnOnce(&Task) -> bool,
        change: impl FnOnce(&mut Task),
    ) {
        let Some(old) = self.tasks.at(handle).filter(|old| forward(old)).cloned() else { return };
        let mut task = Task::clone(&old);
        change(&mut task);
        task.version = Version { index: moment.index };
        task.updated_at.clone_from(&moment.text);
        self.indexes.task(moment.index, handle, Some(&old), Some(&task));
        if let Some(place) = self.tasks.at_mut(handle) {
            *place = Arc::new(task);
        }
    }
}

/// Whether a task may go from one observed status to the next: never to an earlier state, and nothing changes once it
/// has ended, except that its node is given up.
pub fn moves_forward(from: &TaskStatus, to: &TaskStatus) -> bool {
    if from.state.is_terminal() {
        to.state == TaskState::Orphaned && from.state != to.state
    } else {
        to.state >= from.state && from != to
    }
}

/// A task's node, and what comes with it.
pub(crate) struct Placement<'p> {
    /// The node.
    pub node: &'p NodeId,
    /// Its addresses, if it had none.
    pub attachments: Vec<NetworkAttachment>,
    /// The time, as text.
    pub now: &'p str,
    /// For the task's status.
    pub message: &'p str,
}

/// When a batch is applied: its place in the log, and its time as the objects carry it.
#[derive(Debug)]
pub(crate) struct Moment {
    pub index: u64,
    pub text: String,
}

impl Moment {
    /// At an index and a time.
    pub fn new(index: u64, now: Timestamp) -> Self {
        Self { index, text: time::text(now) }
    }

    fn mark(&self, version: &mut Version, created: &mut String, updated: &mut String) {
        *version = Version { index: self.index };
        updated.clone_from(&self.text);
        if created.is_empty() {
            created.clone_from(&self.text);
        }
    }
}

/// The state as it lies in a snapshot: the objects, sorted, without the indexes.
#[derive(Serialize)]
struct Outgoing<'s> {
    index: u64,
    cluster: Option<&'s ClusterRecord>,
    nodes: Vec<&'s Node>,
    services: Vec<&'s Service>,
    tasks: Vec<&'s Task>,
    networks: Vec<&'s ClusterNetwork>,
    secrets: Vec<&'s Secret>,
    configs: Vec<&'s Config>,
}

#[derive(Deserialize)]
struct Incoming {
    index: u64,
    cluster: Option<ClusterRecord>,
    nodes: Vec<Node>,
    services: Vec<Service>,
    tasks: Vec<Task>,
    networks: Vec<ClusterNetwork>,
    secrets: Vec<Secret>,
    configs: Vec<Config>,
}

fn listed<T: Keyed>(table: &Table<T>) -> Vec<&T> {
    table.sorted().into_iter().map(Arc::as_ref).collect()
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Outgoing {
            index: self.index,
            cluster: self.cluster.as_deref(),
            nodes: listed(&self.nodes),
            services: listed(&self.services),
            tasks: listed(&self.tasks),
            networks: listed(&self.networks),
            secrets: listed(&self.secrets),
            configs: listed(&self.configs),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let read = Incoming::deserialize(from)?;
        let mut state = State {
            index: read.index,
            cluster: read.cluster.map(Arc::new),
            secrets: read.secrets.into_iter().collect(),
            configs: read.configs.into_iter().collect(),
            ..State::default()
        };
        state.indexes.data_touched = read.index;
        for node in read.nodes {
            state.insert(read.index, Object::Node(Box::new(node)));
        }
        state.indexes.nodes_touched = read.index;
        for network in read.networks {
            state.indexes.network(read.index, None, Some(&network));
            state.networks.insert(Arc::new(network));
        }
        for service in read.services {
            state.indexes.service(read.index, None, Some(&service));
            state.services.insert(Arc::new(service));
        }
        for mut task in read.tasks {
            state.share_template(&mut task);
            state.put_task(read.index, task);
        }
        Ok(state)
    }
}
