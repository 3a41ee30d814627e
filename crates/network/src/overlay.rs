//! Cluster networks on this node: the last state that the cluster told, and how the kernel is made to agree with it.
//!
//! For each overlay network with a container here there is a bridge (`gov` and the VNI) that holds the network's gateway
//! address, and a VXLAN device (`gvx` and the VNI) with one static entry for each container elsewhere: nothing is learned or
//! flooded. The gateway's address is the same on every node and answers only on its own, since no tunnel entry leads to it; so
//! containers reach the outside through their own node, without a second interface.
//! The routing mesh has a VXLAN device of its own (`gmesh`) that only nodes talk over; see [`mesh`].

pub mod mesh;
pub mod plan;
pub mod vip;

use crate::config::NetworkConfig;
use crate::definition::{Bridge, Layout};
use crate::error::{NetworkError, Result, kernel};
use crate::firewall::{BridgeRules, MeshRules};
use crate::host::{self, Host};
use crate::networks::Networks;
use crate::resolver::protocol::Zone;
use crate::store::SandboxRecord;
use gantry_linux::netlink::address::Address;
use gantry_linux::netlink::link::{Change, Kind, Mac, NewLink, OuterFragments, change};
use gantry_linux::netlink::neighbour::{Forward, Neighbour};
use gantry_linux::netlink::{Message, Socket};
use gantry_linux::netns::NetNs;
use gantry_model::overlay::{OverlayNetwork, OverlayState, Subnet};
use plan::{Desired, Observed, Step, TunnelLink};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vip::VipRules;

/// VXLAN over IPv4 and Ethernet takes so much of each packet.
pub const OVERHEAD: u32 = 50;
/// Link of the routing mesh.
pub const MESH_LINK: &str = "gmesh";

/// Name of the bridge of an overlay network.
pub fn bridge_link(vni: u32) -> String {
    format!("gov{vni}")
}

/// Name of the VXLAN device of an overlay network.
pub fn tunnel_link(vni: u32) -> String {
    format!("gvx{vni}")
}

/// What is known about cluster networks.
#[derive(Debug)]
pub struct Overlay {
    port: u16,
    table: String,
    node_address: Option<IpAddr>,
    known: Mutex<Known>,
    /// Held while the kernel is being changed.
    applying: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    state: Option<OverlayState>,
    underlay_mtu: Option<u32>,
    /// What each sandbox's table says now.
    vips: HashMap<String, VipRules>,
}

impl Overlay {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self {
            port: config.vxlan_port,
            table: config.table.clone(),
            node_address: config.node_address,
            known: Mutex::default(),
            applying: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn restore(&self, state: OverlayState) {
        self.lock().state = Some(state);
    }

    /// The state that the cluster told last.
    pub(crate) fn state(&self) -> Option<OverlayState> {
        self.lock().state.clone()
    }

    /// A network by id or name.
    pub(crate) fn network(&self, reference: &str) -> Option<OverlayNetwork> {
        let known = self.lock();
        let networks = &known.state.as_ref()?.networks;
        let by_id = networks.iter().find(|network| network.id.as_str() == reference);
        by_id.or_else(|| networks.iter().find(|network| network.name == reference)).cloned()
    }

    /// Subnets that local networks must not take.
    pub(crate) fn subnets(&self) -> Vec<Subnet> {
        self.lock().state.iter().flat_map(|state| &state.networks).map(|network| network.subnet).collect()
    }

    /// Largest packet in a network.
    pub(crate) fn mtu(&self, host: &Host, network: &OverlayNetwork) -> Result<u32> {
        match network.mtu {
            Some(mtu) => Ok(mtu),
            None => self.tunnel_mtu(host),
        }
    }

    /// Largest packet in a tunnel.
    pub(crate) fn tunnel_mtu(&self, host: &Host) -> Result<u32> {
        let (cached, address) = {
            let known = self.lock();
            (known.underlay_mtu, known.state.as_ref().map(|state| IpAddr::V4(state.node_address)))
        };
        let underlay = match cached {
            Some(mtu) => mtu,
            None => host.uplink_mtu(address.or(self.node_address))?,
        };
        self.lock().underlay_mtu = Some(underlay);
        Ok(underlay - OVERHEAD)
    }

