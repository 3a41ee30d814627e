//! Sandboxes: make one with its places in networks, connect and disconnect a running one, take it away.
//!
//! A creation is planned under the lock (names, addresses, ports are taken and written down), then carried out without it, and
//! undone in reverse if a step fails. A removal never deletes a link, which takes the kernel 20 ms each: the namespace goes in
//! the background and takes its links along.

use crate::definition::Driver;
use crate::dns::SandboxSockets;
use crate::error::{NetworkError, Result, kernel};
use crate::firewall;
use crate::host::{self, InterfaceSetup, Plug};
use crate::ipam::{Addresses, Refusal};
use crate::local::find;
use crate::networks::{Inner, Networks, addresses_of, port_rules, random_id};
use crate::sandbox::{Attachment, Endpoint, Sandbox, SandboxSpec};
use crate::store::{EndpointRecord, PortRecord, SandboxRecord};
use crate::text;
use gantry_linux::netlink::Socket;
use gantry_linux::netlink::link::{Change, Mac, Port, change};
use gantry_linux::netlink::route::Route;
use gantry_linux::netns::{self, NetNs};
use gantry_linux::sysctl;
use gantry_model::overlay::OverlayNetwork;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// So long an address may still be answered by the namespace that had it before.
const FADING: Duration = Duration::from_secs(3);

/// How an endpoint is wired.
#[derive(Debug, Clone)]
enum Wiring {
    Veth { bridge: String, mtu: Option<u32>, port: Port },
    Macvlan { parent: String, mode: u32, mtu: Option<u32> },
    Nothing,
}

/// An endpoint that was planned and not yet made.
#[derive(Debug, Clone)]
struct Planned {
    record: EndpointRecord,
    wiring: Wiring,
    /// The link that had the address a moment ago.
    fading: Option<String>,
}

