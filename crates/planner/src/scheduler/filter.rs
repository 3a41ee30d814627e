//! Filters: each is one reason why a task cannot run on a node.

use super::is_open;
use crate::constraint::{Constraints, architecture};
use crate::index::{NodeLoad, holds_resources, is_live, protocol_of};
use crate::state::State;
use gantry_model::id::ServiceId;
use gantry_model::node::{Node, NodePlatform};
use gantry_model::overlay::Transport;
use gantry_model::task::Task;
use std::collections::BTreeMap;

/// What a task needs of its node. Two services whose tasks need the same are told apart only where they are limited.
#[derive(Debug, Clone)]
pub struct Requirements {
    service: ServiceId,
    /// Of which kind the node must be.
    pub kind: Kind,
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    generic: bool,
    /// `None`: they are none, and met by no node.
    pub constraints: Option<Constraints>,
    platforms: Vec<NodePlatform>,
    ports: Vec<(Transport, u16)>,
    /// Tasks of the service on one node; 0: no limit.
    pub max_replicas: u64,
}

/// What a node must be, whatever runs on it: equal kinds are met by the same nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Kind {
    constraints: Vec<String>,
    platforms: Vec<(String, String)>,
    plugins: Vec<(&'static str, String)>,
}

impl Kind {
    /// Whether every node is of this kind.
    pub fn is_any(&self) -> bool {
        self.constraints.is_empty() && self.platforms.is_empty() && self.plugins.is_empty()
    }
}

impl Requirements {
    /// What two must agree in to be met by the same nodes at one time.
    fn essence(&self) -> (&Kind, i64, i64, bool, &[(Transport, u16)], u64) {
        (&self.kind, self.nano_cpus, self.memory_bytes, self.generic, &self.ports, self.max_replicas)
    }
}

impl PartialEq for Requirements {
    fn eq(&self, other: &Self) -> bool {
        self.essence() == other.essence() && (self.max_replicas == 0 || self.service == other.service)
    }
}

impl Eq for Requirements {}

impl std::hash::Hash for Requirements {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let (kind, cpus, memory, generic, ports, most) = self.essence();
        (kind, cpus, memory, generic, most).hash(state);
        ports.iter().for_each(|(_, number)| number.hash(state));
    }
}

impl Requirements {
    /// What a task needs of its node.
    pub fn of(task: &Task) -> Self {
        let reserved = task.spec.resources.reservations.clone().unwrap_or_default();
        let placement = &task.spec.placement;
        let ports = task.host_ports.iter().filter(|port| port.published_port != 0);
        Self {
            service: task.service_id.clone(),
            kind: Kind {
                constraints: placement.constraints.clone(),
                platforms: placement
                    .platforms
                    .iter()
                    .map(|platform| (platform.os.clone(), platform.architecture.clone()))
                    .collect(),
                plugins: plugins(task),
            },
            nano_cpus: reserved.nano_cpus,
            memory_bytes: reserved.memory_bytes,
            generic: !reserved.generic_resources.is_empty(),
            constraints: Constraints::parse(&placement.constraints).ok(),
            platforms: placement.platforms.clone(),
            ports: ports.map(|port| (protocol_of(port), port.published_port)).collect(),
            max_replicas: placement.max_replicas,
        }
    }
}

impl Requirements {
    /// Whether what a node has left is enough.
    pub fn fit_into(&self, nano_cpus: i64, memory_bytes: i64) -> bool {
        // No node offers named or counted resources yet, so what asks for one fits nowhere.
        !self.generic
            && (self.nano_cpus <= 0 || nano_cpus >= self.nano_cpus)
            && (self.memory_bytes <= 0 || memory_bytes >= self.memory_bytes)
    }

    /// Whether it publishes ports of its node.
    pub fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }
}

/// Plug-ins that the task's mounts and log driver name; what every engine has is not among them.
fn plugins(task: &Task) -> Vec<(&'static str, String)> {
    let mut plugins = Vec::new();
    let mounts = task.spec.container_spec.iter().flat_map(|container| &container.mounts);
    for mount in mounts {
        let driver = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
        if let Some(driver) = driver.filter(|driver| !driver.name.is_empty() && driver.name != "local") {
            plugins.push(("Volume", driver.name.clone()));
        }
    }
    if let Some(log) = task.spec.log_driver.as_ref().filter(|log| !log.name.is_empty() && log.name != "none")
    {
        plugins.push(("Log", log.name.clone()));
    }
    plugins
}

/// A node, and what runs on it.
#[derive(Clone, Copy)]
pub struct Seen<'s> {
    /// Where it is known from.
    pub state: &'s State,
    /// The node.
    pub node: &'s Node,
    /// What its tasks take of it.
    pub load: Option<&'s NodeLoad>,
}

