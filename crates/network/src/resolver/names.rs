//! Which names have which addresses, seen from one sandbox. Pure.

use super::protocol::{SandboxNames, Zone};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    sandboxes: HashMap<String, SandboxNames>,
    /// Network → name → sandbox → address, of the sandboxes of this node.
    local: HashMap<String, HashMap<String, BTreeMap<String, Ipv4Addr>>>,
    reverse: HashMap<String, HashMap<Ipv4Addr, String>>,
    cluster: BTreeMap<String, Zone>,
    turn: usize,
}

/// What is known about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its addresses, none perhaps (a service without tasks).
    Addresses(Vec<Ipv4Addr>),
    /// Not ours.
    Unknown,
}

impl Names {
    /// Adds a sandbox or replaces what is known of it.
    pub fn add(&mut self, sandbox: SandboxNames) {
        self.remove(&sandbox.id);
        for place in &sandbox.networks {
            let Some(address) = place.address else { continue };
            let names = self.local.entry(place.network.clone()).or_default();
            for name in &place.names {
                names.entry(name.to_ascii_lowercase()).or_default().insert(sandbox.id.clone(), address);
            }
            if let Some(first) = place.names.first() {
                let name = format!("{first}.{}", place.network_name);
                self.reverse.entry(place.network.clone()).or_default().insert(address, name);
            }
        }
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// Forgets a sandbox.
    pub fn remove(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.remove(id) else { return };
        for place in &sandbox.networks {
            if let Some(names) = self.local.get_mut(&place.network) {
                for name in &place.names {
                    let name = name.to_ascii_lowercase();
                    if let Some(holders) = names.get_mut(&name) {
                        holders.remove(id);
                        if holders.is_empty() {
                            names.remove(&name);
                        }
                    }
                }
                if names.is_empty() {
                    self.local.remove(&place.network);
                }
            }
            if let (Some(reverse), Some(address)) = (self.reverse.get_mut(&place.network), place.address) {
                reverse.remove(&address);
                if reverse.is_empty() {
                    self.reverse.remove(&place.network);
                }
            }
        }
    }

    /// Replaces the names of cluster networks.
    pub fn set_cluster(&mut self, zones: BTreeMap<String, Zone>) {
        self.cluster = zones;
    }

    /// Ids of all sandboxes.
    pub fn sandboxes(&self) -> Vec<String> {
        self.sandboxes.keys().cloned().collect()
    }

    /// One sandbox.
    pub fn sandbox(&self, id: &str) -> Option<&SandboxNames> {
        self.sandboxes.get(id)
    }

    /// Looks a name up, as a sandbox sees it: in its networks in their order, then as `NAME.NETWORK`. Several addresses come in
    /// another order each time.
    pub fn lookup(&mut self, sandbox: &str, name: &str) -> Lookup {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let Some(from) = self.sandboxes.get(sandbox) else { return Lookup::Unknown };
        let mut found = None;
        for place in &from.networks {
            let bare = name
                .strip_suffix(&place.network_name.to_ascii_lowercase())
                .and_then(|rest| rest.strip_suffix('.'));
            let link = place.links.get(&name).map(String::as_str);
            found = [link, Some(name.as_str()), bare]
                .into_iter()
                .flatten()
                .find_map(|name| self.in_network(&place.network, name));
            if found.is_some() {
                break;
            }
        }
        let Some(mut addresses) = found else { return Lookup::Unknown };
        if !addresses.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let turn = self.turn % addresses.len();
            addresses.rotate_left(turn);
        }
        Lookup::Addresses(addresses)
    }

    fn in_network(&self, network: &str, name: &str) -> Option<Vec<Ipv4Addr>> {
        let cluster = self.cluster.get(network).and_then(|zone| zone.names.get(name));
        let local = self.local.get(network).and_then(|names| names.get(name));
        // What the cluster says of a name is all of it: a service's virtual address must not be mixed with the addresses of its
        // containers here. A container of this node is known here before the cluster tells about it.
        match (cluster, local) {
            (Some(cluster), _) => Some(cluster.clone()),
            (None, Some(local)) => {
                let mut all: Vec<Ipv4Addr> = local.values().copied().collect();
                all.dedup();
                Some(all)
            }
            (None, None) => None,
        }
    }