impl Networks {
    /// Makes a sandbox.
    pub fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        if spec.id.is_empty()
            || !spec.id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            return Err(NetworkError::Invalid(format!("invalid container id {:?}", spec.id)));
        }
        let id = spec.id.clone();
        let (record, planned) = self.plan(spec)?;
        match self.build(&record, &planned) {
            Ok(()) => self.sandbox(&id),
            Err(error) => {
                if let Err(undo) = self.remove_sandbox(&id) {
                    tracing::warn!(
                        container = id,
                        cause = crate::chain(&undo),
                        "a half-made sandbox was not removed"
                    );
                }
                Err(error)
            }
        }
    }

    /// Takes addresses and ports and writes the record.
    fn plan(&self, spec: SandboxSpec) -> Result<(SandboxRecord, Vec<Planned>)> {
        let mut inner = self.lock();
        if inner.sandboxes.contains_key(&spec.id) {
            return Err(NetworkError::Refused(format!(
                "container {} has a network sandbox already",
                spec.id
            )));
        }
        let mut record = SandboxRecord { spec, endpoints: Vec::new(), ports: Vec::new() };
        let mut planned = Vec::new();
        let result = self
            .plan_into(&mut inner, &mut record, &mut planned)
            .and_then(|()| self.store.keep_sandbox(&record));
        if let Err(error) = result {
            give_back(&mut inner, &record);
            return Err(error);
        }
        inner.sandboxes.insert(record.spec.id.clone(), record.clone());
        Ok((record, planned))
    }

    fn plan_into(
        &self,
        inner: &mut Inner,
        record: &mut SandboxRecord,
        planned: &mut Vec<Planned>,
    ) -> Result<()> {
        for attachment in record.spec.networks.clone() {
            let plan = self.plan_endpoint(inner, record, &attachment)?;
            record.endpoints.push(plan.record.clone());
            planned.push(plan);
        }
        self.plan_ports(inner, record)
    }

    fn plan_ports(&self, inner: &mut Inner, record: &mut SandboxRecord) -> Result<()> {
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

    fn plan_endpoint(
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

    /// Makes what was planned.
    fn build(&self, record: &SandboxRecord, planned: &[Planned]) -> Result<()> {
        let id = record.spec.id.as_str();
        let needs_dns = self.needs_resolver(record);
        let sysctls = &record.spec.sysctls;
        let inside = || -> Result<(Socket, Option<SandboxSockets>)> {
            let mut socket = Socket::route().map_err(kernel("of a sandbox"))?;
            socket
                .request(change(1, Change { up: Some(true), ..Change::default() }))
                .map_err(kernel("lo"))?;
            loosen_source_check()?;
            for (name, value) in sysctls {
                sysctl::write(name, value)?;
            }
            let sockets = if needs_dns { Some(SandboxSockets::open()?) } else { None };
            Ok((socket, sockets))
        };
        for plan in planned {
            self.ensure_overlay(plan)?;
        }
        let (netns, opened) = NetNs::create(&self.store.netns(id), inside)?;
        let (mut socket, sockets) = opened?;
        let default = default_gateway(&record.endpoints);
        for plan in planned {
            self.plug(&netns, &mut socket, plan, default)?;
        }
        if !record.ports.is_empty() {
            self.change_ports(firewall::add_ports(self.host.table(), &port_rules(record)))?;
        }
        self.dns.add(record, sockets);
        self.overlay.update_sandbox(id, &netns, record)
    }

    /// Makes bridge and tunnel of an overlay network for the first container in it.
    fn ensure_overlay(&self, plan: &Planned) -> Result<()> {
        let Wiring::Veth { bridge, .. } = &plan.wiring else { return Ok(()) };
        if self.overlay.network(&plan.record.endpoint.network_id).is_none()
            || self.has_overlay_link(bridge)?
        {
            return Ok(());
        }
        self.sync_overlay()?;
        self.refresh_table()
    }

    fn plug(&self, netns: &NetNs, socket: &mut Socket, plan: &Planned, default: Option<&str>) -> Result<()> {
        let endpoint = &plan.record.endpoint;
        if let Some(link) = &plan.fading {
            self.host.delete_links(std::slice::from_ref(link))?;
        }
        let parsed = Mac::parse(&endpoint.mac).unwrap_or_default();
        let mtu = match &plan.wiring {
            Wiring::Nothing => return Ok(()),
            Wiring::Veth { bridge, mtu, port } => {
                let mtu = match mtu {
                    Some(mtu) => *mtu,
                    None => self.host.link(bridge)?.map_or(1500, |link| link.mtu),
                };
                let (link, interface) = (plan.record.link.as_str(), endpoint.interface.as_str());
                self.host.plug(netns, Plug { link, interface, mac: parsed, mtu, bridge, port: *port })?;
                None
            }
            Wiring::Macvlan { parent, mode, mtu } => {
                self.host.plug_macvlan(netns, parent, *mode, &endpoint.interface, parsed)?;
                *mtu
            }
        };
        let default_gateway = endpoint.gateway.filter(|_| default == Some(endpoint.id.as_str()));
        let setup = InterfaceSetup {
            interface: endpoint.interface.clone(),
            address: endpoint.address.map(|address| (address, endpoint.prefix)),
            default_gateway,
            mtu,
            loopback: false,
        };
        host::configure_interface(socket, &setup)
    }

    /// Whether a sandbox gets the resolver: like Docker, all but those that have only the default bridge.
    pub(crate) fn needs_resolver(&self, record: &SandboxRecord) -> bool {
        self.dns.enabled()
            && record.endpoints.iter().any(|e| !matches!(e.endpoint.network_name.as_str(), "bridge" | "none"))
    }

    /// One sandbox.
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        let (record, host_gateway) = {
            let inner = self.lock();
            let record =
                inner.sandboxes.get(id).cloned().ok_or_else(|| NetworkError::NoSandbox(id.to_owned()))?;
            let gateway = find(&inner, "bridge").ok().and_then(|local| Some(local.driver.layout()?.gateway));
            (record, gateway)
        };
        let node = self.dns.node_conf();
        let settings = &record.spec.dns;
        let resolv_conf = if self.needs_resolver(&record) {
            text::own_resolv_conf(&node, settings)
        } else {
            text::direct_resolv_conf(&node, settings)
        };
        let addresses: Vec<Ipv4Addr> = addresses_of(&record).map(|e| e.address).collect();
        Ok(Sandbox {
            id: id.to_owned(),
            netns: self.store.netns(id),
            resolv_conf,
            hosts: text::hosts(&record.spec, &addresses, host_gateway),
            endpoints: record.endpoints.into_iter().map(|e| e.endpoint).collect(),
            ports: record.ports.into_iter().map(|port| port.bound).collect(),
        })
    }

    /// Ids of all sandboxes.
    pub fn sandboxes(&self) -> Vec<String> {
        self.lock().sandboxes.keys().cloned().collect()
    }

    /// Connects a running sandbox to one more network.
    pub fn connect(&self, id: &str, attachment: &Attachment) -> Result<Endpoint> {
        let netns = NetNs::open(&self.store.netns(id)).map_err(|_| NetworkError::NoSandbox(id.to_owned()))?;
        let (record, planned) = {
            let mut inner = self.lock();
            let mut record =
                inner.sandboxes.get(id).cloned().ok_or_else(|| NetworkError::NoSandbox(id.to_owned()))?;
            let planned = self.plan_endpoint(&mut inner, &record, attachment)?;
            record.spec.networks.push(attachment.clone());
            record.endpoints.push(planned.record.clone());
            if let Err(error) = self.store.keep_sandbox(&record) {
                release(&mut inner, &planned.record.endpoint);
                return Err(error);
            }
            inner.sandboxes.insert(id.to_owned(), record.clone());
            (record, planned)
        };
        let result = self.wire_running(&netns, &record, &planned);
        if let Err(error) = result {
            if let Err(undo) = self.disconnect(id, &planned.record.endpoint.network_id) {
                tracing::warn!(
                    container = id,
                    cause = crate::chain(&undo),
                    "a half-made endpoint was not removed"
                );
            }
            return Err(error);
        }
        Ok(planned.record.endpoint)
    }

    fn wire_running(&self, netns: &NetNs, record: &SandboxRecord, planned: &Planned) -> Result<()> {
        self.ensure_overlay(planned)?;
        let mut socket = netns.run(Socket::route)?.map_err(kernel("of a sandbox"))?;
        self.plug(netns, &mut socket, planned, default_gateway(&record.endpoints))?;
        set_default_route(&mut socket, record)?;
        let sockets = if self.needs_resolver(record) && !self.dns.serves(&record.spec.id) {
            Some(netns.run(SandboxSockets::open)??)
        } else {
            None
        };
        self.dns.add(record, sockets);
        self.overlay.update_sandbox(&record.spec.id, netns, record)
    }

    /// Takes a running sandbox out of a network.
    pub fn disconnect(&self, id: &str, network: &str) -> Result<()> {
        let netns = NetNs::open(&self.store.netns(id)).map_err(|_| NetworkError::NoSandbox(id.to_owned()))?;
        let (record, gone) = {
            let mut inner = self.lock();
            let mut record =
                inner.sandboxes.get(id).cloned().ok_or_else(|| NetworkError::NoSandbox(id.to_owned()))?;
            let network_id = find(&inner, network).map(|local| local.network.id.clone()).ok();
            let fits = |e: &EndpointRecord| {
                Some(&e.endpoint.network_id) == network_id.as_ref()
                    || e.endpoint.network_id == network
                    || e.endpoint.network_name == network
            };
            let Some(place) = record.endpoints.iter().position(fits) else {
                let (container, network) = (record.spec.name.clone(), network.to_owned());
                return Err(NetworkError::NotConnected { container, network });
            };
            let gone = record.endpoints.remove(place);
            record
                .spec
                .networks
                .retain(|a| a.network != gone.endpoint.network_id && a.network != gone.endpoint.network_name);
            inner.sandboxes.insert(id.to_owned(), record.clone());
            (record, gone)
        };
        let interface = gone.endpoint.interface.clone();
        let mut socket = netns.run(Socket::route)?.map_err(kernel("of a sandbox"))?;
        socket.delete_links(&[interface]).map_err(kernel(gone.endpoint.interface.as_str()))?;
        set_default_route(&mut socket, &record)?;
        self.store.keep_sandbox(&record)?;
        release(&mut self.lock(), &gone.endpoint);
        self.forget_addresses(gone.endpoint.address.as_slice());
        self.dns.add(&record, None);
        self.overlay.update_sandbox(id, &netns, &record)
    }

    /// Takes a sandbox away: ports, names, namespace. What is gone already is no error.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        let Some(record) = self.lock().sandboxes.get(id).cloned() else { return Ok(()) };
        self.dns.remove(id);
        self.overlay.forget_sandbox(id);
        // From here on the ports lead nowhere; they stay taken until the namespace is off its path.
        let ports = port_rules(&record);
        self.lock().sandboxes.remove(id);
        let mut failure = None;
        if !ports.is_empty() {
            failure = self.change_ports(firewall::delete_ports(self.host.table(), &ports)).err();
        }
        failure = netns::delete(&self.store.netns(id)).err().map(NetworkError::from).or(failure);
        failure = self.store.forget_sandbox(id).err().or(failure);
        let addresses: Vec<Ipv4Addr> = addresses_of(&record).map(|e| e.address).collect();
        let overlay = record.endpoints.iter().any(|e| self.overlay.network(&e.endpoint.network_id).is_some());
        give_back(&mut self.lock(), &record);
        if !ports.is_empty() || overlay {
            self.forget_addresses(&addresses);
        }
        // Links of an overlay network without containers stay until the cluster's next state: deleting them takes long.
        failure.map_or(Ok(()), Err)
    }

    /// Removes every sandbox that `keep` does not want: those of containers that ended while the daemon was dead.
    pub fn retain_sandboxes(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let mut failure = None;
        for id in self.sandboxes().into_iter().filter(|id| !keep(id)) {
            failure = self.remove_sandbox(&id).err().or(failure);
        }
        failure.map_or(Ok(()), Err)
    }

    fn forget_addresses(&self, addresses: &[Ipv4Addr]) {
        if !addresses.is_empty() {
            host::forget_connections(&self.host, addresses.to_vec());
        }
    }
}

