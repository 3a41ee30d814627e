//! Which links cluster networks need on this node, and the steps from what is there to that. Pure.

use super::{MESH_LINK, bridge_link, tunnel_link};
use gantry_linux::netlink::link::{Link, Mac};
use gantry_model::overlay::{MeshNode, OverlayState, Subnet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Bridges.
    pub bridges: Vec<BridgeLink>,
    /// VXLAN devices, that of the mesh included.
    pub tunnels: Vec<TunnelLink>,
    /// The mesh.
    pub mesh: Option<Mesh>,
}

/// A bridge of an overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeLink {
    /// Link.
    pub name: String,
    /// Network identifier.
    pub vni: u32,
    /// Subnet.
    pub subnet: Subnet,
    /// Address of the bridge.
    pub gateway: Ipv4Addr,
    /// Largest packet.
    pub mtu: u32,
}

/// A VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelLink {
    /// Link.
    pub name: String,
    /// Network identifier.
    pub vni: u32,
    /// Our tunnel address.
    pub local: Ipv4Addr,
    /// Bridge; `None` for the mesh.
    pub bridge: Option<String>,
    /// Own MAC address, where others must know it.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: u32,
    /// Who is behind it.
    pub peers: Vec<Peer>,
}

/// One address behind a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Address.
    pub ip: Ipv4Addr,
    /// Its MAC address.
    pub mac: Mac,
    /// Tunnel address of its node.
    pub node: Ipv4Addr,
}

/// The mesh as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// This node.
    pub own: MeshNode,
    /// The others.
    pub others: Vec<MeshNode>,
}

/// Derives what should be. `local` has the ids of networks with a container here.
pub fn desired(state: &OverlayState, local: &BTreeSet<String>, tunnel_mtu: u32) -> Desired {
    let mut desired = Desired::default();
    for network in state.networks.iter().filter(|network| local.contains(network.id.as_str())) {
        let mtu = network.mtu.unwrap_or(tunnel_mtu);
        let bridge = bridge_link(network.vni);
        let mut peers: Vec<Peer> = network
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.node_address != state.node_address)
            .map(|e| Peer { ip: e.address, mac: Mac::of_ip(e.address), node: e.node_address })
            .collect();
        peers.sort();
        peers.dedup_by_key(|peer| peer.ip);
        desired.bridges.push(BridgeLink {
            name: bridge.clone(),
            vni: network.vni,
            subnet: network.subnet.network(),
            gateway: network.gateway,
            mtu,
        });
        desired.tunnels.push(TunnelLink {
            name: tunnel_link(network.vni),
            vni: network.vni,
            local: state.node_address,
            bridge: Some(bridge),
            mac: None,
            mtu,
            peers,
        });
    }
    if let Some(ingress) = &state.ingress
        && let Some(own) = ingress.nodes.iter().find(|node| node.id == state.node_id)
    {
        let others: Vec<MeshNode> = ingress.nodes.iter().filter(|node| node.id != own.id).cloned().collect();
        let peer = |n: &MeshNode| Peer { ip: n.gateway(), mac: Mac::of_ip(n.gateway()), node: n.address };
        desired.tunnels.push(TunnelLink {
            name: MESH_LINK.to_owned(),
            vni: ingress.vni,
            local: state.node_address,
            bridge: None,
            mac: Some(Mac::of_ip(own.gateway())),
            mtu: tunnel_mtu,
            peers: others.iter().map(peer).collect(),
        });
        desired.mesh = Some(Mesh { own: own.clone(), others });
    }
    desired
}

/// Links of ours that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Bridges: name → largest packet.
    pub bridges: BTreeMap<String, u32>,
    /// VXLAN devices.
    pub tunnels: BTreeMap<String, ObservedTunnel>,
}

/// A VXLAN device that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedTunnel {
    /// Network identifier.
    pub vni: u32,
    /// Its own tunnel address.
    pub local: Option<Ipv4Addr>,
    /// Largest packet.
    pub mtu: u32,
    /// MAC address.
    pub mac: Mac,
    /// Whether it is up, and on a bridge if it belongs on one.
    pub whole: bool,
}

/// Picks the links of cluster networks by kind and name.
pub fn observed(links: &[Link]) -> Observed {
    let numbered = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut observed = Observed::default();
    for link in links {
        if link.kind == "bridge" && numbered(&link.name, "gov") {
            observed.bridges.insert(link.name.clone(), link.mtu);
        }
        if link.kind == "vxlan" && (numbered(&link.name, "gvx") || link.name == MESH_LINK) {
            let whole = link.up && (link.name == MESH_LINK || link.master != 0);
            let (vni, local) = (link.vni.unwrap_or(0), link.tunnel_local);
            observed.tunnels.insert(
                link.name.clone(),
                ObservedTunnel { vni, local, mtu: link.mtu, mac: link.mac, whole },
            );
        }
    }
    observed
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Delete links.
    Delete(Vec<String>),
    /// Make a bridge, or correct it.
    Bridge(BridgeLink),
    /// Make a VXLAN device.
    Tunnel(TunnelLink),
    /// Set the largest packet of a link.
    Mtu(String, u32),
}

