//! An assignment is all that one node needs to know: its tasks, what they use, and the networks that they are in.

use crate::allocator::{NODE_NETWORKS, host_of, network_of, targets};
use crate::index::{PublishMode, is_placed, protocol_of};
use crate::object::ClusterNetwork;
use crate::state::State;
use crate::subnet::address_of;
use crate::table::Keyed;
use gantry_model::id::{ConfigId, NetworkId, NodeId, SecretId};
use gantry_model::node::{Node, NodeState};
use gantry_model::overlay::{
    IngressPort, IngressState, IngressTask, MeshNode, OverlayEndpoint, OverlayNetwork, OverlayState,
    ServiceVip, Subnet,
};
use gantry_model::secret::{Config, Secret};
use gantry_model::service::{Service, Version};
use gantry_model::task::{Task, TaskContainerStatus, TaskState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// VXLAN identifier of the routing mesh; those of networks begin above it.
pub const MESH_VNI: u32 = 4096;
/// The mesh's address plan has room for this many nodes (see [`MeshNode`]).
const MESH_NODES: u16 = 254;
/// Docker's option for the size of a network's packets.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// All that one node needs to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Assignment {
    /// The tasks that the node has or shall have, ended ones too: their containers stay for as long as the history
    /// knows them. A container whose task is not here is to be removed.
    pub tasks: Vec<Task>,
    /// The secrets that tasks which have not ended use.
    pub secrets: Vec<Secret>,
    /// The configs that they use.
    pub configs: Vec<Config>,
    /// The networks; `None` while the node's address is not known.
    pub overlay: Option<OverlayState>,
}

/// What the node's agent has to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Fetch what it needs, up to the state `ready`, and wait.
    Prepare,
    /// Run it.
    Run,
    /// Stop it, and keep its container for the history.
    Stop,
    /// Stop it, and remove its container.
    Remove,
}

/// What the node's agent has to do with a task. (A job's task is wanted `complete`: that means to run it to its end.)
pub fn wanted(task: &Task) -> Wanted {
    match task.desired_state {
        TaskState::Remove | TaskState::Orphaned => Wanted::Remove,
        state if state > TaskState::Complete => Wanted::Stop,
        state if state > TaskState::Ready => Wanted::Run,
        _ => Wanted::Prepare,
    }
}

/// The name of a task's container: `web.2.ID`, or `web.NODE.ID` for the task of a global service.
pub fn task_name(task: &Task) -> String {
    if task.service_id.is_empty() {
        task.name.clone()
    } else if task.slot == 0 {
        format!("{}.{}.{}", task.service_name, task.node_id, task.id)
    } else {
        format!("{}.{}.{}", task.service_name, task.slot, task.id)
    }
}

/// What a node needs to know.
pub fn assignment(state: &State, node: &NodeId) -> Assignment {
    Assigner::new(Arc::new(state.clone())).assignment(node)
}

/// Makes the assignments of many nodes; what they have in common is made once for each state, and which nodes a change does not
/// concern is known without making theirs.
#[derive(Debug)]
pub struct Assigner {
    state: Arc<State>,
    networks: HashMap<String, SharedNetwork>,
    ingress: Option<IngressState>,
    ingress_revision: u64,
    /// The networks of each node, as long as its tasks stay the same.
    joined: HashMap<NodeId, (u64, BTreeSet<String>)>,
    revisions: u64,
}

/// A network as its nodes see it.
#[derive(Debug)]
struct SharedNetwork {
    /// Index of the state that it was made from.
    index: u64,
    revision: u64,
    network: Option<OverlayNetwork>,
}

/// Stands for an assignment: as long as it is the same, the assignment of its node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    tasks: u64,
    node: Version,
    data: u64,
    ingress: u64,
    networks: Vec<u64>,
}

impl Assigner {
    /// For the nodes of this state.
    pub fn new(state: Arc<State>) -> Self {
        let ingress = ingress(&state);
        Self {
            state,
            networks: HashMap::new(),
            ingress,
            ingress_revision: 0,
            joined: HashMap::new(),
            revisions: 0,
        }
    }

