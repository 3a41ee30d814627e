//! Tasks get an address in each of their networks.

use super::endpoint::{Pool, free_address, pools_of};
use super::{NODE_NETWORKS, needs_ingress_address, network_of};
use crate::allocator::subnets_of;
use crate::object::ClusterNetwork;
use crate::state::State;
use gantry_model::overlay::Subnet;
use gantry_model::service::{NetworkAttachmentConfig, Service};
use gantry_model::task::{NetworkAttachment, Task};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The networks that the tasks of one template join: looked up once, for all of them.
pub struct Joining(Vec<Place>);

enum Place {
    /// A network that each node has by itself.
    OfNode(String),
    /// A network of the cluster.
    OfCluster { network: Arc<ClusterNetwork>, pools: Vec<Pool>, asked: Option<String>, aliases: Vec<String> },
}

impl Joining {
    /// The networks of a task and of all others with its template. `Err` says what they have to wait for.
    pub fn of(state: &State, service: Option<&Service>, task: &Task) -> Result<Self, String> {
        let in_template = &task.spec.networks;
        let configs = match service {
            Some(service) if in_template.is_empty() => service.spec.networks.as_deref().unwrap_or_default(),
            _ => in_template,
        };
        let mut places = configs
            .iter()
            .map(|config| Place::of(state, task, config))
            .collect::<Result<Vec<Place>, String>>()?;
        if service.is_some_and(|service| needs_ingress_address(state, service))
            && let Some(network) = state.ingress_network()
        {
            let target = network.network.id.clone();
            let config = NetworkAttachmentConfig { target, ..NetworkAttachmentConfig::default() };
            places.push(Place::of(state, task, &config)?);
        }
        Ok(Self(places))
    }

    /// New addresses for one task. `Err` says what it has to wait for.
    pub fn addresses(&self, state: &State) -> Result<Vec<NetworkAttachment>, String> {
        self.0.iter().map(|place| place.attachment(state)).collect()
    }
}

impl Place {
    fn of(state: &State, task: &Task, config: &NetworkAttachmentConfig) -> Result<Self, String> {
        if NODE_NETWORKS.contains(&config.target.as_str()) {
            return Ok(Self::OfNode(config.target.clone()));
        }
        let network = network_of(state, &config.target)
            .ok_or_else(|| format!("network {} not found", config.target))?;
        if !network.is_allocated() {
            return Err(format!("waiting for network {} to get its subnet", network.network.spec.name));
        }
        let outside = task.spec.network_attachment_spec.as_ref();
        let names = outside.map(|spec| spec.names.as_slice()).unwrap_or_default();
        Ok(Self::OfCluster {
            network: Arc::clone(network),
            pools: pools_of(network),
            asked: config.addresses.first().cloned(),
            aliases: config.aliases.iter().chain(names).cloned().collect(),
        })
    }

    fn attachment(&self, state: &State) -> Result<NetworkAttachment, String> {
        let (network, pools, asked, aliases) = match self {
            Self::OfNode(name) => {
                return Ok(NetworkAttachment { network_id: name.clone(), ..NetworkAttachment::default() });
            }
            Self::OfCluster { network, pools, asked, aliases } => (network, pools, asked, aliases),
        };
        let (address, subnet) = match asked {
            Some(asked) => asked_address(state, network, asked)?,
            None => free_address(state, network, pools)?,
        };
        Ok(NetworkAttachment {
            network_id: network.network.id.clone(),
            addresses: vec![format!("{address}/{}", subnet.prefix())],
            aliases: aliases.clone(),
        })
    }
}

fn asked_address(state: &State, network: &ClusterNetwork, asked: &str) -> Result<(Ipv4Addr, Subnet), String> {
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
