//! The allocator gives numbers: VNIs and subnets to networks, virtual addresses and ports to services, addresses to
//! tasks, a small number to each node.

mod endpoint;
mod network;
mod task;

pub use endpoint::allocate_endpoint;
pub use network::{allocate_networks, host_of, node_addresses, subnets_of};
pub use task::Joining;

use crate::draft::Draft;
use crate::index::PublishMode;
use crate::object::ClusterNetwork;
use crate::state::State;
use gantry_model::id::NodeId;
use gantry_model::node::Node;
use gantry_model::service::{NetworkAttachmentConfig, Service};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Networks that each node has by itself; the cluster gives no addresses in them.
pub const NODE_NETWORKS: [&str; 3] = ["host", "none", "bridge"];

/// Gives each node without one the lowest free number: its place in the mesh's address plan.
pub fn number_nodes(draft: &mut Draft<'_>) {
    let mut new: Vec<NodeId> =
        draft.state.nodes().iter().filter(|node| node.index == 0).map(|node| node.id.clone()).collect();
    if new.is_empty() {
        return;
    }
    new.sort_unstable();
    let used: BTreeSet<u16> = draft.state.nodes().iter().map(|node| node.index).collect();
    let free = (1..=u16::MAX).filter(|index| !used.contains(index));
    for (id, index) in new.into_iter().zip(free) {
        if let Some(node) = draft.state.node(&id).cloned() {
            draft.put_node(Node { index, ..node.as_ref().clone() });
        }
    }
}

/// The networks that the tasks of a service join.
pub fn targets(service: &Service) -> &[NetworkAttachmentConfig] {
    let template = &service.spec.task_template.networks;
    if template.is_empty() { service.spec.networks.as_deref().unwrap_or_default() } else { template }
}

/// The cluster network that an attachment names, by id or by name.
pub fn network_of<'s>(state: &'s State, target: &str) -> Option<&'s Arc<ClusterNetwork>> {
    state.networks().get(target).or_else(|| state.network_named(target))
}

/// Whether a service publishes ports on every node.
pub fn has_ingress_ports(service: &Service) -> bool {
    service.spec.ports().iter().any(|port| PublishMode::of(port) == PublishMode::Ingress)
}

/// Whether the tasks of a service need an address in the ingress network. The mesh reaches a container by any network
/// that gives it its default gateway, so only tasks without one of their own need it.
pub fn needs_ingress_address(state: &State, service: &Service) -> bool {
    let reachable = |config: &NetworkAttachmentConfig| {
        network_of(state, &config.target).is_some_and(|network| !network.network.spec.internal)
    };
    has_ingress_ports(service) && !targets(service).iter().any(reachable)
}