    /// Goes on to a newer state.
    pub fn advance(&mut self, state: &Arc<State>) {
        if state.index() <= self.state.index() {
            return;
        }
        if concerns_mesh(&self.state, state) {
            let ingress = ingress(state);
            if ingress != self.ingress {
                self.ingress = ingress;
                self.revisions += 1;
                self.ingress_revision = self.revisions;
            }
        }
        self.state = Arc::clone(state);
        self.networks.retain(|id, shared| shared.network.is_none() || state.networks().contains(id));
        self.joined.retain(|node, _| state.node(node).is_some());
    }

    /// What stands for the node's assignment now.
    pub fn revision(&mut self, node: &NodeId) -> Revision {
        let tasks = self.state.indexes.by_node.get(node.as_str()).map_or(0, |tasks| tasks.touched);
        if self.joined.get(node).is_none_or(|(touched, _)| *touched != tasks) {
            let placed =
                self.state.tasks_of_node(node).filter(|task| task.status.state != TaskState::Orphaned);
            self.joined.insert(node.clone(), (tasks, networks_of(placed.map(AsRef::as_ref))));
        }
        let joined = self.joined.get(node).map(|(_, networks)| networks.clone()).unwrap_or_default();
        Revision {
            tasks,
            node: self.state.node(node).map(|node| node.version).unwrap_or_default(),
            data: self.state.indexes.data_touched,
            ingress: self.ingress_revision,
            networks: joined.iter().map(|id| self.shared(id).revision).collect(),
        }
    }

    /// What a node needs to know.
    pub fn assignment(&mut self, node: &NodeId) -> Assignment {
        let placed = self.state.tasks_of_node(node).filter(|task| task.status.state != TaskState::Orphaned);
        let mut tasks: Vec<Task> = placed.map(|task| task.as_ref().clone()).collect();
        tasks.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let live = || tasks.iter().filter(|task| !task.status.state.is_terminal());
        let containers = || live().filter_map(|task| task.spec.container_spec.as_ref());
        let secrets: BTreeSet<&str> =
            containers().flat_map(|c| &c.secrets).map(|s| s.secret_id.as_str()).collect();
        let configs: BTreeSet<&str> =
            containers().flat_map(|c| &c.configs).map(|c| c.config_id.as_str()).collect();
        let networks = networks_of(tasks.iter());
        let secrets = secrets.into_iter().filter_map(|id| self.state.secret(&SecretId::parse(id).ok()?));
        let configs = configs.into_iter().filter_map(|id| self.state.config(&ConfigId::parse(id).ok()?));
        Assignment {
            secrets: secrets.map(|secret| secret.as_ref().clone()).collect(),
            configs: configs.map(|config| config.as_ref().clone()).collect(),
            overlay: self.overlay(node, &networks),
            tasks,
        }
    }

    fn overlay(&mut self, node: &NodeId, networks: &BTreeSet<String>) -> Option<OverlayState> {
        let node_address = data_address(self.state.node(node)?)?;
        let networks = networks.iter().filter(|id| !NODE_NETWORKS.contains(&id.as_str()));
        let networks = networks.filter_map(|id| self.shared(id).network.clone()).collect();
        Some(OverlayState { node_id: node.clone(), node_address, networks, ingress: self.ingress.clone() })
    }

    /// A network, made anew if the state is another one than when it was made.
    fn shared(&mut self, id: &str) -> &SharedNetwork {
        let (state, index) = (&self.state, self.state.index());
        let make = || state.networks().get(id).and_then(|network| overlay_network(state, network));
        let shared = self.networks.entry(id.to_owned()).or_insert_with(|| {
            self.revisions += 1;
            SharedNetwork { index, revision: self.revisions, network: make() }
        });
        if shared.index != index {
            shared.index = index;
            let network = make();
            if network != shared.network {
                shared.network = network;
                self.revisions += 1;
                shared.revision = self.revisions;
            }
        }
        shared
    }
}

/// The networks of the tasks that have not ended.
fn networks_of<'t>(tasks: impl Iterator<Item = &'t Task>) -> BTreeSet<String> {
    tasks
        .filter(|task| !task.status.state.is_terminal())
        .flat_map(|task| &task.networks_attachments)
        .map(|attachment| attachment.network_id.clone())
        .collect()
}

/// The address of a node's tunnels.
fn data_address(node: &Node) -> Option<Ipv4Addr> {
    let text = if node.data_path_addr.is_empty() { &node.status.addr } else { &node.data_path_addr };
    host_of(text)
}

