//! The plan of an endpoint: which address, MAC, names and wiring a sandbox gets in a network, and which ports of the node. Nothing
//! is made here; what was taken is given back by [`give_back`].

use crate::definition::Driver;
use crate::error::{NetworkError, Result};
use crate::ipam::{Addresses, Refusal};
use crate::local::find;
use crate::networks::{Inner, Networks, addresses_of, random_id};
use crate::sandbox::{Attachment, Endpoint, SandboxSpec};
use crate::store::{EndpointRecord, PortRecord, SandboxRecord};
use gantry_linux::netlink::link::{Mac, Port};
use gantry_model::overlay::OverlayNetwork;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// So long an address may still be answered by the namespace that had it before.
const FADING: Duration = Duration::from_secs(3);

/// How an endpoint is wired.
#[derive(Debug, Clone)]
pub(crate) enum Wiring {
    Veth { bridge: String, mtu: Option<u32>, port: Port },
    Macvlan { parent: String, mode: u32, mtu: Option<u32> },
    Nothing,
}

/// An endpoint that was planned and not yet made.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub record: EndpointRecord,
    pub wiring: Wiring,
    /// The link that had the address a moment ago.
    pub fading: Option<String>,
}

impl Networks {
    pub(crate) fn plan_ports(&self, inner: &mut Inner, record: &mut SandboxRecord) -> Result<()> {
        if record.spec.publish.is_empty() {
            return Ok(());
        }
        let bridge = record.endpoints.iter().find_map(|e| {
            let address = e.endpoint.address?;
            match inner.networks.get(&e.endpoint.network_id).map(|local| &local.driver) {
                Some(Driver::Bridge(bridge)) if !bridge.internal => Some((address, bridge.host_ip)),
                Some(_) => None,
                // An overlay network: its containers are reached over this node's bridge of it.
                None => e.endpoint.gateway.map(|_| (address, Ipv4Addr::UNSPECIFIED)),
            }
        });
        // Like Docker: a container without a bridge network has nothing that could be published.
        let Some((target, default_ip)) = bridge else { return Ok(()) };
        for port in record.spec.publish.clone() {
            let bound = self.host.run(|| inner.ports.take(&port, default_ip))??;
            record.ports.push(PortRecord { bound, target });
        }
        Ok(())
    }

    pub(crate) fn plan_endpoint(
        &self,
        inner: &mut Inner,
        record: &SandboxRecord,
        wanted: &Attachment,
    ) -> Result<Planned> {
        let interface = free_interface(record);
        let container = &record.spec;
        let base = |network_id: &str, network_name: &str| -> Result<Endpoint> {
            if record.endpoints.iter().any(|e| e.endpoint.network_id == network_id) {
                let (container, network) = (container.name.clone(), network_name.to_owned());
                return Err(NetworkError::AlreadyConnected { container, network });
            }
            Ok(Endpoint {
                id: random_id()?,
                network_id: network_id.to_owned(),
                network_name: network_name.to_owned(),
                interface: interface.clone(),
                address: None,
                prefix: 0,
                gateway: None,
                mac: String::new(),
                names: dns_names(container, wanted),
                links: wanted.links.clone(),
                priority: wanted.priority,
            })
        };
        let local = match find(inner, &wanted.network) {
            Ok(local) => local.clone(),
            Err(NetworkError::NotFound(_)) => {
                let Some(network) = self.overlay.network(&wanted.network) else {
                    return Err(NetworkError::NotFound(wanted.network.clone()));
                };
                return self.plan_overlay(inner, base(network.id.as_str(), &network.name)?, &network, wanted);
            }
            Err(error) => return Err(error),
        };
        let network = &local.network;
        let mut endpoint = base(&network.id, &network.spec.name)?;
        // Where bridged packets pass the packet filter (br_netfilter), a container's call of its own published port is translated
        // inside the bridge and must go out where it came in.
        let hairpin = !container.publish.is_empty();
        let wiring = match &local.driver {
            Driver::Bridge(b) => Wiring::Veth {
                bridge: b.link.clone(),
                mtu: b.mtu.or(self.config.mtu),
                port: Port { isolated: !b.icc, hairpin },
            },
            Driver::Macvlan(m) => Wiring::Macvlan { parent: m.parent.clone(), mode: m.mode, mtu: m.mtu },
            Driver::None => Wiring::Nothing,
            Driver::Host => {
                return Err(NetworkError::Refused(
                    "container cannot be connected to host network by a sandbox of its own".into(),
                ));
            }
            Driver::Template => {
                return Err(NetworkError::Refused(format!(
                    "network {} is configuration-only and can't be joined",
                    network.spec.name
                )));
            }
        };
        if let Some(layout) = local.driver.layout() {
            let pool = inner.networks.get_mut(&network.id).and_then(|local| local.addresses.as_mut());
            let address = take_address(pool, wanted.address, &network.spec.name)?;
            endpoint.address = Some(address);
            endpoint.prefix = layout.subnet.prefix();
            endpoint.gateway = (!network.spec.internal).then_some(layout.gateway);
            endpoint.mac = mac(wanted, address)?;
        }
        finish_plan(inner, endpoint, wiring)
    }