    /// The table's part for bridges of overlay networks.
    pub(crate) fn bridge_rules(&self) -> Vec<BridgeRules> {
        let known = self.lock();
        let rules = |network: &OverlayNetwork| BridgeRules {
            link: bridge_link(network.vni),
            subnet: network.subnet.network(),
            icc: true,
            masquerade: !network.internal,
            internal: network.internal,
        };
        known.state.iter().flat_map(|state| &state.networks).map(rules).collect()
    }

    /// The table's part for the mesh.
    pub(crate) fn mesh_rules(&self) -> Option<MeshRules> {
        mesh::rules(self.lock().state.as_ref()?)
    }

    /// Forgets what was written into a sandbox.
    pub(crate) fn forget_sandbox(&self, id: &str) {
        self.lock().vips.remove(id);
    }

    /// Makes a sandbox's table agree with the services of its networks. The sandbox's gate is held.
    fn write_rules(&self, id: &str, netns: &NetNs, record: &SandboxRecord) -> Result<()> {
        let (wanted, old) = {
            let known = self.lock();
            let networks: BTreeSet<&str> =
                record.endpoints.iter().map(|e| e.endpoint.network_id.as_str()).collect();
            (vip::rules(known.state.as_ref(), &networks), known.vips.get(id).cloned())
        };
        if old.as_ref() == Some(&wanted) || old.is_none() && wanted.is_empty() {
            return Ok(());
        }
        let written = netns.run(|| -> Result<()> {
            let mut socket = Socket::netfilter().map_err(kernel("of a sandbox"))?;
            vip::table(&self.table, &wanted).commit(&mut socket).map_err(kernel("of a sandbox"))?;
            if wanted.loses(old.as_ref()) {
                socket.delete_connections(|e| wanted.is_stale(e)).map_err(kernel("of a sandbox"))?;
            }
            Ok(())
        })?;
        written?;
        self.lock().vips.insert(id.to_owned(), wanted);
        Ok(())
    }
}

impl Networks {
    /// Makes this node agree with what the cluster says: tunnels, services, names, mesh. May be repeated; only differences are
    /// changed. What was told is kept, and applied again after a restart without any manager.
    pub fn apply_overlay(&self, state: OverlayState) -> Result<()> {
        let old = self.overlay.state();
        if old.as_ref() != Some(&state) {
            self.store.keep_overlay(&state)?;
        }
        {
            let mut known = self.overlay.lock();
            known.state = Some(state);
            // The uplink may have changed; it is looked at once for each state.
            known.underlay_mtu = None;
        }
        self.apply_known(old.as_ref())
    }

    /// Leaves the cluster: all its networks, names and ports go from this node.
    pub fn leave_overlay(&self) -> Result<()> {
        self.store.forget_overlay()?;
        let old = self.overlay.lock().state.take();
        self.apply_known(old.as_ref())
    }