/// Whether a node answers, as far as is known: what runs on others must not be sent requests.
fn answers(state: &State, node: &NodeId) -> bool {
    state.node(node).is_some_and(|node| matches!(node.status.state, NodeState::Ready | NodeState::Unknown))
}

/// Whether a task takes requests.
fn serves(state: &State, task: &Task) -> bool {
    task.status.state == TaskState::Running
        && task.desired_state <= TaskState::Complete
        && answers(state, &task.node_id)
}

/// Whether a task may still be at the requests that it has, though it was told to stop.
fn finishes(state: &State, task: &Task) -> bool {
    task.status.state == TaskState::Running
        && task.desired_state > TaskState::Complete
        && answers(state, &task.node_id)
}

fn address_in(task: &Task, network: &str) -> Option<Ipv4Addr> {
    let attachment = task.networks_attachments.iter().find(|attachment| attachment.network_id == network)?;
    attachment.addresses.iter().find_map(|address| address_of(address))
}

fn overlay_network(state: &State, network: &ClusterNetwork) -> Option<OverlayNetwork> {
    if !network.is_allocated() {
        return None;
    }
    let spec = &network.network.spec;
    let config = spec.ipam.config.first()?;
    let here: Vec<(&Service, Vec<String>)> = state
        .services()
        .iter()
        .filter_map(|service| Some((service.as_ref(), aliases_in(state, service, network)?)))
        .collect();
    let taken: HashSet<&str> = here
        .iter()
        .flat_map(|(service, aliases)| aliases.iter().chain([&service.spec.name]).map(String::as_str))
        .collect();
    let mut endpoints = Vec::new();
    let mut backends: BTreeMap<&str, Backends> = BTreeMap::new();
    for task in state.members_of(&network.network.id).filter(|task| is_placed(task)) {
        let Some(address) = address_in(task, &network.network.id) else { continue };
        let Some(node_address) = state.node(&task.node_id).and_then(|node| data_address(node)) else {
            continue;
        };
        endpoints.push(OverlayEndpoint {
            address,
            node_address,
            names: endpoint_names(state, task, &network.network.id, &taken),
        });
        if serves(state, task) {
            backends.entry(task.service_id.as_str()).or_default().serving.push(address);
        } else if finishes(state, task) {
            backends.entry(task.service_id.as_str()).or_default().leaving.push(address);
        }
    }
    endpoints.sort_unstable_by_key(|endpoint| endpoint.address);
    let mut services: Vec<ServiceVip> = here
        .iter()
        .map(|(service, aliases)| {
            service_vip(service, aliases, network, backends.remove(service.id.as_str()).unwrap_or_default())
        })
        .collect();
    services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(OverlayNetwork {
        id: NetworkId::parse(&network.network.id).ok()?,
        name: spec.name.clone(),
        vni: network.vni,
        subnet: Subnet::parse(&config.subnet).ok()?,
        gateway: address_of(&config.gateway)?,
        mtu: spec.options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok()),
        internal: spec.internal,
        endpoints,
        services,
    })
}

/// The names by which one container is found. A node that does not answer keeps its tunnel entries, so that replies
/// reach it if only its managers are out of its reach; but its names are gone.
fn endpoint_names(state: &State, task: &Task, network: &str, taken: &HashSet<&str>) -> Vec<String> {
    let shows = task.desired_state <= TaskState::Complete && task.status.state >= TaskState::Starting;
    if !answers(state, &task.node_id) || (!shows && !task.service_id.is_empty()) {
        return Vec::new();
    }
    // Programs tell their peers the name that they have: their host name. When it is that of a service, the service is meant.
    let container = task.status.container_status.iter().flat_map(TaskContainerStatus::names);
    let mut names: Vec<String> = container.filter(|name| !taken.contains(name)).map(str::to_owned).collect();
    if task.service_id.is_empty() {
        let here = task.networks_attachments.iter().filter(|attachment| attachment.network_id == network);
        names.extend(here.flat_map(|attachment| attachment.aliases.iter().cloned()));
    }
    let own = task_name(task);
    names.retain(|name| !name.is_empty() && *name != own);
    names.sort_unstable();
    names.dedup();
    // The first is the one that its address is told to have.
    if !own.is_empty() {
        names.insert(0, own);
    }
    names
}

/// The addresses of a service's tasks in one network.
#[derive(Default)]
struct Backends {
    serving: Vec<Ipv4Addr>,
    leaving: Vec<Ipv4Addr>,
}