    fn plan_overlay(
        &self,
        inner: &mut Inner,
        mut endpoint: Endpoint,
        network: &OverlayNetwork,
        wanted: &Attachment,
    ) -> Result<Planned> {
        let Some(address) = wanted.address else {
            return Err(NetworkError::Invalid(format!(
                "the cluster gave no address in network {}",
                network.name
            )));
        };
        if !network.subnet.contains(address) {
            let subnet = network.subnet;
            return Err(NetworkError::Invalid(format!(
                "invalid endpoint settings: no configured subnet contains IP address {address} (network {} has {subnet})",
                network.name
            )));
        }
        if inner
            .sandboxes
            .values()
            .flat_map(addresses_of)
            .any(|e| e.network == network.id.as_str() && e.address == address)
        {
            return Err(NetworkError::AddressTaken {
                address: address.to_string(),
                network: network.name.clone(),
            });
        }
        endpoint.address = Some(address);
        endpoint.prefix = network.subnet.prefix();
        endpoint.gateway = (!network.internal).then_some(network.gateway);
        // Other nodes derive it in the same way.
        endpoint.mac = Mac::of_ip(address).to_string();
        let mtu = Some(self.overlay.mtu(&self.host, network)?);
        finish_plan(
            inner,
            endpoint,
            Wiring::Veth {
                bridge: crate::overlay::bridge_link(network.vni),
                mtu,
                port: Port { isolated: false, hairpin: true },
            },
        )
    }
}

fn finish_plan(inner: &mut Inner, endpoint: Endpoint, wiring: Wiring) -> Result<Planned> {
    inner.fading.retain(|_, (_, since)| since.elapsed() < FADING);
    let fading = endpoint.address.and_then(|address| inner.fading.remove(&address)).map(|(link, _)| link);
    let link = match wiring {
        Wiring::Veth { .. } => format!("veth{}", endpoint.id.get(..8).unwrap_or_default()),
        Wiring::Macvlan { .. } | Wiring::Nothing => String::new(),
    };
    Ok(Planned { record: EndpointRecord { endpoint, link, leaving: false }, wiring, fading })
}

fn free_interface(record: &SandboxRecord) -> String {
    (0..)
        .map(|n| format!("eth{n}"))
        .find(|name| record.endpoints.iter().all(|e| e.endpoint.interface != *name))
        .unwrap_or_default()
}

/// The names by which a container is found in a network.
pub(crate) fn dns_names(container: &SandboxSpec, wanted: &Attachment) -> Vec<String> {
    let short = container.id.get(..12).unwrap_or(&container.id).to_owned();
    let mut names = Vec::new();
    for name in std::iter::once(&container.name).chain(&wanted.names).chain([&short, &container.hostname]) {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn take_address(pool: Option<&mut Addresses>, wanted: Option<Ipv4Addr>, network: &str) -> Result<Ipv4Addr> {
    let Some(pool) = pool else { return Err(NetworkError::AddressesExhausted(network.to_owned())) };
    let Some(address) = wanted else {
        return pool.give().ok_or_else(|| NetworkError::AddressesExhausted(network.to_owned()));
    };
    match pool.take(address) {
        Ok(()) => Ok(address),
        Err(Refusal::Taken) => {
            Err(NetworkError::AddressTaken { address: address.to_string(), network: network.to_owned() })
        }
        Err(Refusal::Outside) => {
            let subnet = pool.subnet();
            Err(NetworkError::Invalid(format!(
                "invalid endpoint settings: no configured subnet contains IP address {address} (network {network} has {subnet})"
            )))
        }
    }
}

fn mac(wanted: &Attachment, address: Ipv4Addr) -> Result<String> {
    match wanted.mac.as_deref() {
        None | Some("") => Ok(Mac::of_ip(address).to_string()),
        Some(text) => match Mac::parse(text) {
            Some(mac) if mac.0[0] & 1 == 0 && mac != Mac::default() => Ok(mac.to_string()),
            _ => Err(NetworkError::Invalid(format!("invalid MAC address: {text}"))),
        },
    }
}

/// Returns an endpoint's address.
pub(crate) fn release(inner: &mut Inner, endpoint: &Endpoint) {
    if let Some(address) = endpoint.address
        && let Some(pool) =
            inner.networks.get_mut(&endpoint.network_id).and_then(|local| local.addresses.as_mut())
    {
        pool.release(address);
    }
}

/// Returns addresses and ports of a sandbox.
pub(crate) fn give_back(inner: &mut Inner, record: &SandboxRecord) {
    for e in &record.endpoints {
        release(inner, &e.endpoint);
        if let Some(address) = e.endpoint.address
            && !e.link.is_empty()
        {
            inner.fading.insert(address, (e.link.clone(), Instant::now()));
        }
    }
    for port in &record.ports {
        inner.ports.release(&port.bound);
    }
}