    pub(crate) fn apply_known(&self, old: Option<&OverlayState>) -> Result<()> {
        self.sync_overlay()?;
        self.refresh_table()?;
        let state = self.overlay.state();
        self.hold_ingress_ports(state.as_ref())?;
        let mut failure = None;
        for id in self.sandboxes() {
            failure = self.update_sandbox(&id).err().or(failure);
        }
        self.dns.set_cluster(state.as_ref().map(zones).unwrap_or_default());
        if let Some(state) = &state {
            mesh::forget_stale(&self.host, old, state);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Makes a sandbox's table agree with the services of the networks that it is in now. One that is being made gets its table
    /// from who makes it, and one that is being removed needs none.
    pub(crate) fn update_sandbox(&self, id: &str) -> Result<()> {
        self.gates.pass(id, || {
            let record = {
                let inner = self.lock();
                inner.sandboxes.get(id).filter(|_| !inner.building.contains(id)).cloned()
            };
            let Some(record) = record else { return Ok(()) };
            let written = NetNs::open(&self.store.netns(id))
                .map_err(NetworkError::from)
                .and_then(|netns| self.overlay.write_rules(id, &netns, &record));
            match written {
                Err(_) if !self.lock().sandboxes.contains_key(id) => {
                    self.overlay.forget_sandbox(id);
                    Ok(())
                }
                other => other,
            }
        })
    }

    fn hold_ingress_ports(&self, state: Option<&OverlayState>) -> Result<()> {
        let ports =
            state.and_then(|state| state.ingress.as_ref()).map_or(&[] as &[_], |ingress| &ingress.ports);
        let wanted: BTreeSet<_> = ports.iter().map(|port| (port.protocol, port.published)).collect();
        let mut inner = self.lock();
        let ports = &mut inner.ports;
        self.host.run(|| ports.hold_ingress(&wanted))
    }

    /// Whether the links of an overlay network are there. A change that is under way is awaited first: it may not know of the
    /// caller's container yet and be about to delete them.
    pub(crate) fn has_overlay_link(&self, bridge: &str) -> Result<bool> {
        let _order = self.overlay.applying.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.host.link(bridge)?.is_some())
    }

    /// Makes links, tunnel entries and routes agree with the state.
    pub(crate) fn sync_overlay(&self) -> Result<()> {
        let _order = self.overlay.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.overlay.state();
        let local: BTreeSet<String> = {
            let inner = self.lock();
            inner
                .sandboxes
                .values()
                .flat_map(|r| &r.endpoints)
                .map(|e| e.endpoint.network_id.clone())
                .collect()
        };
        let mtu = if state.is_some() { self.overlay.tunnel_mtu(&self.host)? } else { 0 };
        let desired = state.as_ref().map(|state| plan::desired(state, &local, mtu)).unwrap_or_default();
        let observed = self.observe()?;
        let mut failure = None;
        for step in plan::plan(&desired, &observed) {
            // One refused step must not keep the others from being done; the next call tries it again.
            if let Err(error) = self.apply_step(&step) {
                tracing::warn!(
                    ?step,
                    cause = crate::chain(&error),
                    "a step towards the cluster's networks failed"
                );
                failure = Some(error);
            }
        }
        if let Err(error) = self.apply_entries(&desired) {
            failure = Some(error);
        }
        if let Err(error) = mesh::apply(&self.host, &desired) {
            failure = Some(error);
        }
        failure.map_or(Ok(()), Err)
    }

    fn observe(&self) -> Result<Observed> {
        let links = self.host.route("links", |socket| socket.links())?;
        Ok(plan::observed(&links))
    }

    fn apply_step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Delete(names) => self.host.delete_links(names),
            Step::Bridge(bridge) => {
                let settings = Bridge {
                    link: bridge.name.clone(),
                    layout: Layout {
                        subnet: bridge.subnet,
                        gateway: bridge.gateway,
                        range: None,
                        reserved: vec![],
                    },
                    mtu: Some(bridge.mtu),
                    icc: true,
                    masquerade: true,
                    host_ip: Ipv4Addr::UNSPECIFIED,
                    internal: false,
                };
                let alias = format!("{}:vni-{}", self.config.table, bridge.vni);
                self.host.ensure_bridge(&settings, bridge.mtu, Some(Mac::of_ip(bridge.gateway)), &alias)
            }
            Step::Tunnel(tunnel) => self.make_tunnel(tunnel),
            Step::Mtu(name, mtu) => self.host.route(name, |socket| {
                let Some(link) = socket.link(name)? else { return Ok(()) };
                socket.request(change(link.index, Change { mtu: Some(*mtu), ..Change::default() }))
            }),
        }
    }

    fn make_tunnel(&self, tunnel: &TunnelLink) -> Result<()> {
        let name = tunnel.name.as_str();
        let master = match &tunnel.bridge {
            Some(bridge) => self.host.link(bridge)?.map(|link| link.index),
            None => None,
        };
        let kind = Kind::Vxlan {
            vni: tunnel.vni,
            port: self.overlay.port,
            local: tunnel.local,
            proxy: tunnel.bridge.is_some(),
            // In the mesh the outer packet follows the inner one, so that a path that is too narrow is noticed by probes and by
            // TCP; containers' frames may be fragmented, which is slow and works.
            fragments: if tunnel.bridge.is_some() {
                OuterFragments::Allowed
            } else {
                OuterFragments::Inherit
            },
        };
        let mac = tunnel.mac;
        let new = NewLink { mtu: Some(tunnel.mtu), mac, master, up: true, ..NewLink::new(name, kind) };
        self.host.route(name, |socket| socket.request(new.message()))?;
        if tunnel.bridge.is_none() {
            self.host.relax_link(name)?;
        }
        Ok(())
    }

