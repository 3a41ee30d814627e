//! What a node is told about the cluster's networks: members, services and the routing mesh.
//!
//! The planner fills these types for each node; the node's network layer makes the kernel agree with them.

use crate::id::{NetworkId, NodeId, ServiceId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// A text is no IPv4 network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidSubnet(String);

/// An IPv4 network: address and length of the prefix. Bits behind the prefix are kept as given, so it also says "this address
/// in that network".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Puts a network together; a prefix above 32 counts as 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address, prefix: prefix.min(32) }
    }

    /// Parses `10.0.0.0/24`.
    pub fn parse(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        if prefix > 32 {
            return Err(invalid());
        }
        Ok(Self { address: address.parse().map_err(|_| invalid())?, prefix })
    }

    /// The address as given.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The same network with the bits behind the prefix cleared.
    pub fn network(self) -> Self {
        Self { address: Ipv4Addr::from(u32::from(self.address) & self.mask()), prefix: self.prefix }
    }

    /// How many addresses it has, network and broadcast included.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The `n`-th address; `None` behind the end.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        (u64::from(n) < self.size()).then(|| Ipv4Addr::from(u32::from(self.network().address) + n))
    }

    /// The last address (broadcast).
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask())
    }

    /// Whether an address belongs to it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address) & self.mask()
    }

    /// Whether it has an address in common with another.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) && self.prefix <= other.prefix
            || other.contains(self.address) && other.prefix <= self.prefix
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = InvalidSubnet;
    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        Self::parse(&text)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

/// Everything that one node needs to know about cluster networks: the networks of its own containers, with all their
/// members on all nodes, and the routing mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayState {
    /// This node.
    pub node_id: NodeId,
    /// This node's own tunnel address.
    pub node_address: Ipv4Addr,
    /// Networks.
    #[serde(default)]
    pub networks: Vec<OverlayNetwork>,
    /// The routing mesh; `None` while the cluster has none.
    #[serde(default)]
    pub ingress: Option<IngressState>,
}

/// One overlay network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayNetwork {
    /// Id.
    pub id: NetworkId,
    /// Name.
    pub name: String,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Addresses.
    pub subnet: Subnet,
    /// The default gateway of its containers. Every node's bridge of this network holds this one address; it answers only
    /// on its own node, because no tunnel entry leads to it.
    pub gateway: Ipv4Addr,
    /// Largest packet, where it is set by hand; otherwise the underlay's less 50.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// No way out.
    #[serde(default)]
    pub internal: bool,
    /// All members, on all nodes.
    #[serde(default)]
    pub endpoints: Vec<OverlayEndpoint>,
    /// Services.
    #[serde(default)]
    pub services: Vec<ServiceVip>,
}

/// One container (or task) in an overlay network. Its MAC address is `02:42:` and the four bytes of its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayEndpoint {
    /// Address in the network.
    pub address: Ipv4Addr,
    /// Tunnel address of its node.
    pub node_address: Ipv4Addr,
    /// Names that DNS answers with this address (container name, short id, aliases).
    #[serde(default)]
    pub names: Vec<String>,
}

/// A service as seen in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceVip {
    /// Service.
    pub service_id: ServiceId,
    /// Name; `tasks.NAME` gives the backends' addresses.
    pub name: String,
    /// More names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Virtual address; `None` for `endpoint_mode: dnsrr`, where the name gives the backends.
    pub vip: Option<Ipv4Addr>,
    /// Addresses of the tasks that take requests now.
    #[serde(default)]
    pub backends: Vec<Ipv4Addr>,
    /// Addresses of the tasks that were told to stop and still run: they take no new requests, and finish those that they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Ipv4Addr>,
}

/// The routing mesh: which ports every node answers on, and where their tasks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressState {
    /// VXLAN network identifier of the mesh (its own, not that of a network with containers).
    pub vni: u32,
    /// All nodes of the cluster, this one included.
    pub nodes: Vec<MeshNode>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<IngressPort>,
}

