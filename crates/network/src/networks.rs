//! [`Networks`]: the networks, sandboxes and ports of this node, and how they are found again after a restart.
//!
//! One lock guards the bookkeeping (which names, addresses and ports are given away). The kernel's part of a request, which
//! takes longer, runs outside of it. Every sandbox is written down before the kernel is touched, so that whatever a killed
//! daemon left behind has an owner that can be asked whether it lives.

use crate::config::NetworkConfig;
use crate::definition::{self, Driver};
use crate::dns::Dns;
use crate::error::{NetworkError, Result};
use crate::firewall::{BridgeRules, NodeRules, PortRule};
use crate::gate::Gates;
use crate::host::Host;
use crate::ipam::Addresses;
use crate::overlay::Overlay;
use crate::ports::Ports;
use crate::store::{SandboxRecord, Store};
use gantry_linux::netns::{self, NetNs};
use gantry_model::network::Network;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The networks of this node. All methods block for a short time (at most some tens of milliseconds) and may be called from
/// any thread; async callers use `spawn_blocking`.
#[derive(Debug)]
pub struct Networks {
    pub(crate) config: NetworkConfig,
    pub(crate) store: Store,
    pub(crate) host: Host,
    pub(crate) dns: Dns,
    pub(crate) overlay: Overlay,
    pub(crate) probes: crate::probe::Probes,
    inner: Mutex<Inner>,
    /// Held while the node's table is derived and written, so that an older state never overwrites a newer one.
    table: Mutex<()>,
    /// The same for what is told about one sandbox.
    pub(crate) gates: Gates,
    /// Held while a local network is made or removed, with its links.
    pub(crate) definitions: Mutex<()>,
}

/// The bookkeeping.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Local networks by id.
    pub networks: BTreeMap<String, Local>,
    /// Sandboxes by container id.
    pub sandboxes: HashMap<String, SandboxRecord>,
    /// Those of them whose namespace is still being made: nothing can be written into it yet, and who makes it writes
    /// everything in the end.
    pub building: HashSet<String>,
    /// Host ports.
    pub ports: Ports,
    /// Links of sandboxes that were removed a moment ago: the kernel may not have taken them down yet.
    pub fading: HashMap<Ipv4Addr, (String, Instant)>,
}

/// A local network.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    /// As clients see it.
    pub network: Network,
    /// Parsed.
    pub driver: Driver,
    /// Given addresses.
    pub addresses: Option<Addresses>,
}

impl Local {
    pub fn new(network: Network, default_link: &str) -> Result<Self> {
        let driver = definition::parse(&network.spec, default_link)?;
        let addresses = driver.layout().map(|layout| {
            let mut addresses = Addresses::new(layout.subnet, layout.range);
            for reserved in layout.reserved.iter().chain([&layout.gateway]) {
                // Twice the same is no mistake here.
                let _ = addresses.take(*reserved);
            }
            addresses
        });
        Ok(Self { network, driver, addresses })
    }
}

/// Name of the bridge of a user's network.
pub(crate) fn bridge_link(id: &str) -> String {
    format!("br-{}", id.get(..12).unwrap_or(id))
}

impl Networks {
    /// Opens the network layer in the calling thread's network namespace, which becomes the node's: finds networks and
    /// sandboxes again, makes the kernel agree with them and removes what belongs to none. May be repeated at any time.
    pub fn open(config: NetworkConfig) -> Result<Arc<Self>> {
        let store = Store::open(&config.state_dir, &config.run_dir)?;
        let host = Host::open(&config.table)?;
        host.enable_forwarding()?;
        let networks = Arc::new(Self {
            dns: Dns::new(&config),
            overlay: Overlay::new(&config),
            probes: crate::probe::Probes::default(),
            config,
            store,
            host,
            inner: Mutex::default(),
            table: Mutex::default(),
            gates: Gates::default(),
            definitions: Mutex::default(),
        });
        networks.recover()?;
        networks.warn_of_dropping_chains();
        networks.dns.watch(Arc::downgrade(&networks));
        crate::probe::start(Arc::downgrade(&networks));
        Ok(networks)
    }

