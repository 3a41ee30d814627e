//! Indexes of the state: everything here follows from the objects and is kept up to date with each change.

use crate::numbers::Numbers;
use crate::object::ClusterNetwork;
use crate::subnet::{AddressSet, address_of};
use crate::table::{Handle, Keyed, Table};
use gantry_model::id::{NodeId, ServiceId};
use gantry_model::node::{Node, NodeState};
use gantry_model::overlay::Transport;
use gantry_model::service::{PortConfig, Service};
use gantry_model::task::{Task, TaskState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The tasks of one service. Attachments are the group of the empty id.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    key: String,
    /// Store index at which the service or one of its tasks last changed.
    pub touched: u64,
    /// Handles of the tasks.
    pub tasks: Numbers,
}

impl Keyed for TaskGroup {
    fn key(&self) -> &str {
        &self.key
    }
}

/// The tasks of one node and what they take of it.
#[derive(Debug, Clone, Default)]
pub struct NodeTasks {
    key: String,
    /// Store index at which one of the tasks last changed, came or went.
    pub touched: u64,
    /// Handles of the tasks, dead ones too.
    pub tasks: Numbers,
    /// What they take.
    pub load: NodeLoad,
}

impl Keyed for NodeTasks {
    fn key(&self) -> &str {
        &self.key
    }
}

/// What is in one network.
#[derive(Debug, Clone, Default)]
pub struct NetworkUse {
    key: String,
    /// Handles of the tasks that have not ended.
    pub members: Numbers,
    /// Addresses of tasks, services and the network itself.
    pub addresses: AddressSet,
}

impl NetworkUse {
    fn new(key: String) -> Self {
        Self { key, ..Self::default() }
    }
}

impl Keyed for NetworkUse {
    fn key(&self) -> &str {
        &self.key
    }
}

/// What the tasks of a node take of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Reserved billionths of a CPU.
    pub nano_cpus: i64,
    /// Reserved bytes.
    pub memory_bytes: i64,
    /// Tasks that shall run.
    pub active: u32,
    /// Ports of the node that tasks publish: protocol and number.
    pub host_ports: BTreeMap<(Transport, u16), u32>,
}

/// The protocol of a published port; validation lets none pass but the three, and none means TCP.
pub fn protocol_of(port: &PortConfig) -> Transport {
    Transport::parse(&port.protocol).unwrap_or(Transport::Tcp)
}

/// Where a published port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// On every node.
    Ingress,
    /// On the nodes of the tasks.
    Host,
}

impl PublishMode {
    /// The mode of a published port; ingress unless it says `host`.
    pub fn of(port: &PortConfig) -> Self {
        if port.publish_mode == "host" { Self::Host } else { Self::Ingress }
    }
}

/// Whether a task has its node for good. Tasks of global services name their node from the beginning.
pub fn is_placed(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.node_id.is_empty()
}

/// Whether a task holds what it reserved: it has a node and its container has not ended.
pub fn holds_resources(task: &Task) -> bool {
    is_placed(task) && !task.status.state.is_terminal()
}

/// Whether a task is prepared and not yet to be started.
pub fn is_gated(task: &Task) -> bool {
    task.desired_state <= TaskState::Ready && !task.status.state.is_terminal()
}

/// Whether a task is meant to run (or to run to its end) and has not ended.
pub fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && !task.status.state.is_terminal()
}

/// Whether a task waits for a node.
pub fn is_unplaced(task: &Task) -> bool {
    task.status.state < TaskState::Assigned && task.desired_state <= TaskState::Complete
}

impl NodeLoad {
    /// Counts a task in.
    pub fn add(&mut self, task: &Task) {
        self.count(task, 1);
    }

    /// Counts a task out.
    pub fn remove(&mut self, task: &Task) {
        self.count(task, -1);
    }