    /// The name of an address in one of a sandbox's networks.
    pub fn reverse(&self, sandbox: &str, address: Ipv4Addr) -> Option<String> {
        let from = self.sandboxes.get(sandbox)?;
        from.networks.iter().find_map(|place| {
            let local = self.reverse.get(&place.network).and_then(|names| names.get(&address));
            let cluster = || self.cluster.get(&place.network).and_then(|zone| zone.reverse.get(&address));
            local.or_else(cluster).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Presence;
    use super::*;

    fn sandbox(id: &str, network: &str, last: u8, names: &[&str]) -> SandboxNames {
        SandboxNames {
            id: id.into(),
            networks: vec![Presence {
                network: network.into(),
                network_name: format!("{network}-name"),
                address: Some(Ipv4Addr::new(10, 0, 0, last)),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                links: BTreeMap::new(),
            }],
            servers: vec![],
        }
    }

    fn addresses(lookup: Lookup) -> Vec<u8> {
        match lookup {
            Lookup::Addresses(mut all) => {
                all.sort();
                all.iter().map(|ip| ip.octets()[3]).collect()
            }
            Lookup::Unknown => vec![0],
        }
    }

    #[test]
    fn a_name_is_seen_in_its_own_networks_only() {
        let mut names = Names::default();
        names.add(sandbox("a", "n1", 2, &["web", "Alias"]));
        names.add(sandbox("b", "n1", 3, &["db", "alias"]));
        names.add(sandbox("c", "n2", 4, &["other"]));
        assert_eq!(addresses(names.lookup("a", "DB.")), [3]);
        assert_eq!(addresses(names.lookup("a", "alias")), [2, 3]);
        assert_eq!(addresses(names.lookup("a", "db.n1-name")), [3]);
        let mut linked = sandbox("d", "n1", 5, &["app"]);
        linked.networks[0].links =
            [("database".to_owned(), "db".to_owned()), ("gone".to_owned(), "x".to_owned())].into();
        names.add(linked);
        assert_eq!(addresses(names.lookup("d", "Database")), [3]);
        assert_eq!(names.lookup("d", "gone"), Lookup::Unknown);
        assert_eq!(names.lookup("a", "database"), Lookup::Unknown, "a link is its container's alone");
        assert_eq!(names.lookup("c", "db"), Lookup::Unknown);
        assert_eq!(names.reverse("a", Ipv4Addr::new(10, 0, 0, 3)), Some("db.n1-name".into()));
        names.remove("b");
        assert_eq!(addresses(names.lookup("a", "alias")), [2]);
        assert_eq!(names.lookup("a", "db"), Lookup::Unknown);
        assert_eq!(names.reverse("a", Ipv4Addr::new(10, 0, 0, 3)), None);
    }

    #[test]
    fn addresses_come_in_turn() {
        let mut names = Names::default();
        names.add(sandbox("a", "n1", 2, &["x"]));
        names.add(sandbox("b", "n1", 3, &["x"]));
        assert_ne!(names.lookup("a", "x"), names.lookup("a", "x"));
    }

    #[test]
    fn a_service_without_tasks_is_known() {
        let mut names = Names::default();
        names.add(sandbox("a", "n1", 2, &["x"]));
        let zone = Zone { names: [("tasks.web".to_owned(), vec![])].into(), reverse: BTreeMap::new() };
        names.set_cluster([("n1".to_owned(), zone)].into());
        assert_eq!(names.lookup("a", "tasks.web"), Lookup::Addresses(vec![]));
    }

    #[test]
    fn a_service_goes_before_the_alias_of_a_container_here() {
        let mut names = Names::default();
        names.add(sandbox("a", "n1", 2, &["c1", "web"]));
        let vip = Ipv4Addr::new(10, 0, 0, 100);
        let zone = Zone { names: [("web".to_owned(), vec![vip])].into(), reverse: BTreeMap::new() };
        names.set_cluster([("n1".to_owned(), zone)].into());
        assert_eq!(names.lookup("a", "web"), Lookup::Addresses(vec![vip]));
        assert_eq!(addresses(names.lookup("a", "c1")), [2]);
    }
}