/// One node of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshNode {
    /// Node.
    pub id: NodeId,
    /// Host name, for messages.
    #[serde(default)]
    pub hostname: String,
    /// Number of the node, 1 to 254, unique in the cluster and kept while the node belongs to it.
    pub index: u16,
    /// Tunnel address.
    pub address: Ipv4Addr,
}

/// The network from which mesh addresses are made: RFC 2544's benchmark range, which no real host has.
pub const MESH_POOL: Subnet = Subnet { address: Ipv4Addr::new(198, 18, 0, 0), prefix: 16 };

impl MeshNode {
    /// The node's mesh addresses. Address *i* of this network means "this node, entered at node *i*".
    pub fn prefix(&self) -> Subnet {
        Subnet {
            address: MESH_POOL.nth(u32::from(self.index.min(255)) << 8).unwrap_or(MESH_POOL.address),
            prefix: 24,
        }
    }

    /// The mesh address by which entry node `entry` reaches this node.
    pub fn entered_at(&self, entry: &Self) -> Ipv4Addr {
        self.prefix().nth(u32::from(entry.index.min(255))).unwrap_or(MESH_POOL.address)
    }

    /// The node's own address in the mesh: the next hop of routes to it, and what probes talk to.
    pub fn gateway(&self) -> Ipv4Addr {
        self.entered_at(self)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Parses `tcp`, `udp`, `sctp` (empty: TCP).
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One published port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressPort {
    /// Port on every node.
    pub published: u16,
    /// Protocol.
    pub protocol: Transport,
    /// Port of the container.
    pub target: u16,
    /// Tasks that take requests now.
    #[serde(default)]
    pub tasks: Vec<IngressTask>,
    /// Tasks that were told to stop and still run, as in [`ServiceVip::leaving`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<IngressTask>,
}

/// One task behind a published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IngressTask {
    /// Its node.
    pub node: NodeId,
    /// An address of its container which that node reaches through one of its own bridges: in any overlay network (also
    /// `ingress`) or bridge network that gives the container its default gateway.
    pub address: Ipv4Addr,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Subnet {
        Subnet::parse(text).expect(text)
    }

    #[test]
    fn subnets_are_parsed_and_compared() {
        assert_eq!(net("10.0.1.7/24").network(), net("10.0.1.0/24"));
        assert_eq!(net("10.0.1.0/24").nth(5), Some(Ipv4Addr::new(10, 0, 1, 5)));
        assert_eq!(net("10.0.1.0/24").nth(256), None);
        assert_eq!(net("10.0.1.0/24").last(), Ipv4Addr::new(10, 0, 1, 255));
        assert!(net("10.0.0.0/8").overlaps(net("10.3.0.0/16")));
        assert!(net("10.3.0.0/16").overlaps(net("10.0.0.0/8")));
        assert!(!net("10.3.0.0/16").overlaps(net("10.4.0.0/16")));
        assert!(net("0.0.0.0/0").contains(Ipv4Addr::new(1, 2, 3, 4)));
        assert_eq!(net("0.0.0.0/0").size(), 1 << 32);
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "x/8", "10.0.0.0/"] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_pair_of_nodes_has_its_own_mesh_address() {
        let node = |index| MeshNode {
            id: NodeId::default(),
            hostname: String::new(),
            index,
            address: Ipv4Addr::new(192, 0, 2, 1),
        };
        assert_eq!(node(2).prefix(), net("198.18.2.0/24"));
        assert_eq!(node(2).entered_at(&node(3)), Ipv4Addr::new(198, 18, 2, 3));
        assert_eq!(node(2).gateway(), Ipv4Addr::new(198, 18, 2, 2));
        assert_eq!(node(254).entered_at(&node(1)), Ipv4Addr::new(198, 18, 254, 1));
    }
}