/// The steps from what is there to what should be; removals first, all in one request.
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let fits = |tunnel: &TunnelLink, there: &ObservedTunnel| {
        there.vni == tunnel.vni
            && there.local == Some(tunnel.local)
            && there.whole
            && tunnel.mac.is_none_or(|mac| mac == there.mac)
    };
    let kept: BTreeSet<&str> = desired
        .tunnels
        .iter()
        .filter(|tunnel| observed.tunnels.get(&tunnel.name).is_some_and(|there| fits(tunnel, there)))
        .map(|tunnel| tunnel.name.as_str())
        .collect();
    let mut gone: Vec<String> =
        observed.tunnels.keys().filter(|name| !kept.contains(name.as_str())).cloned().collect();
    gone.extend(
        observed.bridges.keys().filter(|name| !desired.bridges.iter().any(|b| b.name == **name)).cloned(),
    );
    let mut steps = Vec::new();
    if !gone.is_empty() {
        steps.push(Step::Delete(gone));
    }
    // Bridges are corrected in any case: that also restores an address that somebody took away.
    steps.extend(desired.bridges.iter().cloned().map(Step::Bridge));
    for tunnel in &desired.tunnels {
        if !kept.contains(tunnel.name.as_str()) {
            steps.push(Step::Tunnel(tunnel.clone()));
        } else if observed.tunnels.get(&tunnel.name).is_some_and(|there| there.mtu != tunnel.mtu) {
            steps.push(Step::Mtu(tunnel.name.clone(), tunnel.mtu));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::id::{NetworkId, NodeId};
    use gantry_model::overlay::{IngressState, OverlayEndpoint, OverlayNetwork};

    fn node(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, n)
    }

    fn state() -> OverlayState {
        let endpoint = |last, at| OverlayEndpoint {
            address: Ipv4Addr::new(10, 0, 1, last),
            node_address: node(at),
            names: vec![],
        };
        let mesh_node = |n: u8| MeshNode {
            id: NodeId::parse(&format!("n{n}")).expect("id"),
            hostname: format!("node{n}"),
            index: u16::from(n),
            address: node(n),
        };
        OverlayState {
            node_id: NodeId::parse("n1").expect("id"),
            node_address: node(1),
            networks: vec![OverlayNetwork {
                id: NetworkId::parse("net1").expect("id"),
                name: "my".into(),
                vni: 4097,
                subnet: Subnet::parse("10.0.1.0/24").expect("subnet"),
                gateway: Ipv4Addr::new(10, 0, 1, 1),
                mtu: None,
                internal: false,
                endpoints: vec![endpoint(5, 1), endpoint(6, 2)],
                services: vec![],
            }],
            ingress: Some(IngressState { vni: 4096, nodes: vec![mesh_node(1), mesh_node(2)], ports: vec![] }),
        }
    }

    fn local() -> BTreeSet<String> {
        ["net1".to_owned()].into()
    }

    fn seen(desired: &Desired) -> Observed {
        let tunnel = |t: &TunnelLink| ObservedTunnel {
            vni: t.vni,
            local: Some(t.local),
            mtu: t.mtu,
            mac: t.mac.unwrap_or_default(),
            whole: true,
        };
        Observed {
            bridges: desired.bridges.iter().map(|b| (b.name.clone(), b.mtu)).collect(),
            tunnels: desired.tunnels.iter().map(|t| (t.name.clone(), tunnel(t))).collect(),
        }
    }

    #[test]
    fn only_containers_elsewhere_are_behind_the_tunnel() {
        let desired = desired(&state(), &local(), 1350);
        let tunnel = &desired.tunnels[0];
        assert_eq!((tunnel.name.as_str(), tunnel.mtu), ("gvx4097", 1350));
        assert_eq!(
            tunnel.peers.iter().map(|p| (p.ip.octets()[3], p.node)).collect::<Vec<_>>(),
            [(6, node(2))]
        );
        let mesh = &desired.tunnels[1];
        assert_eq!((mesh.name.as_str(), mesh.mac), ("gmesh", Some(Mac([2, 0x42, 198, 18, 1, 1]))));
        assert_eq!(mesh.peers[0].ip, Ipv4Addr::new(198, 18, 2, 2));
    }

    #[test]
    fn a_network_without_container_here_has_no_links() {
        let desired = desired(&state(), &BTreeSet::new(), 1350);
        assert!(desired.bridges.is_empty());
        assert_eq!(desired.tunnels.len(), 1, "only the mesh");
    }

    #[test]
    fn nothing_is_done_when_all_is_there_but_bridges_are_checked() {
        let desired = desired(&state(), &local(), 1350);
        let steps = plan(&desired, &seen(&desired));
        assert_eq!(steps, [Step::Bridge(desired.bridges[0].clone())]);
    }

    #[test]
    fn leftovers_and_misfits_are_deleted_first() {
        let desired = desired(&state(), &local(), 1350);
        let mut observed = seen(&desired);
        observed.bridges.insert("gov9".into(), 1500);
        if let Some(tunnel) = observed.tunnels.get_mut("gvx4097") {
            tunnel.local = Some(node(9));
        }
        if let Some(tunnel) = observed.tunnels.get_mut(MESH_LINK) {
            tunnel.mtu = 1450;
        }
        let steps = plan(&desired, &observed);
        assert_eq!(
            steps,
            [
                Step::Delete(vec!["gvx4097".into(), "gov9".into()]),
                Step::Bridge(desired.bridges[0].clone()),
                Step::Tunnel(desired.tunnels[0].clone()),
                Step::Mtu(MESH_LINK.into(), 1350),
            ]
        );
    }

    #[test]
    fn links_of_others_are_not_ours() {
        let link = |name: &str, kind: &str| Link { name: name.into(), kind: kind.into(), ..Link::default() };
        let links = [
            link("gov", "bridge"),
            link("gov12x", "bridge"),
            link("gvx5", "bridge"),
            link("docker0", "bridge"),
        ];
        assert_eq!(observed(&links), Observed::default());
    }
}