    fn count(&mut self, task: &Task, sign: i32) {
        if holds_resources(task) {
            if let Some(reserved) = &task.spec.resources.reservations {
                self.nano_cpus =
                    self.nano_cpus.saturating_add(reserved.nano_cpus.saturating_mul(i64::from(sign)));
                self.memory_bytes =
                    self.memory_bytes.saturating_add(reserved.memory_bytes.saturating_mul(i64::from(sign)));
            }
            for port in task.host_ports.iter().filter(|port| port.published_port != 0) {
                adjust(&mut self.host_ports, (protocol_of(port), port.published_port), sign);
            }
            if is_live(task) {
                self.active = self.active.saturating_add_signed(sign);
            }
        }
    }
}

/// The ports with a number that a service asks for or was given.
fn published(service: &Service) -> impl Iterator<Item = &PortConfig> {
    service.spec.ports().iter().chain(&service.endpoint.ports).filter(|port| port.published_port != 0)
}

/// Puts a handle into a set, or takes it out, where the change of its task asks for it.
fn move_between(
    set: &mut Numbers,
    handle: Handle,
    old: Option<&Task>,
    new: Option<&Task>,
    belongs: fn(&Task) -> bool,
) {
    match (old.is_some_and(belongs), new.is_some_and(belongs)) {
        (false, true) => {
            set.insert(handle);
        }
        (true, false) => {
            set.remove(handle);
        }
        _ => {}
    }
}

fn adjust<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, sign: i32) {
    use std::collections::btree_map::Entry;
    match counts.entry(key) {
        Entry::Occupied(mut entry) => {
            *entry.get_mut() = entry.get().saturating_add_signed(sign);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        Entry::Vacant(entry) if sign > 0 => {
            entry.insert(1);
        }
        Entry::Vacant(_) => {}
    }
}

/// All indexes.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    /// Tasks by service.
    pub by_service: Table<TaskGroup>,
    /// Tasks by node.
    pub by_node: Table<NodeTasks>,
    /// Handles of the tasks that wait for a node.
    pub unplaced: Numbers,
    /// Handles of the tasks that are prepared and wait to be told to start.
    pub gated: Numbers,
    /// Nodes that do not answer or are gone: the tasks of these are given up in time. May hold some without a task.
    pub silent: Arc<BTreeSet<NodeId>>,
    /// Service names.
    pub service_names: Arc<BTreeMap<String, ServiceId>>,
    /// Published ports, and which services publish each, in which mode.
    pub ports: Arc<BTreeMap<(Transport, u16), BTreeMap<ServiceId, PublishMode>>>,
    /// Tasks and addresses in use, by network.
    pub networks: Table<NetworkUse>,
    /// Store index at which a node last changed.
    pub nodes_touched: u64,
    /// Store index at which a network or the cluster last changed.
    pub networks_touched: u64,
    /// Store index at which a secret or a config last changed.
    pub data_touched: u64,
}

impl Indexes {
    /// Takes the change of a task into account.
    pub fn task(&mut self, index: u64, handle: Handle, old: Option<&Task>, new: Option<&Task>) {
        let service = old.or(new).map(|task| task.service_id.as_str()).unwrap_or_default();
        let group = self.group(service);
        group.touched = index;
        match (old, new) {
            (None, Some(_)) => {
                group.tasks.insert(handle);
            }
            (Some(_), None) => {
                group.tasks.remove(handle);
            }
            _ => {}
        }
        self.task_on_node(index, handle, old, new);
        move_between(&mut self.unplaced, handle, old, new, is_unplaced);
        move_between(&mut self.gated, handle, old, new, is_gated);
        self.task_addresses(handle, old, new);
    }

    fn group(&mut self, service: &str) -> &mut TaskGroup {
        self.by_service.entry(service, |key| TaskGroup { key, ..TaskGroup::default() })
    }

    fn task_on_node(&mut self, index: u64, handle: Handle, old: Option<&Task>, new: Option<&Task>) {
        let (old, new) = (old.filter(|task| is_placed(task)), new.filter(|task| is_placed(task)));
        let stays = matches!((old, new), (Some(old), Some(new)) if old.node_id == new.node_id);
        if let Some(old) = old
            && let Some(node) = self.by_node.get_mut(old.node_id.as_str())
        {
            node.touched = index;
            if new.is_none_or(|new| !stays || takes_otherwise(old, new)) {
                node.load.remove(old);
            }
            if !stays {
                node.tasks.remove(handle);
            }
        }
        if let Some(new) = new.filter(|new| !stays || old.is_some_and(|old| takes_otherwise(old, new))) {
            self.on_node(index, handle, new);
        }
    }

