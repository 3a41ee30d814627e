//! The routing mesh: every node answers on a published port, wherever the tasks are, and the task sees the client's address.
//!
//! Each node *t* has a network of mesh addresses; its address number *i* means "node *t*, entered at node *i*". Entry *i*
//! translates a connection to such an address and lets the source be. Node *t* recognises the entry by the address, gives the
//! connection a mark, and translates to a local task. Replies of the task come back to its node (its default gateway), get the
//! mark, and the mark selects a routing table whose default route is entry *i*, which undoes its own translation. One address
//! for each pair of nodes, not for each node: with one only, a client that uses the same port towards two entries would be
//! answered through the wrong one.

use super::plan::{Desired, Mesh};
use super::{MESH_LINK, host_address};
use crate::error::Result;
use crate::firewall::{MESH_MARK, MeshPortRules, MeshRules};
use crate::host::{self, Host};
use gantry_linux::conntrack::Entry;
use gantry_linux::netlink::route::{LOCAL, MAIN, Route, Rule};
use gantry_model::overlay::{IngressPort, MeshNode, OverlayState};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Routing table of entry node *i* is this plus *i*.
const TABLES: u32 = 0x6779_0000;
const UDP: u8 = 17;
/// Place of our rules: before the main table (32 766).
const PRIORITY: u32 = 26_000;

fn is_mark(mark: u32) -> bool {
    mark & 0xffff_0000 == MESH_MARK
}

/// The part of the node's table.
pub fn rules(state: &OverlayState) -> Option<MeshRules> {
    let ingress = state.ingress.as_ref()?;
    let own = ingress.nodes.iter().find(|node| node.id == state.node_id)?;
    let others = || ingress.nodes.iter().filter(|node| node.id != own.id);
    Some(MeshRules {
        link: MESH_LINK.to_owned(),
        others: others().map(|node| (node.address, node.prefix())).collect(),
        entries: others().map(|entry| (own.entered_at(entry), entry.index)).collect(),
        ports: ingress.ports.iter().map(|port| port_rules(port, own, &ingress.nodes)).collect(),
    })
}

fn port_rules(port: &IngressPort, own: &MeshNode, nodes: &[MeshNode]) -> MeshPortRules {
    let mut rules = MeshPortRules {
        protocol: port.protocol.number(),
        published: port.published,
        entry: Vec::new(),
        local: Vec::new(),
        leaving: Vec::new(),
    };
    for task in &port.tasks {
        if task.node == own.id {
            rules.local.push((task.address, port.target));
            rules.entry.push((task.address, port.target));
        } else if let Some(node) = nodes.iter().find(|node| node.id == task.node) {
            // One entry for each task, so that a node gets connections in proportion to its tasks.
            rules.entry.push((node.entered_at(own), port.published));
        }
    }
    for task in &port.leaving {
        if task.node == own.id {
            rules.leaving.push((task.address, port.target));
        } else if let Some(node) = nodes.iter().find(|node| node.id == task.node) {
            rules.leaving.push((node.entered_at(own), port.published));
        }
    }
    rules.local.sort();
    rules.local.dedup();
    rules.entry.sort();
    rules
}

/// Makes addresses, routes and rules of the mesh agree with what should be.
pub fn apply(host: &Host, desired: &Desired) -> Result<()> {
    host.route("mesh", |socket| {
        let link = socket.link(MESH_LINK)?.map(|link| link.index);
        let (mut wanted_routes, mut wanted_rules) = (BTreeSet::new(), BTreeSet::new());
        let mut batch = Vec::new();
        if let (Some(index), Some(mesh)) = (link, &desired.mesh) {
            let address = host_address(index, mesh.own.gateway());
            let old: Vec<_> =
                socket.addresses()?.into_iter().filter(|a| a.link == index && a.ip.is_ipv4()).collect();
            batch.extend(
                old.iter().filter(|a| **a != address).map(gantry_linux::netlink::address::Address::delete),
            );
            if !old.contains(&address) {
                batch.push(address.add());
            }
            wanted_routes = routes(mesh, index);
            let rule = |node: &MeshNode| {
                let mark = MESH_MARK | u32::from(node.index);
                Rule { priority: PRIORITY, mark, table: TABLES + u32::from(node.index) }
            };
            wanted_rules = mesh.others.iter().map(rule).collect();
        }
        let routes: BTreeSet<Route> =
            socket.routes()?.into_iter().filter(|route| is_ours(route, link)).collect();
        let rules: BTreeSet<Rule> =
            socket.mark_rules()?.into_iter().filter(|rule| is_mark(rule.mark)).collect();
        batch.extend(rules.difference(&wanted_rules).map(Rule::delete));
        batch.extend(routes.difference(&wanted_routes).map(Route::delete));
        batch.extend(wanted_routes.difference(&routes).map(Route::add));
        batch.extend(wanted_rules.difference(&rules).map(Rule::add));
        let refused = socket.batch(batch)?;
        // The kernel takes routes away by itself when their link or address goes.
        host::first(refused.into_iter().filter(|error| !error.is_missing() && !error.is_exists()).collect())
    })
}

