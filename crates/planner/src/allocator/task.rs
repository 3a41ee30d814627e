//! Tasks get an address in each of their networks.

use super::endpoint::free_address;
use super::{NODE_NETWORKS, needs_ingress_address, network_of};
use crate::allocator::subnets_of;
use crate::object::ClusterNetwork;
use crate::state::State;
use gantry_model::service::{NetworkAttachmentConfig, Service};
use gantry_model::task::{NetworkAttachment, Task};
use std::net::Ipv4Addr;

/// The addresses of a task: those that it has, or new ones. `Err` says what it has to wait for.
pub fn attachments(
    state: &State,
    service: Option<&Service>,
    task: &Task,
) -> Result<Vec<NetworkAttachment>, String> {
    if !task.networks_attachments.is_empty() {
        return Ok(task.networks_attachments.clone());
    }
    let in_template = &task.spec.networks;
    let configs = match service {
        Some(service) if in_template.is_empty() => service.spec.networks.as_deref().unwrap_or_default(),
        _ => in_template,
    };
    let ingress = service.is_some_and(|service| needs_ingress_address(state, service));
    if configs.is_empty() && !ingress {
        return Ok(Vec::new());
    }
    let mut attachments = Vec::with_capacity(configs.len() + usize::from(ingress));
    for config in configs {
        attachments.push(attachment(state, task, config)?);
    }
    if ingress && let Some(network) = state.ingress_network() {
        attachments.push(attachment(
            state,
            task,
            &NetworkAttachmentConfig {
                target: network.network.id.clone(),
                ..NetworkAttachmentConfig::default()
            },
        )?);
    }
    Ok(attachments)
}

fn attachment(
    state: &State,
    task: &Task,
    config: &NetworkAttachmentConfig,
) -> Result<NetworkAttachment, String> {
    if NODE_NETWORKS.contains(&config.target.as_str()) {
        return Ok(NetworkAttachment { network_id: config.target.clone(), ..NetworkAttachment::default() });
    }
    let network =
        network_of(state, &config.target).ok_or_else(|| format!("network {} not found", config.target))?;
    if !network.is_allocated() {
        return Err(format!("waiting for network {} to get its subnet", network.network.spec.name));
    }
    let (address, subnet) = match config.addresses.first() {
        Some(asked) => asked_address(state, network, asked)?,
        None => free_address(state, network)?,
    };
    let outside = task.spec.network_attachment_spec.as_ref();
    let names = outside.map(|spec| spec.names.as_slice()).unwrap_or_default();
    Ok(NetworkAttachment {
        network_id: network.network.id.clone(),
        addresses: vec![format!("{address}/{}", subnet.prefix())],
        aliases: config.aliases.iter().chain(names).cloned().collect(),
    })
}

fn asked_address(
    state: &State,
    network: &ClusterNetwork,
    asked: &str,
) -> Result<(Ipv4Addr, gantry_model::overlay::Subnet), String> {
    let name = &network.network.spec.name;
    let address: Ipv4Addr =
        asked.parse().map_err(|_| format!("invalid address {asked:?} asked for in network {name}"))?;
    let subnet = subnets_of(network)
        .find(|subnet| subnet.contains(address))
        .ok_or_else(|| format!("address {address} is not in a subnet of network {name}"))?;
    if state.addresses_of(&network.network.id).is_some_and(|used| used.contains(address)) {
        return Err(format!("address {address} is already in use in network {name}"));
    }
    Ok((address, subnet))
}