    /// Counts a task in on its node.
    fn on_node(&mut self, index: u64, handle: Handle, task: &Task) {
        let node = self.by_node.entry(task.node_id.as_str(), |key| NodeTasks { key, ..NodeTasks::default() });
        node.touched = index;
        node.tasks.insert(handle);
        node.load.add(task);
    }

    /// Takes into account that a task which waited got its node and, where it had none, its addresses.
    pub fn placed(&mut self, index: u64, handle: Handle, task: &Task, addresses: Addresses) {
        self.group(task.service_id.as_str()).touched = index;
        self.on_node(index, handle, task);
        self.unplaced.remove(handle);
        if addresses == Addresses::New {
            self.mark_attachments(task, Mark::Use);
            self.join(handle, task);
        }
    }

    fn task_addresses(&mut self, handle: Handle, old: Option<&Task>, new: Option<&Task>) {
        // An ended task has left the network: its addresses are free, though its record keeps them for the history.
        let holds = |task: &&Task| !task.status.state.is_terminal() && !task.networks_attachments.is_empty();
        let (old, new) = (old.filter(holds), new.filter(holds));
        if let (Some(old), Some(new)) = (old, new)
            && old.networks_attachments == new.networks_attachments
        {
            return;
        }
        for (task, mark) in [(old, Mark::Free), (new, Mark::Use)] {
            if let Some(task) = task {
                self.mark_attachments(task, mark);
            }
        }
        if let Some(old) = old {
            self.leave(handle, old);
        }
        if let Some(new) = new {
            self.join(handle, new);
        }
    }

    fn join(&mut self, handle: Handle, task: &Task) {
        for attachment in &task.networks_attachments {
            self.network_use(&attachment.network_id).members.insert(handle);
        }
    }

    fn network_use(&mut self, network: &str) -> &mut NetworkUse {
        self.networks.entry(network, NetworkUse::new)
    }

    fn leave(&mut self, handle: Handle, task: &Task) {
        for attachment in &task.networks_attachments {
            if let Some(network) = self.networks.get_mut(&attachment.network_id) {
                network.members.remove(handle);
                if network.members.is_empty() && network.addresses.is_empty() {
                    self.networks.remove(&attachment.network_id);
                }
            }
        }
    }

    fn mark_attachments(&mut self, task: &Task, mark: Mark) {
        for attachment in &task.networks_attachments {
            for address in &attachment.addresses {
                self.mark(&attachment.network_id, address, mark);
            }
        }
    }

    /// Takes the change of a service into account.
    pub fn service(&mut self, index: u64, old: Option<&Service>, new: Option<&Service>) {
        self.service_ports(old, new);
        if let Some(old) = old {
            if new.is_none_or(|new| new.spec.name != old.spec.name) {
                Arc::make_mut(&mut self.service_names).remove(&old.spec.name);
            }
            for vip in &old.endpoint.virtual_ips {
                self.mark(&vip.network_id, &vip.addr, Mark::Free);
            }
            self.touch_service(index, old.id.as_str());
        }
        if let Some(new) = new {
            if old.is_none_or(|old| new.spec.name != old.spec.name) {
                Arc::make_mut(&mut self.service_names).insert(new.spec.name.clone(), new.id.clone());
            }
            for vip in &new.endpoint.virtual_ips {
                self.mark(&vip.network_id, &vip.addr, Mark::Use);
            }
            self.touch_service(index, new.id.as_str());
        }
    }

    fn service_ports(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let ports = |service: Option<&Service>| -> Vec<PortConfig> {
            service.into_iter().flat_map(published).cloned().collect()
        };
        if ports(old) == ports(new) {
            return;
        }
        if let Some(old) = old {
            self.free_ports(old);
        }
        if let Some(new) = new {
            self.use_ports(new);
        }
    }

