//! The first objects of a new cluster.

use crate::change::Change;
use crate::object::{ClusterNetwork, ClusterRecord, Object};
use gantry_model::id::NetworkId;
use gantry_model::network::{Ipam, IpamConfig, Network, NetworkSpec};
use gantry_model::node::Node;

/// Subnet of the routing mesh's network, as Docker has it; it is only the default when the cluster's pools are too.
const INGRESS_SUBNET: &str = "10.0.0.0/24";

/// The first batch of a new cluster: itself, its first node, and the network `ingress`.
pub fn cluster_created(record: ClusterRecord, first: Node, ingress: NetworkId) -> Vec<Change> {
    let ingress = ingress_network(ingress, record.cluster.default_addr_pool.is_empty());
    vec![
        Change::create(Object::Cluster(Box::new(record))),
        Change::create(Object::Node(Box::new(first))),
        Change::create(Object::Network(Box::new(ingress))),
    ]
}

fn ingress_network(id: NetworkId, default_pools: bool) -> ClusterNetwork {
    let subnet = if default_pools { INGRESS_SUBNET } else { "" };
    let spec = NetworkSpec {
        name: "ingress".to_owned(),
        driver: "overlay".to_owned(),
        scope: "swarm".to_owned(),
        ingress: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            config: vec![IpamConfig { subnet: subnet.to_owned(), ..IpamConfig::default() }],
            ..Ipam::default()
        },
        ..NetworkSpec::default()
    };
    ClusterNetwork {
        network: Network { id: id.as_str().to_owned(), spec, ..Network::default() },
        ..ClusterNetwork::default()
    }
}
