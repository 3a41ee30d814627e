//! Indexes of the state: everything here follows from the objects and is kept up to date with each change.

use crate::object::ClusterNetwork;
use crate::subnet::{AddressSet, address_of};
use crate::table::{Keyed, Table};
use gantry_model::id::ServiceId;
use gantry_model::overlay::Transport;
use gantry_model::service::{PortConfig, Service};
use gantry_model::task::{Task, TaskState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tasks of one service. Attachments are the group of the empty id.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    key: String,
    /// Store index at which the service or one of its tasks last changed.
    pub touched: u64,
    /// The tasks.
    pub tasks: Table<Task>,
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
    /// The tasks, dead ones too.
    pub tasks: Table<Task>,
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
    /// Tasks that have not ended.
    pub members: Table<Task>,
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
    /// The same by service.
    pub by_service: BTreeMap<ServiceId, u32>,
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
                adjust(&mut self.by_service, task.service_id.clone(), sign);
            }
        }
    }
}

/// The ports with a number that a service asks for or was given.
fn published(service: &Service) -> impl Iterator<Item = &PortConfig> {
    let asked = service.spec.endpoint_spec.iter().flat_map(|spec| &spec.ports);
    asked.chain(&service.endpoint.ports).filter(|port| port.published_port != 0)
}

fn move_between(
    table: &mut Table<Task>,
    old: Option<&Arc<Task>>,
    new: Option<&Arc<Task>>,
    belongs: fn(&Task) -> bool,
) {
    match (old.filter(|task| belongs(task)), new.filter(|task| belongs(task))) {
        (_, Some(new)) => drop(table.insert(Arc::clone(new))),
        (Some(old), None) => drop(table.remove(old.key())),
        (None, None) => {}
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
    /// Tasks that wait for a node.
    pub unplaced: Table<Task>,
    /// Tasks that are prepared and wait to be told to start.
    pub gated: Table<Task>,
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
    pub fn task(&mut self, index: u64, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        let service = old.or(new).map(|task| task.service_id.as_str()).unwrap_or_default();
        let group = entry(&mut self.by_service, service, |key| TaskGroup { key, ..TaskGroup::default() });
        group.touched = index;
        match (old, new) {
            (_, Some(new)) => drop(group.tasks.insert(Arc::clone(new))),
            (Some(old), None) => drop(group.tasks.remove(old.key())),
            (None, None) => {}
        }
        self.task_on_node(index, old, new);
        move_between(&mut self.unplaced, old, new, is_unplaced);
        move_between(&mut self.gated, old, new, is_gated);
        self.task_addresses(old, new);
    }

    fn task_on_node(&mut self, index: u64, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        let (old, new) = (old.filter(|task| is_placed(task)), new.filter(|task| is_placed(task)));
        if let Some(old) = old
            && let Some(node) = self.by_node.get_mut(old.node_id.as_str())
        {
            node.touched = index;
            node.load.remove(old);
            if new.is_none_or(|new| new.node_id != old.node_id) {
                node.tasks.remove(old.key());
            }
        }
        if let Some(new) = new {
            let node = entry(&mut self.by_node, new.node_id.as_str(), |key| NodeTasks {
                key,
                ..NodeTasks::default()
            });
            node.touched = index;
            node.tasks.insert(Arc::clone(new));
            node.load.add(new);
        }
    }

    fn task_addresses(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        // An ended task has left the network: its addresses are free, though its record keeps them for the history.
        let holds =
            |task: &&Arc<Task>| !task.status.state.is_terminal() && !task.networks_attachments.is_empty();
        let (old, new) = (old.filter(holds), new.filter(holds));
        if let (Some(old), Some(new)) = (old, new)
            && old.networks_attachments == new.networks_attachments
        {
            self.join(new);
            return;
        }
        for (task, mark) in [(old, Mark::Free), (new, Mark::Use)] {
            if let Some(task) = task {
                self.mark_attachments(task, mark);
            }
        }
        if let Some(old) = old {
            self.leave(old);
        }
        if let Some(new) = new {
            self.join(new);
        }
    }

    fn join(&mut self, task: &Arc<Task>) {
        for attachment in &task.networks_attachments {
            let network = entry(&mut self.networks, &attachment.network_id, NetworkUse::new);
            network.members.insert(Arc::clone(task));
        }
    }

    fn leave(&mut self, task: &Arc<Task>) {
        for attachment in &task.networks_attachments {
            if let Some(network) = self.networks.get_mut(&attachment.network_id) {
                network.members.remove(task.key());
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
                entry(&mut self.networks, network, NetworkUse::new).addresses.insert(address);
            }
            Mark::Free => {
                if let Some(network) = self.networks.get_mut(network) {
                    network.addresses.remove(address);
                }
            }
        }
    }

    fn touch_service(&mut self, index: u64, service: &str) {
        entry(&mut self.by_service, service, |key| TaskGroup { key, ..TaskGroup::default() }).touched = index;
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

fn entry<'t, T: Keyed + Clone>(
    table: &'t mut Table<T>,
    key: &str,
    make: impl FnOnce(String) -> T,
) -> &'t mut T {
    if !table.contains(key) {
        table.insert(Arc::new(make(key.to_owned())));
    }
    match table.get_mut(key) {
        Some(object) => object,
        None => unreachable!("the object was put in a line above"),
    }
}