/// The aliases of a service in a network that it is in.
fn aliases_in(state: &State, service: &Service, network: &ClusterNetwork) -> Option<Vec<String>> {
    let id = &network.network.id;
    let is_here = |target: &str| network_of(state, target).is_some_and(|other| other.network.id == *id);
    targets(service)
        .iter()
        .filter(|config| is_here(&config.target))
        .map(|config| config.aliases.clone())
        .reduce(|mut all, more| {
            all.extend(more);
            all
        })
}

fn service_vip(
    service: &Service,
    aliases: &[String],
    network: &ClusterNetwork,
    mut backends: Backends,
) -> ServiceVip {
    let id = &network.network.id;
    let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network_id == *id);
    backends.serving.sort_unstable();
    backends.leaving.sort_unstable();
    ServiceVip {
        service_id: service.id.clone(),
        name: service.spec.name.clone(),
        aliases: aliases.to_vec(),
        vip: vip.and_then(|vip| address_of(&vip.addr)),
        backends: backends.serving,
        leaving: backends.leaving,
    }
}

/// Whether the mesh may have become another one: a node, a network, or a service with a port of the mesh, or its tasks, changed.
fn concerns_mesh(old: &State, new: &State) -> bool {
    let publishes = |state: &State, service: &str| {
        let ports = state.services().get(service).map(|service| service.endpoint.ports.as_slice());
        ports.is_some_and(|ports| ports.iter().any(|port| PublishMode::of(port) == PublishMode::Ingress))
    };
    let same = new.nodes().is_same(old.nodes()) && new.networks().is_same(old.networks());
    let mut concerns = !same;
    new.indexes.by_service.differences(&old.indexes.by_service, &mut |_, before, after| {
        for group in [before, after].into_iter().flatten() {
            concerns = concerns || publishes(old, group.key()) || publishes(new, group.key());
        }
    });
    concerns
}

fn ingress(state: &State) -> Option<IngressState> {
    state.ingress_network().filter(|network| network.is_allocated())?;
    let mut nodes: Vec<MeshNode> = state
        .nodes()
        .iter()
        .filter(|node| (1..=MESH_NODES).contains(&node.index))
        .filter_map(|node| {
            let (id, hostname) = (node.id.clone(), node.description.hostname.clone());
            Some(MeshNode { id, hostname, index: node.index, address: data_address(node)? })
        })
        .collect();
    nodes.sort_unstable_by_key(|node| node.index);
    let mut ports: Vec<IngressPort> =
        state.services().iter().flat_map(|service| ingress_ports(state, service)).collect();
    ports.sort_unstable_by_key(|port| (port.published, port.protocol));
    Some(IngressState { vni: MESH_VNI, nodes, ports })
}

fn ingress_ports(state: &State, service: &Service) -> Vec<IngressPort> {
    let published: Vec<_> =
        service.endpoint.ports.iter().filter(|port| PublishMode::of(port) == PublishMode::Ingress).collect();
    if published.is_empty() {
        return Vec::new();
    }
    let those = |which: fn(&State, &Task) -> bool| {
        let found = state.tasks_of_service(&service.id).filter(|task| which(state, task));
        let mut tasks: Vec<IngressTask> = found
            .filter_map(|task| {
                Some(IngressTask { node: task.node_id.clone(), address: gateway_address(state, task)? })
            })
            .collect();
        tasks.sort_unstable_by(|a, b| (&a.node, a.address).cmp(&(&b.node, b.address)));
        tasks
    };
    let (tasks, leaving) = (those(serves), those(finishes));
    published
        .into_iter()
        .map(|port| IngressPort {
            published: port.published_port,
            protocol: protocol_of(port),
            target: port.target_port,
            tasks: tasks.clone(),
            leaving: leaving.clone(),
        })
        .collect()
}

/// The task's address in the network that gives it its default gateway: the first one that has a way out.
fn gateway_address(state: &State, task: &Task) -> Option<Ipv4Addr> {
    let has_way_out =
        |id: &str| state.networks().get(id).is_some_and(|network| !network.network.spec.internal);
    let attachment =
        task.networks_attachments.iter().find(|attachment| has_way_out(&attachment.network_id))?;
    attachment.addresses.iter().find_map(|address| address_of(address))
}