    fn use_ports(&mut self, service: &Service) {
        for port in published(service) {
            let services =
                Arc::make_mut(&mut self.ports).entry((protocol_of(port), port.published_port)).or_default();
            services.insert(service.id.clone(), PublishMode::of(port));
        }
    }

    fn free_ports(&mut self, service: &Service) {
        for port in published(service) {
            let (ports, key) = (Arc::make_mut(&mut self.ports), (protocol_of(port), port.published_port));
            if let Some(services) = ports.get_mut(&key) {
                services.remove(&service.id);
                if services.is_empty() {
                    ports.remove(&key);
                }
            }
        }
    }

    /// Takes the change of a node into account; `None`: it is gone.
    pub fn node(&mut self, index: u64, id: &NodeId, new: Option<&Node>) {
        self.nodes_touched = index;
        let answers =
            new.is_some_and(|node| !matches!(node.status.state, NodeState::Down | NodeState::Disconnected));
        if answers == self.silent.contains(id) {
            let silent = Arc::make_mut(&mut self.silent);
            if answers {
                silent.remove(id);
            } else {
                silent.insert(id.clone());
            }
        }
        self.forget_node(id, new.is_some());
    }

    /// Forgets what is noted of a node that is gone, once no task of it is left.
    pub fn forget_node(&mut self, id: &NodeId, is_there: bool) {
        let empty = self.by_node.get(id.as_str()).is_none_or(|node| node.tasks.is_empty());
        if !is_there && empty {
            self.by_node.remove(id.as_str());
            if self.silent.contains(id) {
                Arc::make_mut(&mut self.silent).remove(id);
            }
        }
    }

    /// Notes a node that has a task and is not there.
    pub fn missing_node(&mut self, id: &NodeId) {
        if !self.silent.contains(id) {
            Arc::make_mut(&mut self.silent).insert(id.clone());
        }
    }

    /// Takes the change of a network into account. The addresses of its tasks are not touched: a network with tasks is
    /// neither deleted nor given another subnet.
    pub fn network(&mut self, index: u64, old: Option<&ClusterNetwork>, new: Option<&ClusterNetwork>) {
        self.networks_touched = index;
        match new {
            None => {
                if let Some(old) = old {
                    self.networks.remove(&old.network.id);
                }
            }
            Some(new) => {
                // The new ones first: so nothing that stays is free in between.
                self.mark_kept(new, Mark::Use);
                if let Some(old) = old {
                    self.mark_kept(old, Mark::Free);
                }
            }
        }
    }

    /// Marks the addresses of a network that are no task's.
    fn mark_kept(&mut self, network: &ClusterNetwork, mark: Mark) {
        for config in &network.network.spec.ipam.config {
            for kept in std::iter::once(&config.gateway).chain(config.aux_addresses.values()) {
                self.mark(&network.network.id, kept, mark);
            }
        }
    }

    fn mark(&mut self, network: &str, address: &str, mark: Mark) {
        let Some(address) = address_of(address) else { return };
        match mark {
            Mark::Use => {
                self.network_use(network).addresses.insert(address);
            }
            Mark::Free => {
                if let Some(network) = self.networks.get_mut(network) {
                    network.addresses.remove(address);
                }
            }
        }
    }

    fn touch_service(&mut self, index: u64, service: &str) {
        self.group(service).touched = index;
    }

    /// Forgets a service's group once neither the service nor a task of it is left.
    pub fn forget_service(&mut self, service: &str) {
        if self.by_service.get(service).is_some_and(|group| group.tasks.is_empty()) {
            self.by_service.remove(service);
        }
    }
}

#[derive(Clone, Copy)]
enum Mark {
    Use,
    Free,
}

/// Whether a task that got its node got its addresses with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// It has them since before, or has none.
    Kept,
    /// They are new.
    New,
}

/// Whether the same task takes something else of its node than before.
fn takes_otherwise(old: &Task, new: &Task) -> bool {
    let holds = holds_resources(old);
    holds != holds_resources(new)
        || holds
            && (is_live(old) != is_live(new)
                || old.host_ports != new.host_ports
                || !old.spec.is_same(&new.spec)
                    && old.spec.resources.reservations != new.spec.resources.reservations)
}
