//! Local networks: create, list, inspect, remove.

use crate::definition::{self, Driver};
use crate::error::{NetworkError, Result};
use crate::ipam;
use crate::networks::{Inner, Local, Networks, bridge_link, random_id};
use gantry_model::network::{IpamConfig, Network, NetworkSpec};
use gantry_model::overlay::Subnet;
use std::sync::PoisonError;

/// A container in a network, for the network's list of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Container.
    pub container_id: String,
    /// Its name.
    pub container_name: String,
    /// Endpoint.
    pub endpoint: crate::sandbox::Endpoint,
}

impl Networks {
    /// Makes a network. The answer has all defaults filled in.
    pub fn create(&self, mut spec: NetworkSpec) -> Result<Network> {
        definition::check_name(&spec.name)?;
        if spec.driver == "overlay" || spec.scope == "swarm" {
            return Err(NetworkError::Refused(
                "cannot create an overlay network: this node is not a swarm manager".into(),
            ));
        }
        let _alone = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.host.used_subnets()?;
        let id = random_id()?;
        let local = {
            let mut inner = self.lock();
            if inner.networks.values().any(|local| local.network.spec.name == spec.name) {
                return Err(NetworkError::NameTaken(spec.name));
            }
            follow_template(&inner, &mut spec)?;
            self.complete(&inner, &mut spec, &used)?;
            let network = Network { id: id.clone(), created: now(), spec };
            let local = Local::new(network, &bridge_link(&id))?;
            if matches!(local.driver, Driver::Host | Driver::None) {
                return Err(NetworkError::Refused(format!(
                    "only one instance of \"{}\" network is allowed",
                    local.network.spec.driver
                )));
            }
            check_link(&inner, &local)?;
            inner.networks.insert(id.clone(), local.clone());
            local
        };
        let made =
            self.ensure_links(&local).and_then(|()| self.keep_networks()).and_then(|()| self.refresh_table());
        if let Err(error) = made {
            self.lock().networks.remove(&id);
            self.remove_links(&local);
            // The error that stopped the creation is the one to tell.
            let _ = self.keep_networks();
            return Err(error);
        }
        Ok(local.network)
    }

    /// All local networks, the predefined first, then by name.
    pub fn list(&self) -> Vec<Network> {
        let mut all: Vec<Network> =
            self.lock().networks.values().map(|local| local.network.clone()).collect();
        all.sort_by_key(|network| (!is_predefined(&network.spec.name), network.spec.name.clone()));
        all
    }

    /// One local network by id, name or unique beginning of the id.
    pub fn inspect(&self, reference: &str) -> Result<Network> {
        Ok(find(&self.lock(), reference)?.network.clone())
    }

    /// The containers in a network (local or overlay).
    pub fn members(&self, network_id: &str) -> Vec<Member> {
        let inner = self.lock();
        let mut members: Vec<Member> = inner
            .sandboxes
            .values()
            .flat_map(|record| record.endpoints.iter().map(move |e| (record, e)))
            .filter(|(_, e)| e.endpoint.network_id == network_id)
            .map(|(record, e)| Member {
                container_id: record.spec.id.clone(),
                container_name: record.spec.name.clone(),
                endpoint: e.endpoint.clone(),
            })
            .collect();
        members.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        members
    }

    /// Removes a network that no running container uses.
    pub fn remove(&self, reference: &str) -> Result<Network> {
        let _alone = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        let local = {
            let mut inner = self.lock();
            let local = find(&inner, reference)?.clone();
            let (id, name) = (&local.network.id, &local.network.spec.name);
            if is_predefined(name) {
                return Err(NetworkError::RemovePredefined(name.clone()));
            }
            let users: Vec<String> = inner
                .sandboxes
                .values()
                .filter(|record| record.endpoints.iter().any(|e| e.endpoint.network_id == *id))
                .map(|record| {
                    format!(
                        "name:{:?} id:{:?}",
                        record.spec.name,
                        record.spec.id.get(..12).unwrap_or_default()
                    )
                })
                .collect();
            if !users.is_empty() {
                return Err(NetworkError::InUse { name: name.clone(), endpoints: users.join(", ") });
            }
            inner.networks.remove(id);
            local
        };
        self.keep_networks()?;
        self.remove_links(&local);
        self.refresh_table()?;
        Ok(local.network)
    }

    fn remove_links(&self, local: &Local) {
        if let Driver::Bridge(bridge) = &local.driver
            && let Ok(Some(link)) = self.host.link(&bridge.link)
            // A bridge that the user made stays.
            && link.alias == format!("{}:{}", self.config.table, local.network.id)
            && let Err(error) = self.host.delete_links(std::slice::from_ref(&bridge.link))
        {
            tracing::warn!(link = bridge.link, %error, "the link of a removed network stays until the next start");
        }
    }

    pub(crate) fn keep_networks(&self) -> Result<()> {
        // The lock is held over the write: two writers must not swap their order.
        let inner = self.lock();
        self.store.keep_networks(inner.networks.values().map(|local| local.network.clone()).collect())
    }