    /// The configuration.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Ends what only makes sense while this node has containers: the resolver, when there is no sandbox. To be called when the
    /// daemon stops in order.
    pub fn shutdown(&self) {
        if self.lock().sandboxes.is_empty() {
            self.dns.end();
        }
    }

    /// Takes everything away: sandboxes, links, routes, the packet filter's table, the resolver and the state's files. Goes on after a
    /// failure and returns the first.
    pub fn destroy(&self) -> Result<()> {
        let mut failure = self.retain_sandboxes(|_| false).err();
        failure = self.leave_overlay().err().or(failure);
        let bridges: Vec<String> = {
            let mut inner = self.lock();
            let gone = std::mem::take(&mut inner.networks);
            inner.ports = Ports::default();
            gone.values().filter_map(|local| Some(bridge_rules(&local.driver)?.link)).collect()
        };
        let owned = format!("{}:", self.config.table);
        let links = self.host.route("links", |socket| socket.links());
        match links {
            Ok(links) => {
                let own = links
                    .iter()
                    .filter(|link| link.alias.starts_with(&owned) && bridges.contains(&link.name));
                let names: Vec<String> = own.map(|link| link.name.clone()).collect();
                failure = self.host.delete_links(&names).err().or(failure);
            }
            Err(error) => failure = Some(error),
        }
        failure = self.host.remove_table().err().or(failure);
        self.dns.end();
        failure = self.store.remove().err().or(failure);
        failure.map_or(Ok(()), Err)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of the bookkeeping is a single insertion or removal, so a panic can't leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recover(&self) -> Result<()> {
        self.load_networks()?;
        self.load_sandboxes()?;
        for name in self.store.netns_ids()? {
            if !self.lock().sandboxes.contains_key(&name) {
                netns::delete(&self.store.netns(&name))?;
            }
        }
        let locals: Vec<Local> = self.lock().networks.values().cloned().collect();
        // Before new ones are made: after a loss of the data folder the default bridge's name is held by a network that is gone.
        self.remove_foreign_bridges(&locals)?;
        for local in &locals {
            if let Err(error) = self.ensure_links(local) {
                // One broken network (its bridge's name was taken, say) must not stop the node.
                let cause = crate::chain(&error);
                tracing::error!(network = local.network.spec.name, cause, "the network can't be used");
            }
        }
        if let Some(state) = self.store.overlay()? {
            self.overlay.restore(state);
        }
        if let Err(error) = self.apply_known(None) {
            tracing::error!(
                cause = crate::chain(&error),
                "cluster networks are not whole; the next state is applied anew"
            );
        }
        self.refresh_table()?;
        self.dns.start(self);
        Ok(())
    }

    /// The host's firewall is its own business, but a user should not have to search for why nothing is forwarded.
    fn warn_of_dropping_chains(&self) {
        match self.host.netfilter(crate::doctor::dropping_chains) {
            Ok(chains) if chains.is_empty() => {}
            Ok(chains) => tracing::warn!(
                chains = chains.join(", "),
                "the host's firewall drops forwarded packets by default; containers are reached only as far as its rules accept it"
            ),
            Err(error) => tracing::debug!(cause = crate::chain(&error), "the host's chains can't be listed"),
        }
    }

    fn load_networks(&self) -> Result<()> {
        let mut inner = self.lock();
        for network in self.store.networks()? {
            let link = if network.spec.name == "bridge" {
                self.config.default_bridge.clone()
            } else {
                bridge_link(&network.id)
            };
            inner.networks.insert(network.id.clone(), Local::new(network, &link)?);
        }
        drop(inner);
        self.add_predefined()
    }

    fn load_sandboxes(&self) -> Result<()> {
        for mut record in self.store.sandboxes()? {
            let id = record.spec.id.clone();
            match NetNs::open(&self.store.netns(&id)) {
                Ok(netns) => self.finish_leaving(&netns, &mut record)?,
                Err(error) => {
                    tracing::debug!(container = id, %error, "forgetting a sandbox without namespace");
                    netns::delete(&self.store.netns(&id))?;
                    self.store.forget_sandbox(&id)?;
                    continue;
                }
            }
            let mut inner = self.lock();
            for EndpointOf { network, address } in addresses_of(&record) {
                if let Some(pool) = inner.networks.get_mut(network).and_then(|local| local.addresses.as_mut())
                {
                    let _ = pool.take(address);
                }
            }
            let ports = &mut inner.ports;
            self.host.run(|| record.ports.iter().for_each(|port| ports.retake(&port.bound)))?;
            inner.sandboxes.insert(id, record);
        }
        Ok(())
    }

