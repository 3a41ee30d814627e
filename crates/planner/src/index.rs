//! Indexes of the state: everything here follows from the objects and is kept up to date with each change.

use crate::object::ClusterNetwork;
use crate::subnet::{AddressSet, Cidr};
use crate::table::{Keyed, Table};
use gantry_model::id::ServiceId;
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
    pub host_ports: BTreeMap<(Protocol, u16), u32>,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol of a published port; what is neither `udp` nor `sctp` is TCP, the default.
    pub fn of(port: &PortConfig) -> Self {
        match port.protocol.as_str() {
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

/// Whether a task holds what it reserved: it has a node and its container has not ended.
pub fn holds_resources(task: &Task) -> bool {
    !task.node_id.is_empty() && !task.status.state.is_terminal()
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
                adjust(&mut self.host_ports, (Protocol::of(port), port.published_port), sign);
            }
            if is_live(task) {
                self.active = self.active.saturating_add_signed(sign);
                adjust(&mut self.by_service, task.service_id.clone(), sign);
            }
        }
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
    /// Addresses in use, by network id.
    pub addresses: BTreeMap<String, Arc<AddressSet>>,
    /// Store index at which a node last changed.
    pub nodes_touched: u64,
    /// Store index at which a network or the cluster last changed.
    pub networks_touched: u64,
}

impl Indexes {
    /// Takes the change of a task into account.
    pub fn task(&mut self, index: u64, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        if let Some(old) = old {
            self.task_gone(old, new);
        }
        if let Some(new) = new {
            self.task_came(new);
        }
        let service = old.or(new).map(|task| task.service_id.as_str()).unwrap_or_default();
        self.touch_service(index, service);
    }

    fn task_gone(&mut self, old: &Arc<Task>, new: Option<&Arc<Task>>) {
        if let Some(node) = self.by_node.get_mut(old.node_id.as_str()) {
            node.tasks.remove(old.key());
            node.load.remove(old);
        }
        if new.is_none_or(|new| new.service_id != old.service_id)
            && let Some(group) = self.by_service.get_mut(old.service_id.as_str())
        {
            group.tasks.remove(old.key());
        }
        self.unplaced.remove(old.key());
        self.gated.remove(old.key());
        self.mark_attachments(old, Mark::Free);
    }

    fn task_came(&mut self, new: &Arc<Task>) {
        if !new.node_id.is_empty() {
            let node = entry(&mut self.by_node, new.node_id.as_str(), |key| NodeTasks {
                key,
                ..NodeTasks::default()
            });
            node.tasks.insert(Arc::clone(new));
            node.load.add(new);
        }
        let group = entry(&mut self.by_service, new.service_id.as_str(), |key| TaskGroup {
            key,
            ..TaskGroup::default()
        });
        group.tasks.insert(Arc::clone(new));
        if is_unplaced(new) {
            self.unplaced.insert(Arc::clone(new));
        }
        if new.desired_state <= TaskState::Ready && !new.status.state.is_terminal() {
            self.gated.insert(Arc::clone(new));
        }
        // An ended task has left the network: its addresses are free, though its record keeps them for the history.
        self.mark_attachments(new, Mark::Use);
    }

    fn mark_attachments(&mut self, task: &Task, mark: Mark) {
        if task.status.state.is_terminal() {
            return;
        }
        for attachment in &task.networks_attachments {
            for address in &attachment.addresses {
                self.mark(&attachment.network_id, address, mark);
            }
        }
    }

    /// Takes the change of a service into account.
    pub fn service(&mut self, index: u64, old: Option<&Service>, new: Option<&Service>) {
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

    /// Takes the change of a network into account. The addresses of its tasks are not touched: a network with tasks is
    /// neither deleted nor given another subnet.
    pub fn network(&mut self, index: u64, old: Option<&ClusterNetwork>, new: Option<&ClusterNetwork>) {
        self.networks_touched = index;
        match new {
            None => {
                if let Some(old) = old {
                    self.addresses.remove(&old.network.id);
                }
            }
            Some(new) => {
                for config in &new.network.spec.ipam.config {
                    for kept in std::iter::once(&config.gateway).chain(config.aux_addresses.values()) {
                        self.mark(&new.network.id, kept, Mark::Use);
                    }
                }
            }
        }
    }

    fn mark(&mut self, network: &str, address: &str, mark: Mark) {
        let Some(address) = Cidr::address_of(address) else { return };
        if !self.addresses.contains_key(network) {
            self.addresses.insert(network.to_owned(), Arc::default());
        }
        if let Some(set) = self.addresses.get_mut(network) {
            let set = Arc::make_mut(set);
            match mark {
                Mark::Use => set.insert(address),
                Mark::Free => set.remove(address),
            };
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