/// Routes that we made: those of our tables, and those of the mesh's link that lead to mesh networks.
fn is_ours(route: &Route, link: Option<u32>) -> bool {
    let table = is_mark(route.table);
    // The kernel's own local route for the link's address has 32 bits.
    table || Some(route.link) == link && route.prefix == 24 && route.destination.is_ipv4()
}

fn routes(mesh: &Mesh, link: u32) -> BTreeSet<Route> {
    let own_prefix = mesh.own.prefix();
    let own = Route {
        local: true,
        table: LOCAL,
        ..Route::on_link(IpAddr::V4(own_prefix.address()), own_prefix.prefix(), link)
    };
    let mut routes = BTreeSet::from([own]);
    for node in &mesh.others {
        let gateway = Some(IpAddr::V4(node.gateway()));
        let prefix = node.prefix();
        let to = Route::on_link(IpAddr::V4(prefix.address()), prefix.prefix(), link);
        // Its address is not on a network of the link, so the route says that the neighbour is there.
        let via = Route { gateway, onlink: true, ..to };
        routes.insert(Route { table: MAIN, ..via });
        let back = Route {
            table: TABLES + u32::from(node.index),
            destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix: 0,
            ..via
        };
        routes.insert(back);
    }
    routes
}

/// Whether a task went, in comparison with before. Unknown before counts as yes.
fn loses(old: Option<&MeshRules>, new: &MeshRules) -> bool {
    let Some(old) = old else { return !new.ports.is_empty() };
    old.ports.iter().any(|was| {
        let now = new.ports.iter().find(|now| now.published == was.published && now.protocol == was.protocol);
        now.is_none_or(|now| {
            was.entry.iter().any(|target| !now.entry.contains(target))
                || was.local.iter().any(|target| !now.local.contains(target))
                || was.leaving.iter().any(|target| !now.leaving.contains(target))
        })
    })
}

/// Deletes connections of the mesh that lead to tasks which are no more: UDP would stay with them, TCP would hang. TCP to a task
/// that was told to stop goes on until the task has ended.
pub fn forget_stale(host: &Host, old: Option<&OverlayState>, state: &OverlayState) {
    let Some(rules) = rules(state) else { return };
    let old = old.and_then(self::rules);
    if !loses(old.as_ref(), &rules) {
        return;
    }
    let entries: BTreeSet<Ipv4Addr> = rules.entries.iter().map(|(address, _)| *address).collect();
    let is_stale = |entry: &Entry| {
        let (to, protocol) = (entry.original.destination_port, entry.original.protocol);
        let find = |rules: &'_ MeshRules| {
            rules.ports.iter().find(|port| port.published == to && port.protocol == protocol).cloned()
        };
        let answers = (entry.reply.source, entry.reply.source_port);
        if answers.0 == entry.original.destination {
            return false;
        }
        match find(&rules) {
            Some(port) if protocol != UDP && port.leaving.contains(&answers) => false,
            Some(port) if entries.contains(&entry.original.destination) => !port.local.contains(&answers),
            Some(port) => !port.entry.contains(&answers),
            // A port that is published no more: what led to its tasks.
            None => old
                .as_ref()
                .and_then(find)
                .is_some_and(|port| port.entry.contains(&answers) || port.local.contains(&answers)),
        }
    };
    let result = host.netfilter_socket().and_then(|mut socket| {
        socket.delete_connections(is_stale).map_err(crate::error::kernel("connections of the mesh"))
    });
    if let Err(error) = result {
        tracing::debug!(cause = crate::chain(&error), "connections to tasks that are gone were not deleted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(entry: &[u8]) -> MeshRules {
        let targets: Vec<_> = entry.iter().map(|last| (Ipv4Addr::new(198, 18, 2, *last), 80)).collect();
        let port =
            MeshPortRules { protocol: 6, published: 80, entry: targets, local: vec![], leaving: vec![] };
        MeshRules { link: MESH_LINK.into(), entries: vec![], others: vec![], ports: vec![port] }
    }

    #[test]
    fn connections_are_looked_through_only_when_a_task_went() {
        assert!(loses(None, &rules_of(&[1])));
        assert!(!loses(Some(&rules_of(&[1])), &rules_of(&[1, 2])));
        assert!(loses(Some(&rules_of(&[1, 2])), &rules_of(&[2])));
        let mut ending = rules_of(&[2]);
        ending.ports[0].leaving = rules_of(&[1]).ports[0].entry.clone();
        assert!(loses(Some(&ending), &rules_of(&[2])), "what was told to stop has ended");
        let nothing = MeshRules { ports: vec![], ..rules_of(&[]) };
        assert!(loses(Some(&rules_of(&[1])), &nothing));
    }
}
