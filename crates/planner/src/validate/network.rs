//! Checks of networks.

use super::{Invalid, check_dns_name, spec};
use crate::allocator::{network_of, node_addresses, subnets_of, targets};
use crate::index::is_live;
use crate::object::ClusterNetwork;
use crate::state::State;
use crate::subnet::address_of;
use gantry_model::network::{IpamConfig, NetworkSpec};
use gantry_model::overlay::Subnet;
use gantry_model::task::Task;

/// Checks a network that is to be created.
pub fn network_spec(state: &State, mut wanted: NetworkSpec) -> Result<NetworkSpec, Invalid> {
    check_network_name(&wanted.name)?;
    if state.network_named(&wanted.name).is_some() {
        return Err(Invalid::NameConflict { kind: "network", name: wanted.name });
    }
    match wanted.driver.as_str() {
        "" => wanted.driver = "overlay".to_owned(),
        "overlay" => {}
        other => {
            return spec(format!("network driver {other:?} is not supported in a cluster: only overlay is"));
        }
    }
    if !matches!(wanted.ipam.driver.as_str(), "" | "default") {
        return spec(format!(
            "IPAM driver {:?} is not supported in a cluster: only default is",
            wanted.ipam.driver
        ));
    }
    if wanted.enable_ipv6 == Some(true) {
        return spec("IPv6 is not supported by overlay networks");
    }
    if wanted.enable_ipv4 == Some(false) {
        return spec("IPv4 cannot be disabled in an overlay network");
    }
    if wanted.options.contains_key("encrypted") {
        return spec(
            "encrypted overlay networks are not supported yet: create the network without --opt encrypted",
        );
    }
    if wanted.ingress {
        check_ingress(state, &wanted)?;
    }
    wanted.scope = "swarm".to_owned();
    wanted.ipam.driver = "default".to_owned();
    if wanted.ipam.config.len() > 1 {
        return spec("an overlay network has one subnet: give --subnet once");
    }
    for config in &mut wanted.ipam.config {
        check_subnet(state, config)?;
    }
    Ok(wanted)
}

fn check_network_name(name: &str) -> Result<(), Invalid> {
    if matches!(name, "host" | "none" | "bridge" | "default") {
        return spec(format!("operation is not permitted on predefined {name} network"));
    }
    // Compose names networks `project_default`; dots are allowed beside what services have.
    check_dns_name(&name.replace('.', "-"))
}

fn check_ingress(state: &State, wanted: &NetworkSpec) -> Result<(), Invalid> {
    if wanted.attachable {
        return spec("ingress network cannot be attachable");
    }
    if wanted.internal {
        return spec("ingress network cannot be internal");
    }
    if let Some(present) = state.ingress_network() {
        return Err(Invalid::Precondition(format!(
            "ingress network ({}) is already present",
            present.network.id
        )));
    }
    Ok(())
}

fn check_subnet(state: &State, config: &mut IpamConfig) -> Result<(), Invalid> {
    if config.subnet.is_empty() {
        let extra = [&config.gateway, &config.ip_range].into_iter().find(|text| !text.is_empty());
        return match extra {
            Some(_) => spec("ipam: a gateway or an address range needs a subnet"),
            None => Ok(()),
        };
    }
    let Ok(asked) = Subnet::parse(&config.subnet) else {
        return spec(format!(
            "invalid subnet {} : it must be an IPv4 network such as 10.1.0.0/24",
            config.subnet
        ));
    };
    let subnet = asked.network();
    if subnet.prefix() > 29 || subnet.prefix() < 8 {
        return spec(format!("invalid subnet {subnet}: the prefix must be between 8 and 29"));
    }
    config.subnet = subnet.to_string();
    if let Some(other) =
        state.networks().iter().find(|network| subnets_of(network).any(|taken| taken.overlaps(subnet)))
    {
        let name = &other.network.spec.name;
        return Err(Invalid::Precondition(format!(
            "invalid pool request: Pool overlaps with other one on this address space: subnet {subnet} overlaps with \
             that of network {name}"
        )));
    }
    if let Some((node, address)) = node_addresses(state).find(|(_, address)| subnet.contains(*address)) {
        return Err(Invalid::Precondition(format!(
            "invalid pool request: subnet {subnet} holds the address {address} of node {}: its containers could not reach \
             that node",
            node.description.hostname
        )));
    }
    for (what, text) in std::iter::once(("gateway", &config.gateway))
        .chain(config.aux_addresses.values().map(|address| ("auxiliary address", address)))
        .filter(|(_, text)| !text.is_empty())
    {
        if !address_of(text).is_some_and(|address| subnet.contains(address)) {
            return spec(format!("invalid {what} {text}: it is not in the subnet {subnet}"));
        }
    }
    let range = Subnet::parse(&config.ip_range).ok();
    if !config.ip_range.is_empty()
        && !range.is_some_and(|range| subnet.contains(range.address()) && range.prefix() >= subnet.prefix())
    {
        return spec(format!("invalid address range {}: it is not in the subnet {subnet}", config.ip_range));
    }
    Ok(())
}

/// Checks that nothing uses a network.
pub fn network_remove(state: &State, network: &ClusterNetwork) -> Result<(), Invalid> {
    let id = &network.network.id;
    for service in state.services().iter() {
        if targets(service)
            .iter()
            .any(|target| network_of(state, &target.target).is_some_and(|used| used.network.id == *id))
        {
            return Err(Invalid::Precondition(format!("network {id} is in use by service {}", service.id)));
        }
        if network.network.spec.ingress && crate::allocator::has_ingress_ports(service) {
            return Err(Invalid::Precondition(format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            )));
        }
    }
    // As with Docker, what was told to stop does not hold the network; nor does what will be told so, because its service is gone.
    let wanted = |task: &Task| task.service_id.is_empty() || state.service(&task.service_id).is_some();
    let member = state.members_of(id).find(|task| is_live(task) && wanted(task));
    match member {
        Some(task) => Err(Invalid::Precondition(format!("network {id} is in use by task {}", task.id))),
        None => Ok(()),
    }
}