    /// Writes the differences of tunnel entries.
    fn apply_entries(&self, desired: &Desired) -> Result<()> {
        for tunnel in &desired.tunnels {
            self.host.route(&tunnel.name, |socket| {
                let Some(link) = socket.link(&tunnel.name)? else { return Ok(()) };
                let index = link.index;
                let ports = tunnel.bridge.is_some();
                let wanted_neighbours: BTreeSet<Neighbour> = tunnel
                    .peers
                    .iter()
                    .map(|peer| Neighbour { link: index, ip: IpAddr::V4(peer.ip), mac: peer.mac })
                    .collect();
                let wanted_forwards: BTreeSet<Forward> = tunnel
                    .peers
                    .iter()
                    .flat_map(|peer| {
                        let own = Forward { link: index, mac: peer.mac, tunnel: Some(IpAddr::V4(peer.node)) };
                        [Some(own), ports.then_some(Forward { tunnel: None, ..own })]
                    })
                    .flatten()
                    .collect();
                let neighbours: BTreeSet<Neighbour> = socket.neighbours(index)?.into_iter().collect();
                let forwards: BTreeSet<Forward> = socket.forwards(index)?.into_iter().collect();
                host::first(socket.batch(differences(
                    &wanted_neighbours,
                    &neighbours,
                    &wanted_forwards,
                    &forwards,
                ))?)
            })?;
        }
        Ok(())
    }
}

/// Removals first: an entry whose tunnel end changed would else be removed after it was replaced.
fn differences(
    wanted_neighbours: &BTreeSet<Neighbour>,
    neighbours: &BTreeSet<Neighbour>,
    wanted_forwards: &BTreeSet<Forward>,
    forwards: &BTreeSet<Forward>,
) -> Vec<Message> {
    let mut batch = Vec::new();
    batch.extend(forwards.difference(wanted_forwards).map(Forward::delete));
    batch.extend(neighbours.difference(wanted_neighbours).map(Neighbour::delete));
    batch.extend(wanted_forwards.difference(forwards).map(Forward::add));
    batch.extend(wanted_neighbours.difference(neighbours).map(Neighbour::add));
    batch
}

/// The names of cluster networks.
fn zones(state: &OverlayState) -> BTreeMap<String, Zone> {
    state.networks.iter().map(|network| (network.id.as_str().to_owned(), zone(network))).collect()
}

fn zone(network: &OverlayNetwork) -> Zone {
    let mut zone = Zone::default();
    for endpoint in &network.endpoints {
        for name in &endpoint.names {
            zone.names.entry(name.to_ascii_lowercase()).or_default().push(endpoint.address);
        }
        if let Some(first) = endpoint.names.first() {
            zone.reverse.insert(endpoint.address, format!("{first}.{}", network.name));
        }
    }
    for service in &network.services {
        let answer = service.vip.map_or_else(|| service.backends.clone(), |vip| vec![vip]);
        for name in std::iter::once(&service.name).chain(&service.aliases) {
            for (called, answer) in [(name.clone(), &answer), (format!("tasks.{name}"), &service.backends)] {
                // A name of a service goes before the same name of a container.
                let addresses = zone.names.entry(called.to_ascii_lowercase()).or_default();
                if *name == service.name {
                    addresses.clone_from(answer);
                } else {
                    addresses.extend(answer);
                }
            }
        }
        if let Some(vip) = service.vip {
            zone.reverse.insert(vip, format!("{}.{}", service.name, network.name));
        }
    }
    zone
}

/// The address of a link, for the mesh.
pub(crate) fn host_address(link: u32, ip: Ipv4Addr) -> Address {
    Address { link, ip: IpAddr::V4(ip), prefix: 32 }
}