    /// Makes `bridge`, `host` and `none` at the first start.
    pub(crate) fn add_predefined(&self) -> Result<()> {
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            if self.lock().networks.values().any(|local| local.network.spec.name == name) {
                continue;
            }
            let mut spec = NetworkSpec {
                name: name.into(),
                driver: driver.into(),
                scope: "local".into(),
                ..NetworkSpec::default()
            };
            if name == "bridge" {
                self.default_bridge(&mut spec)?;
            }
            let network = Network { id: random_id()?, created: now(), spec };
            let local = Local::new(network, &self.config.default_bridge)?;
            self.lock().networks.insert(local.network.id.clone(), local);
        }
        self.keep_networks()
    }

    fn default_bridge(&self, spec: &mut NetworkSpec) -> Result<()> {
        let mut used = self.host.used_subnets()?;
        if let Some(fixed) = self.config.default_bridge_address {
            let gateway = if fixed == fixed.network() { String::new() } else { fixed.address().to_string() };
            let subnet = fixed.network().to_string();
            spec.ipam.config.push(IpamConfig { subnet, gateway, ..IpamConfig::default() });
        }
        // If the bridge lives and only our state was lost, its own subnet is no collision.
        used.retain(|subnet| !self.link_has(&self.config.default_bridge, *subnet));
        for (key, value) in [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", self.config.default_bridge.as_str()),
        ] {
            spec.options.insert(key.to_owned(), value.to_owned());
        }
        let inner = self.lock();
        self.complete(&inner, spec, &used)
    }

    /// Fills in driver, scope and addresses, and refuses subnets that collide.
    fn complete(&self, inner: &Inner, spec: &mut NetworkSpec, used: &[Subnet]) -> Result<()> {
        if spec.driver.is_empty() {
            spec.driver = "bridge".into();
        }
        spec.scope = "local".into();
        spec.enable_ipv4 = spec.enable_ipv4.or(Some(true));
        spec.enable_ipv6 = spec.enable_ipv6.or(Some(false));
        if spec.ipam.driver.is_empty() {
            spec.ipam.driver = "default".into();
        }
        definition::check_supported(spec)?;
        if spec.config_only || matches!(spec.driver.as_str(), "host" | "null" | "none") {
            return Ok(());
        }
        let mut taken: Vec<Subnet> =
            inner.networks.values().filter_map(|l| Some(l.driver.layout()?.subnet)).collect();
        taken.extend(self.overlay.subnets());
        let config = match definition::ipv4_config(spec)? {
            None => {
                taken.extend(used);
                let subnet =
                    ipam::free_subnet(&self.config.pools, &taken).ok_or(NetworkError::PoolsExhausted)?;
                spec.ipam.config.clear();
                IpamConfig { subnet: subnet.to_string(), ..IpamConfig::default() }
            }
            Some(config) => {
                let config = config.clone();
                let subnet = definition::layout(&config)?.subnet;
                // A macvlan network is by its nature the same as the network of its parent.
                let is_macvlan = spec.driver == "macvlan";
                if let Some(other) = taken.iter().find(|other| other.overlaps(subnet)) {
                    return Err(NetworkError::Overlap {
                        subnet: subnet.to_string(),
                        other: format!("network {other}"),
                    });
                }
                let own = spec
                    .options
                    .get("com.docker.network.bridge.name")
                    .is_some_and(|link| self.link_has(link, subnet));
                if let Some(other) = used.iter().find(|other| other.overlaps(subnet) && !is_macvlan && !own) {
                    return Err(NetworkError::Overlap {
                        subnet: subnet.to_string(),
                        other: format!("host route {other}"),
                    });
                }
                spec.ipam.config.clear();
                config
            }
        };
        let layout = definition::layout(&config)?;
        let full =
            IpamConfig { subnet: layout.subnet.to_string(), gateway: layout.gateway.to_string(), ..config };
        spec.ipam.config.insert(0, full);
        Ok(())
    }

    fn link_has(&self, name: &str, subnet: Subnet) -> bool {
        let Ok(Some(link)) = self.host.link(name) else { return false };
        let addresses = self.host.route("addresses", |socket| socket.addresses()).unwrap_or_default();
        addresses.iter().any(|a| match a.ip {
            std::net::IpAddr::V4(ip) => a.link == link.index && Subnet::new(ip, a.prefix).network() == subnet,
            std::net::IpAddr::V6(_) => false,
        })
    }
}

fn follow_template(inner: &Inner, spec: &mut NetworkSpec) -> Result<()> {
    let Some(from) = &spec.config_from else { return Ok(()) };
    if from.network.is_empty() {
        spec.config_from = None;
        return Ok(());
    }
    let template = &find(inner, &from.network)?.network.spec;
    if !template.config_only {
        return Err(NetworkError::Invalid(format!("{} is not a configuration-only network", template.name)));
    }
    spec.ipam = template.ipam.clone();
    spec.options = template.options.clone();
    spec.internal = template.internal;
    if spec.labels.is_empty() {
        spec.labels = template.labels.clone();
    }
    Ok(())
}

fn check_link(inner: &Inner, new: &Local) -> Result<()> {
    let Driver::Bridge(bridge) = &new.driver else { return Ok(()) };
    let same = |local: &&Local| matches!(&local.driver, Driver::Bridge(other) if other.link == bridge.link);
    match inner.networks.values().find(same) {
        None => Ok(()),
        Some(other) => {
            let (link, name) = (&bridge.link, &other.network.spec.name);
            Err(NetworkError::Refused(format!(
                "cannot create network: link {link} is used by network {name}"
            )))
        }
    }
}

/// Finds a network by id, name, or unique beginning of the id, in this order.
pub(crate) fn find<'a>(inner: &'a Inner, reference: &str) -> Result<&'a Local> {
    let reference = if reference == "default" { "bridge" } else { reference };
    if let Some(local) = inner.networks.get(reference) {
        return Ok(local);
    }
    if let Some(local) = inner.networks.values().find(|local| local.network.spec.name == reference) {
        return Ok(local);
    }
    let hits: Vec<&Local> = inner
        .networks
        .iter()
        .filter(|(id, _)| !reference.is_empty() && id.starts_with(reference))
        .map(|(_, l)| l)
        .collect();
    match hits.as_slice() {
        [one] => Ok(one),
        [] => Err(NetworkError::NotFound(reference.to_owned())),
        many => Err(NetworkError::Ambiguous(reference.to_owned(), many.len())),
    }
}

fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
