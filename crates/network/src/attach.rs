//! Sandboxes: make one with its places in networks, connect and disconnect a running one, take it away.
//!
//! A creation is planned under the lock (names, addresses, ports are taken and written down), then carried out without it, and
//! undone in reverse if a step fails. A removal never deletes a link, which takes the kernel 20 ms each: the namespace goes in
//! the background and takes its links along.

use crate::dns::SandboxSockets;
use crate::endpoint::{Planned, Wiring, dns_names, give_back, release};
use crate::error::{NetworkError, Result, kernel};
use crate::firewall;
use crate::host::{self, InterfaceSetup, Plug};
use crate::local::find;
use crate::networks::{Inner, Networks, addresses_of, port_rules};
use crate::sandbox::{Attachment, Endpoint, Sandbox, SandboxSpec};
use crate::store::{EndpointRecord, SandboxRecord};
use crate::text;
use gantry_linux::netlink::Socket;
use gantry_linux::netlink::link::{Change, Mac, change};
use gantry_linux::netlink::route::Route;
use gantry_linux::netns::{self, NetNs};
use gantry_linux::sysctl;
use std::net::{IpAddr, Ipv4Addr};

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
        inner.building.insert(record.spec.id.clone());
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
        self.begin_names(id, sockets);
        self.update_sandbox(id)
    }

    /// The sandbox is made: whoever changes rules and names changes its as well from here on.
    fn begin_names(&self, id: &str, sockets: Option<SandboxSockets>) {
        self.gates.pass(id, || {
            let record = {
                let mut inner = self.lock();
                inner.building.remove(id);
                inner.sandboxes.get(id).cloned()
            };
            if let Some(record) = record {
                self.dns.add(&record, sockets);
            }
        });
    }

    /// Tells the resolver what a sandbox is now. One that is being made is told of by who makes it.
    pub(crate) fn tell_names(&self, id: &str) -> Result<()> {
        self.gates.pass(id, || {
            let record = {
                let inner = self.lock();
                inner.sandboxes.get(id).filter(|_| !inner.building.contains(id)).cloned()
            };
            let Some(record) = record else { return Ok(()) };
            let sockets = if self.needs_resolver(&record) && !self.dns.serves(id) {
                Some(NetNs::open(&self.store.netns(id))?.run(SandboxSockets::open)??)
            } else {
                None
            };
            self.dns.add(&record, sockets);
            Ok(())
        })
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
        self.tell_names(&record.spec.id)?;
        self.update_sandbox(&record.spec.id)
    }

    /// A container has another name: it is found by that one from here on, and by the old one no more. None of a container that
    /// does not run.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        {
            let mut inner = self.lock();
            let Some(mut record) = inner.sandboxes.get(id).cloned() else { return Ok(()) };
            if record.spec.name == name {
                return Ok(());
            }
            name.clone_into(&mut record.spec.name);
            for EndpointRecord { endpoint, .. } in &mut record.endpoints {
                let asked = record.spec.networks.iter().find(|asked| {
                    asked.network == endpoint.network_id || asked.network == endpoint.network_name
                });
                endpoint.names = dns_names(&record.spec, &asked.cloned().unwrap_or_default());
            }
            self.store.keep_sandbox(&record)?;
            inner.sandboxes.insert(id.to_owned(), record);
        }
        self.tell_names(id)
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
            // Written before the link goes: a process that is killed in between is taken up by the next one.
            record.endpoints[place].leaving = true;
            self.store.keep_sandbox(&record)?;
            let gone = record.endpoints.remove(place);
            record
                .spec
                .networks
                .retain(|a| a.network != gone.endpoint.network_id && a.network != gone.endpoint.network_name);
            inner.sandboxes.insert(id.to_owned(), record.clone());
            (record, gone)
        };
        unwire(&netns, &record, std::slice::from_ref(&gone.endpoint.interface))?;
        {
            let inner = self.lock();
            self.store.keep_sandbox(inner.sandboxes.get(id).unwrap_or(&record))?;
        }
        release(&mut self.lock(), &gone.endpoint);
        self.forget_addresses(gone.endpoint.address.as_slice());
        self.tell_names(id)?;
        self.update_sandbox(id)
    }

    /// Finishes what a killed process began: takes a sandbox out of the networks that it was leaving.
    pub(crate) fn finish_leaving(&self, netns: &NetNs, record: &mut SandboxRecord) -> Result<()> {
        let leaving: Vec<EndpointRecord> = record.endpoints.extract_if(.., |e| e.leaving).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        record.spec.networks.retain(|asked| {
            !leaving
                .iter()
                .any(|e| asked.network == e.endpoint.network_id || asked.network == e.endpoint.network_name)
        });
        let interfaces: Vec<String> = leaving.iter().map(|e| e.endpoint.interface.clone()).collect();
        unwire(netns, record, &interfaces)?;
        let addresses: Vec<Ipv4Addr> = leaving.iter().filter_map(|e| e.endpoint.address).collect();
        self.forget_addresses(&addresses);
        self.store.keep_sandbox(record)
    }

    /// Takes a sandbox away: ports, names, namespace. What is gone already is no error.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        let record = {
            let mut inner = self.lock();
            inner.building.remove(id);
            inner.sandboxes.remove(id)
        };
        let Some(record) = record else { return Ok(()) };
        // Whoever is telling something of it is done before it is forgotten.
        self.gates.pass(id, || {
            self.dns.remove(id);
            self.overlay.forget_sandbox(id);
        });
        // From here on the ports lead nowhere; they stay taken until the namespace is off its path.
        let ports = port_rules(&record);
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

/// Removes interfaces of a running sandbox; those that are gone already are fine.
fn unwire(netns: &NetNs, record: &SandboxRecord, interfaces: &[String]) -> Result<()> {
    let mut socket = netns.run(Socket::route)?.map_err(kernel("of a sandbox"))?;
    socket.delete_links(interfaces).map_err(kernel("of a sandbox"))?;
    set_default_route(&mut socket, record)
}

/// In a container with several networks, requests of the mesh come from outside on one interface while the default route leads
/// to another; a strict check, which a namespace inherits from the host's first one, would drop them.
fn loosen_source_check() -> Result<()> {
    if sysctl::read("net/ipv4/conf/all/rp_filter")? == "1" {
        sysctl::write("net/ipv4/conf/all/rp_filter", "2")?;
    }
    Ok(())
}