    /// Links of networks that were removed while the last daemon died.
    fn remove_foreign_bridges(&self, locals: &[Local]) -> Result<()> {
        let prefix = format!("{}:", self.config.table);
        let links = self.host.route("links", |socket| socket.links())?;
        let gone: Vec<String> = links
            .into_iter()
            .filter(|link| link.kind == "bridge")
            .filter_map(|link| Some((link.alias.strip_prefix(&prefix)?.to_owned(), link.name)))
            .filter(|(id, _)| !id.starts_with("vni-") && !locals.iter().any(|local| local.network.id == *id))
            .map(|(_, name)| name)
            .collect();
        self.host.delete_links(&gone)
    }

    /// Makes the links that a network has on this node.
    pub(crate) fn ensure_links(&self, local: &Local) -> Result<()> {
        let Driver::Bridge(bridge) = &local.driver else { return Ok(()) };
        let mtu = match bridge.mtu {
            Some(mtu) => mtu,
            None => self.default_mtu()?,
        };
        self.host.ensure_bridge(bridge, mtu, None, &format!("{}:{}", self.config.table, local.network.id))
    }

    /// Largest packet of a bridge network that sets none.
    pub(crate) fn default_mtu(&self) -> Result<u32> {
        match self.config.mtu {
            Some(mtu) => Ok(mtu),
            None => self.host.uplink_mtu(self.config.node_address),
        }
    }

    /// Derives the node's nftables table anew and writes it.
    pub(crate) fn refresh_table(&self) -> Result<()> {
        let _order = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = self.rules();
        self.host.write_table(&rules)
    }

    /// Changes single ports in the table; falls back to the whole table when it is not as expected.
    pub(crate) fn change_ports(&self, change: gantry_linux::nft::Transaction) -> Result<()> {
        let order = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.host.netfilter(|socket| change.commit(socket));
        drop(order);
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "single ports could not be changed; writing the whole table");
                self.refresh_table()
            }
        }
    }

    fn rules(&self) -> NodeRules {
        let inner = self.lock();
        let mut bridges: Vec<BridgeRules> =
            inner.networks.values().filter_map(|local| bridge_rules(&local.driver)).collect();
        bridges.extend(self.overlay.bridge_rules());
        let ports = inner.sandboxes.values().flat_map(port_rules).collect();
        NodeRules { bridges, ports, mesh: self.overlay.mesh_rules() }
    }
}

fn bridge_rules(driver: &Driver) -> Option<BridgeRules> {
    let Driver::Bridge(bridge) = driver else { return None };
    Some(BridgeRules {
        link: bridge.link.clone(),
        subnet: bridge.layout.subnet,
        icc: bridge.icc,
        masquerade: bridge.masquerade,
        internal: bridge.internal,
    })
}

/// The table's entries for a sandbox's ports.
pub(crate) fn port_rules(record: &SandboxRecord) -> Vec<PortRule> {
    let rule = |port: &crate::store::PortRecord| PortRule {
        host_ip: port.bound.host_ip,
        protocol: port.bound.protocol.number(),
        host_port: port.bound.host_port,
        target: (port.target, port.bound.container_port),
    };
    record.ports.iter().map(rule).collect()
}

/// An address of a sandbox.
pub(crate) struct EndpointOf<'a> {
    /// Network id.
    pub network: &'a str,
    /// Address.
    pub address: Ipv4Addr,
}

/// The addresses of a sandbox.
pub(crate) fn addresses_of(record: &SandboxRecord) -> impl Iterator<Item = EndpointOf<'_>> {
    record.endpoints.iter().filter_map(|e| {
        e.endpoint.address.map(|address| EndpointOf { network: &e.endpoint.network_id, address })
    })
}

/// Draws a random id of 64 hex digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| NetworkError::Random(std::io::Error::other(error.to_string())))?;
    Ok(gantry_model::id::ContainerId::from_random(bytes).into())
}
