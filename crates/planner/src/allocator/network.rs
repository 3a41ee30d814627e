//! Networks get a VXLAN identifier and, where the user named none, a subnet from the cluster's pools.

use crate::draft::Draft;
use crate::object::ClusterNetwork;
use crate::state::State;
use crate::subnet::{hosts, subnets};
use gantry_model::network::IpamConfig;
use gantry_model::node::Node;
use gantry_model::overlay::Subnet;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// First identifier that is given; the one before it is the mesh's ([`crate::assignment::MESH_VNI`]). Numbers below
/// 4096 could be mistaken for VLANs.
const FIRST_VNI: u32 = 4097;
/// The field of a VXLAN header has 24 bits (RFC 7348).
const LAST_VNI: u32 = (1 << 24) - 1;
/// Pool of subnets when the cluster was made without one, as Docker has it.
const POOL: &str = "10.0.0.0/8";
/// Prefix of the networks that machines are supposed to be in.
const NEIGHBOURHOOD: u8 = 16;
/// Length of a subnet's prefix when the cluster names none.
const PREFIX: u8 = 24;
/// Docker's option that asks for an identifier, and under which clients find it.
const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Gives each network what it lacks.
pub fn allocate_networks(draft: &mut Draft<'_>) {
    let mut lacking: Vec<ClusterNetwork> = draft
        .state
        .networks()
        .iter()
        .filter(|network| !network.is_allocated())
        .map(|network| network.as_ref().clone())
        .collect();
    lacking.sort_by(|a, b| (&a.network.created, &a.network.id).cmp(&(&b.network.created, &b.network.id)));
    for mut network in lacking {
        let before = network.clone();
        if network.vni == 0 {
            network.vni = free_vni(&draft.state, &network);
        }
        if network.vni != 0 {
            network.network.spec.options.insert(VNI_OPTION.to_owned(), network.vni.to_string());
        }
        give_subnets(&draft.state, &mut network);
        if network != before {
            draft.put_network(network);
        }
    }
}

fn free_vni(state: &State, network: &ClusterNetwork) -> u32 {
    let used: BTreeSet<u32> = state.networks().iter().map(|network| network.vni).collect();
    let asked = network
        .network
        .spec
        .options
        .get(VNI_OPTION)
        .and_then(|list| list.split(',').next()?.trim().parse().ok());
    if let Some(asked) = asked.filter(|vni| (FIRST_VNI..=LAST_VNI).contains(vni) && !used.contains(vni)) {
        return asked;
    }
    (FIRST_VNI..=LAST_VNI).find(|vni| !used.contains(vni)).unwrap_or(0)
}

fn give_subnets(state: &State, network: &mut ClusterNetwork) {
    let mut used = subnets_in_use(state);
    let configs = &mut network.network.spec.ipam.config;
    if configs.is_empty() {
        configs.push(IpamConfig::default());
    }
    for config in configs {
        if config.subnet.is_empty() {
            let Some(free) = free_subnet(state, &used) else { continue };
            used.push(free);
            config.subnet = free.to_string();
        }
        if config.gateway.is_empty()
            && let Ok(subnet) = Subnet::parse(&config.subnet)
        {
            config.gateway = hosts(subnet).0.to_string();
        }
    }
}

/// The first subnet of the pools that no network has and in which no node is; if it can be, not even near a node: with the usual
/// pool 10.0.0.0/8 the machines' own networks would soon be met, and containers could not reach them any more.
fn free_subnet(state: &State, used: &[Subnet]) -> Option<Subnet> {
    let cluster = state.cluster().map(|record| &record.cluster);
    let asked = cluster.map(|cluster| cluster.default_addr_pool.clone()).unwrap_or_default();
    let pools = if asked.is_empty() { vec![POOL.to_owned()] } else { asked };
    let prefix = cluster.map_or(0, |cluster| cluster.subnet_size);
    let prefix = u8::try_from(prefix).ok().filter(|prefix| *prefix != 0).unwrap_or(PREFIX);
    let pools: Vec<Subnet> = pools.iter().filter_map(|pool| Subnet::parse(pool).ok()).collect();
    let free = || {
        let all = pools.iter().flat_map(|pool| subnets(*pool, prefix));
        all.filter(|subnet| !used.iter().any(|other| other.overlaps(*subnet)))
    };
    let (near, own) = (around_nodes(state, NEIGHBOURHOOD), around_nodes(state, 32));
    free()
        .find(|subnet| !near.iter().any(|other| other.overlaps(*subnet)))
        .or_else(|| free().find(|subnet| !own.iter().any(|other| other.overlaps(*subnet))))
}

/// The networks of this length in which nodes are.
fn around_nodes(state: &State, prefix: u8) -> BTreeSet<Subnet> {
    node_addresses(state)
        .filter_map(|(_, ip)| Subnet::parse(&format!("{ip}/{prefix}")).ok())
        .map(|s| s.network())
        .collect()
}

/// The addresses by which nodes reach one another.
pub fn node_addresses(state: &State) -> impl Iterator<Item = (&Node, Ipv4Addr)> {
    state.nodes().iter().flat_map(|node| {
        let addresses =
            [&node.status.addr, &node.data_path_addr].into_iter().filter_map(|text| host_of(text));
        addresses.map(move |address| (node.as_ref(), address))
    })
}

/// The address in a text that may have a port.
pub fn host_of(text: &str) -> Option<Ipv4Addr> {
    text.rsplit_once(':').map_or(text, |(host, _)| host).parse().ok()
}

/// The subnets of a network.
pub fn subnets_of(network: &ClusterNetwork) -> impl Iterator<Item = Subnet> {
    network.network.spec.ipam.config.iter().filter_map(|config| Subnet::parse(&config.subnet).ok())
}

fn subnets_in_use(state: &State) -> Vec<Subnet> {
    state.networks().iter().flat_map(|network| subnets_of(network)).collect()
}
