//! Services get one virtual address in each of their networks, and a number for each port that was published without.

use super::{NODE_NETWORKS, network_of, targets};
use crate::allocator::subnets_of;
use crate::draft::Draft;
use crate::index::{PublishMode, protocol_of};
use crate::object::ClusterNetwork;
use crate::state::State;
use crate::subnet::hosts;
use gantry_model::overlay::{Subnet, Transport};
use gantry_model::service::{Endpoint, PortConfig, Service, VirtualIp};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// Ports that are given to those published without a number, as Docker gives them.
const DYNAMIC_PORTS: RangeInclusive<u16> = 30000..=32767;

/// Brings the endpoint of a service up to its specification. `Err` says what it has to wait for.
pub fn allocate_endpoint(draft: &mut Draft<'_>, service: &Service) -> Result<(), String> {
    let spec = service.spec.endpoint_spec.clone().unwrap_or_default();
    let ports = numbered_ports(&draft.state, service, &spec.ports)?;
    let mut virtual_ips = Vec::new();
    if spec.mode != "dnsrr" {
        for target in
            targets(service).iter().filter(|target| !NODE_NETWORKS.contains(&target.target.as_str()))
        {
            let network = network_of(&draft.state, &target.target).filter(|network| network.is_allocated());
            let network =
                network.ok_or_else(|| format!("waiting for network {} to get its subnet", target.target))?;
            virtual_ips.push(virtual_ip(&draft.state, service, network)?);
        }
    }
    let endpoint = Endpoint { spec, ports, virtual_ips };
    if endpoint != service.endpoint {
        draft.put_service(Service { endpoint, ..service.clone() });
    }
    Ok(())
}

fn virtual_ip(state: &State, service: &Service, network: &ClusterNetwork) -> Result<VirtualIp, String> {
    if let Some(known) = service.endpoint.virtual_ips.iter().find(|vip| vip.network_id == network.network.id)
    {
        return Ok(known.clone());
    }
    let (address, subnet) = free_address(state, network, &pools_of(network))?;
    Ok(VirtualIp { network_id: network.network.id.clone(), addr: format!("{address}/{}", subnet.prefix()) })
}

/// A range that addresses are given from.
pub struct Pool {
    subnet: Subnet,
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// The ranges that the addresses of a network are given from.
pub fn pools_of(network: &ClusterNetwork) -> Vec<Pool> {
    let mut pools = Vec::new();
    for config in &network.network.spec.ipam.config {
        let Ok(subnet) = Subnet::parse(&config.subnet) else { continue };
        let (mut first, mut last) = hosts(subnet);
        if let Ok(range) = Subnet::parse(&config.ip_range) {
            (first, last) = (range.network().address().max(first), range.last().min(last));
        }
        pools.push(Pool { subnet, first, last });
    }
    pools
}

/// The next free address of a network, and the subnet that it lies in.
pub fn free_address(
    state: &State,
    network: &ClusterNetwork,
    pools: &[Pool],
) -> Result<(Ipv4Addr, Subnet), String> {
    let used = state.addresses_of(&network.network.id);
    for pool in pools {
        let free = match used {
            Some(used) => used.next_free(pool.first, pool.last),
            None => Some(pool.first),
        };
        if let Some(free) = free {
            return Ok((free, pool.subnet));
        }
    }
    let subnets: Vec<String> = subnets_of(network).map(|subnet| subnet.to_string()).collect();
    Err(format!("no free address in network {} ({})", network.network.spec.name, subnets.join(", ")))
}

fn numbered_ports(state: &State, service: &Service, asked: &[PortConfig]) -> Result<Vec<PortConfig>, String> {
    let mut ports: Vec<PortConfig> = Vec::with_capacity(asked.len());
    for port in asked {
        let mut port = port.clone();
        if port.published_port == 0 && PublishMode::of(&port) == PublishMode::Ingress {
            port.published_port =
                known_number(service, &port, &ports).map_or_else(|| free_number(state, &port, &ports), Ok)?;
        }
        ports.push(port);
    }
    Ok(ports)
}

/// The number that the port got earlier: it stays for as long as the port is published.
fn known_number(service: &Service, port: &PortConfig, taken: &[PortConfig]) -> Option<u16> {
    let same = |old: &&PortConfig| {
        old.target_port == port.target_port
            && protocol_of(old) == protocol_of(port)
            && PublishMode::of(old) == PublishMode::Ingress
            && DYNAMIC_PORTS.contains(&old.published_port)
            && !taken.iter().any(|taken| {
                taken.published_port == old.published_port && protocol_of(taken) == protocol_of(old)
            })
    };
    service.endpoint.ports.iter().find(same).map(|old| old.published_port)
}

fn free_number(state: &State, port: &PortConfig, taken: &[PortConfig]) -> Result<u16, String> {
    let protocol: Transport = protocol_of(port);
    let is_free = |number: &u16| {
        !state.indexes.ports.contains_key(&(protocol, *number))
            && !taken.iter().any(|other| other.published_port == *number && protocol_of(other) == protocol)
    };
    DYNAMIC_PORTS.into_iter().find(is_free).ok_or_else(|| {
        format!("no free {protocol} port between {} and {}", DYNAMIC_PORTS.start(), DYNAMIC_PORTS.end())
    })
}