impl<'s> Seen<'s> {
    /// A node as the state has it.
    pub fn new(state: &'s State, node: &'s Node) -> Self {
        Self { state, node, load: state.load_of(&node.id) }
    }

    /// How many tasks of a service shall run on it.
    fn count_of(self, service: &ServiceId) -> u64 {
        let counts = |task: &&std::sync::Arc<Task>| {
            task.service_id == *service && holds_resources(task) && is_live(task)
        };
        u64::try_from(self.state.tasks_of_node(&self.node.id).filter(counts).count()).unwrap_or(u64::MAX)
    }
}

/// One reason why a task cannot run on a node. The first one that applies is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Down, paused or drained.
    Ready,
    /// Not enough CPU or memory that is not reserved.
    Resources,
    /// No such volume or log driver.
    Plugins,
    /// A constraint.
    Constraints,
    /// Other operating system or architecture.
    Platform,
    /// A port of the node is taken.
    HostPorts,
    /// As many tasks of the service as the specification allows.
    MaxReplicas,
}

impl Filter {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::Resources,
        Self::Plugins,
        Self::Constraints,
        Self::Platform,
        Self::HostPorts,
        Self::MaxReplicas,
    ];
    /// Those that a task placed on the node does not change, for a node that takes tasks.
    pub const STEADY: [Self; 3] = [Self::Plugins, Self::Constraints, Self::Platform];

    /// Whether the node passes.
    pub fn passes(self, needs: &Requirements, seen: Seen<'_>) -> bool {
        let Seen { node, load, .. } = seen;
        match self {
            Self::Ready => is_open(node),
            Self::Resources => has_resources(needs, node, load),
            Self::Plugins => needs.kind.plugins.iter().all(|(kind, name)| has_plugin(node, kind, name)),
            Self::Constraints => {
                needs.constraints.as_ref().is_some_and(|constraints| constraints.met_by(node))
            }
            Self::Platform => runs_platform(node, &needs.platforms),
            Self::HostPorts => {
                !load.is_some_and(|load| needs.ports.iter().any(|port| load.host_ports.contains_key(port)))
            }
            Self::MaxReplicas => {
                needs.max_replicas == 0 || seen.count_of(&needs.service) < needs.max_replicas
            }
        }
    }

    /// The reason as Docker words it.
    fn reason(self, nodes: usize) -> String {
        let on = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        match self {
            Self::Ready => format!("{on} not available for new tasks"),
            Self::Resources => format!("insufficient resources on {on}"),
            Self::Plugins => format!("missing plugin on {on}"),
            Self::Constraints => format!("scheduling constraints not satisfied on {on}"),
            Self::Platform => format!("unsupported platform on {on}"),
            Self::HostPorts => format!("host-mode port already in use on {on}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

fn has_resources(needs: &Requirements, node: &Node, load: Option<&NodeLoad>) -> bool {
    let has = &node.description.resources;
    let (cpus, memory) = load.map_or((0, 0), |load| (load.nano_cpus, load.memory_bytes));
    needs.fit_into(has.nano_cpus.saturating_sub(cpus), has.memory_bytes.saturating_sub(memory))
}

/// Whether a node has a plug-in. An engine that lists none of the kind did not say, and is believed to have it.
fn has_plugin(node: &Node, kind: &str, name: &str) -> bool {
    let mut listed = node.description.engine.plugins.iter().filter(|plugin| plugin.r#type == kind).peekable();
    listed.peek().is_none()
        || listed.any(|plugin| plugin.name == name || plugin.name.split(':').next() == Some(name))
}

/// Whether a node runs one of these platforms; an empty list, and an empty part, stand for any.
pub fn runs_platform(node: &Node, platforms: &[NodePlatform]) -> bool {
    let here = &node.description.platform;
    platforms.is_empty()
        || platforms.iter().any(|platform| {
            (platform.os.is_empty() || platform.os.eq_ignore_ascii_case(&here.os))
                && (platform.architecture.is_empty()
                    || architecture(&platform.architecture.to_ascii_lowercase())
                        == architecture(&here.architecture))
        })
}

/// How many nodes each filter turned away.
#[derive(Debug, Clone, Default)]
pub struct Failures(BTreeMap<Filter, usize>);

impl Failures {
    /// One node more.
    pub fn count(&mut self, filter: Filter) {
        *self.0.entry(filter).or_default() += 1;
    }

    /// The sentence for the task's status, the commonest reason first.
    pub fn explain(&self) -> String {
        if self.0.is_empty() {
            return "no suitable node".to_owned();
        }
        let mut counts: Vec<(Filter, usize)> =
            self.0.iter().map(|(filter, count)| (*filter, *count)).collect();
        counts.sort_by_key(|(filter, count)| (std::cmp::Reverse(*count), *filter));
        let reasons: Vec<String> = counts.into_iter().map(|(filter, count)| filter.reason(count)).collect();
        format!("no suitable node ({})", reasons.join("; "))
    }
}