fn finish_plan(inner: &mut Inner, endpoint: Endpoint, wiring: Wiring) -> Result<Planned> {
    inner.fading.retain(|_, (_, since)| since.elapsed() < FADING);
    let fading = endpoint.address.and_then(|address| inner.fading.remove(&address)).map(|(link, _)| link);
    let link = match wiring {
        Wiring::Veth { .. } => format!("veth{}", endpoint.id.get(..8).unwrap_or_default()),
        Wiring::Macvlan { .. } | Wiring::Nothing => String::new(),
    };
    Ok(Planned { record: EndpointRecord { endpoint, link }, wiring, fading })
}

fn free_interface(record: &SandboxRecord) -> String {
    (0..)
        .map(|n| format!("eth{n}"))
        .find(|name| record.endpoints.iter().all(|e| e.endpoint.interface != *name))
        .unwrap_or_default()
}

fn dns_names(container: &SandboxSpec, wanted: &Attachment) -> Vec<String> {
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

/// Id of the endpoint that gives the default route: highest priority, then first by network name, as Docker chooses.
fn default_gateway(endpoints: &[EndpointRecord]) -> Option<&str> {
    endpoints
        .iter()
        .filter(|e| e.endpoint.gateway.is_some())
        .min_by_key(|e| (-e.endpoint.priority, e.endpoint.network_name.clone()))
        .map(|e| e.endpoint.id.as_str())
}

fn set_default_route(socket: &mut Socket, record: &SandboxRecord) -> Result<()> {
    let chosen = default_gateway(&record.endpoints);
    let Some(e) = record.endpoints.iter().find(|e| Some(e.endpoint.id.as_str()) == chosen) else {
        return Ok(());
    };
    let Some(gateway) = e.endpoint.gateway else { return Ok(()) };
    let Some(link) = socket.link(&e.endpoint.interface).map_err(kernel("of a sandbox"))? else {
        return Ok(());
    };
    socket.request(Route::default_via(IpAddr::V4(gateway), link.index).add()).map_err(kernel("of a sandbox"))
}

/// In a container with several networks, requests of the mesh come from outside on one interface while the default route leads
/// to another; a strict check, which a namespace inherits from the host's first one, would drop them.
fn loosen_source_check() -> Result<()> {
    if sysctl::read("net/ipv4/conf/all/rp_filter")? == "1" {
        sysctl::write("net/ipv4/conf/all/rp_filter", "2")?;
    }
    Ok(())
}

fn release(inner: &mut Inner, endpoint: &Endpoint) {
    if let Some(address) = endpoint.address
        && let Some(pool) =
            inner.networks.get_mut(&endpoint.network_id).and_then(|local| local.addresses.as_mut())
    {
        pool.release(address);
    }
}

/// Returns addresses and ports of a sandbox.
fn give_back(inner: &mut Inner, record: &SandboxRecord) {
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
