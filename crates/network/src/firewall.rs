//! The node's nftables table as a function of its networks, published ports and mesh. Pure: it gives a transaction.
//!
//! The table is ours alone and nothing of the host's is touched. Users put own rules into the chain `gantry-user`, which
//! forwarded packets pass first and which is never flushed; a published port is seen there with the container's address, and
//! the host's own forward chains see it too, since a verdict of ours never overrules another table's drop.
//!
//! | chain | hook | what it does |
//! |---|---|---|
//! | `raw` | prerouting, raw | keeps links of ours from reaching 127.0.0.0/8 (they have `route_localnet`) |
//! | `mesh-mark` | prerouting, mangle | keeps strangers from mesh addresses; remembers the entry node of a connection; marks its replies |
//! | `prerouting`, `output` | dstnat | published ports |
//! | `input` | filter | refuses ports of the mesh that have no task |
//! | `mesh-unmark` | forward, mangle | takes the mark off before VXLAN routes the outer packet by it |
//! | `forward` | filter | isolation |
//! | `postrouting` | srcnat | masquerade |
//!
//! 127.0.0.1:PORT works by `route_localnet` on our links and not by a proxy process: it costs no copy, and goes on while the
//! daemon is dead.

use gantry_linux::nft::expr::{
    MetaKey, R0, STATUS_DNAT, address_and_port, link_name, protocol_and_port, state,
};
use gantry_linux::nft::{ChainKind, Data, Element, Expr, Family, Hook, Rule, Set, SetRef, Transaction, Type};
use gantry_model::overlay::{MESH_POOL, Subnet};
use std::net::Ipv4Addr;

/// The chain for the user's own rules.
pub const USER_CHAIN: &str = "gantry-user";
const PORTS: &str = "ports";
const PORTS_AT: &str = "ports-at";
const LINKS: &str = "links";
/// Upper half of the marks of mesh connections; the lower half is the index of the entry node.
pub const MESH_MARK: u32 = 0x6779_0000;
const TCP: u8 = 6;
/// ICMP code of "port unreachable".
const PORT_UNREACHABLE: u8 = 3;
const MESH_MARK_MASK: u32 = 0xffff_0000;

/// What the table depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRules {
    /// Bridges.
    pub bridges: Vec<BridgeRules>,
    /// Published ports.
    pub ports: Vec<PortRule>,
    /// Mesh.
    pub mesh: Option<MeshRules>,
}

/// One bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeRules {
    /// Link.
    pub link: String,
    /// Subnet.
    pub subnet: Subnet,
    /// Whether containers may talk to each other.
    pub icc: bool,
    /// Whether traffic to the outside gets the node's address.
    pub masquerade: bool,
    /// No way out.
    pub internal: bool,
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRule {
    /// Host address; unspecified: all.
    pub host_ip: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Host port.
    pub host_port: u16,
    /// Container.
    pub target: (Ipv4Addr, u16),
}

/// The routing mesh on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshRules {
    /// Tunnel link.
    pub link: String,
    /// Mesh address of this node for each entry node → the entry's index.
    pub entries: Vec<(Ipv4Addr, u16)>,
    /// Address of each other node, and its mesh network.
    pub others: Vec<(Ipv4Addr, Subnet)>,
    /// Ports.
    pub ports: Vec<MeshPortRules>,
}

/// One port of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPortRules {
    /// Protocol number.
    pub protocol: u8,
    /// Published port.
    pub published: u16,
    /// Where connections that enter here go: one for each task, mesh address or local container, with its port.
    pub entry: Vec<(Ipv4Addr, u16)>,
    /// Where connections that entered elsewhere go: local containers.
    pub local: Vec<(Ipv4Addr, u16)>,
    /// Where connections lead that may go on, though no new ones follow: to tasks that were told to stop and still run.
    pub leaving: Vec<(Ipv4Addr, u16)>,
}

fn link_set(bridges: &[BridgeRules]) -> Set {
    let elements = bridges.iter().map(|b| Element { key: link_name(&b.link), value: None }).collect();
    Set { key: vec![Type::LinkName], value: vec![], verdicts: false, elements }
}

fn port_map(with_address: bool, ports: &[PortRule]) -> Set {
    let mut key = vec![Type::Protocol, Type::Port];
    if with_address {
        key.insert(0, Type::Ipv4);
    }
    let elements =
        ports.iter().filter(|p| p.host_ip.is_unspecified() != with_address).map(|p| element(*p)).collect();
    Set { key, value: vec![Type::Ipv4, Type::Port], verdicts: false, elements }
}

fn element(port: PortRule) -> Element {
    let mut key = protocol_and_port(port.protocol, port.host_port);
    if !port.host_ip.is_unspecified() {
        key.splice(0..0, port.host_ip.octets());
    }
    Element { key, value: Some(Data::Bytes(address_and_port(port.target.0, port.target.1))) }
}

fn map_of(port: PortRule) -> &'static str {
    if port.host_ip.is_unspecified() { PORTS } else { PORTS_AT }
}

/// Adds ports to the table.
pub fn add_ports(table: &str, ports: &[PortRule]) -> Transaction {
    let mut t = Transaction::new(Family::Ip, table);
    for port in ports {
        t.add_elements(map_of(*port), &[element(*port)]);
    }
    t
}

/// Takes ports out of the table.
pub fn delete_ports(table: &str, ports: &[PortRule]) -> Transaction {
    let mut t = Transaction::new(Family::Ip, table);
    for port in ports {
        t.delete_elements(map_of(*port), &[element(*port)]);
    }
    t
}

/// Whether what is there may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Keep the table and the user's chain; replace all else.
    Keep,
    /// Throw the whole table away first (it has another form, from another version).
    Fresh,
}

/// The whole table.
pub fn table(name: &str, rules: &NodeRules, start: Start) -> Transaction {
    let mut t = Transaction::new(Family::Ip, name);
    match start {
        Start::Keep => t.table(),
        Start::Fresh => t.fresh_table(),
    };
    chains(&mut t);
    let empty = |set: Set| Set { elements: vec![], ..set };
    for (name, set) in [
        (LINKS, link_set(&rules.bridges)),
        (PORTS, port_map(false, &rules.ports)),
        (PORTS_AT, port_map(true, &rules.ports)),
    ] {
        t.set(name, &empty(set.clone())).flush_set(name).add_elements(name, &set.elements);
    }
    raw(&mut t, rules);
    nat(&mut t, rules);
    forward(&mut t, rules);
    postrouting(&mut t, rules);
    t
}

fn chains(t: &mut Transaction) {
    t.chain(USER_CHAIN);
    t.base_chain("raw", ChainKind::Filter, Hook::Prerouting, -300);
    t.base_chain("mesh-mark", ChainKind::Filter, Hook::Prerouting, -150);
    t.base_chain("prerouting", ChainKind::Nat, Hook::Prerouting, -100);
    t.base_chain("output", ChainKind::Nat, Hook::Output, -100);
    t.base_chain("input", ChainKind::Filter, Hook::Input, 0);
    t.base_chain("mesh-unmark", ChainKind::Filter, Hook::Forward, -150);
    t.base_chain("forward", ChainKind::Filter, Hook::Forward, 0);
    t.base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, 100);
    t.chain("published").chain("mesh-in");
    for chain in [
        "raw",
        "mesh-mark",
        "prerouting",
        "output",
        "input",
        "mesh-unmark",
        "forward",
        "postrouting",
        "published",
        "mesh-in",
    ] {
        t.flush_chain(chain);
    }
}

fn raw(t: &mut Transaction, rules: &NodeRules) {
    let loopback = Ipv4Addr::new(127, 0, 0, 0);
    t.rule("raw", &Rule::new().input_in(LINKS).daddr_in(loopback, 8).drop());
    let Some(mesh) = &rules.mesh else { return };
    t.rule("raw", &Rule::new().input(&mesh.link).daddr_in(loopback, 8).drop());
    // Only nodes may speak to mesh addresses; replies to them go through us.
    let stranger =
        Rule::new().not_input(&mesh.link).not_input("lo").daddr_in(MESH_POOL.address(), MESH_POOL.prefix());
    t.rule("mesh-mark", &stranger.original().drop());

    let marks = Set {
        key: vec![Type::Ipv4],
        value: vec![Type::Mark],
        verdicts: false,
        elements: mesh
            .entries
            .iter()
            .map(|(address, index)| Element {
                key: address.octets().to_vec(),
                value: Some(Data::Bytes((MESH_MARK | u32::from(*index)).to_ne_bytes().to_vec())),
            })
            .collect(),
    };
    if !marks.elements.is_empty() {
        let lookup = Expr::Lookup { set: SetRef::Anonymous(marks), key: R0, to: Some(R0), invert: false };
        let rule = Rule::new().input(&mesh.link).ct_state(state::NEW).load_daddr(R0).with(lookup);
        t.rule("mesh-mark", &rule.with(Expr::SetCtMark { from: R0 }));
    }
    let mark = Expr::Ct { key: gantry_linux::nft::expr::CtKey::Mark, to: R0 };
    let rule = Rule::new().input_in(LINKS).reply();
    t.rule("mesh-mark", &is_mesh_mark(rule.with(mark.clone())).with(mark).with(Expr::SetMark { from: R0 }));
    let rule = Rule::new().output(&mesh.link).with(Expr::Meta { key: MetaKey::Mark, to: R0 });
    let zero = Expr::Immediate { to: R0, value: vec![0; 4] };
    t.rule("mesh-unmark", &is_mesh_mark(rule).with(zero).with(Expr::SetMark { from: R0 }));
}

fn is_mesh_mark(rule: Rule) -> Rule {
    rule.with(Expr::Mask { register: R0, mask: MESH_MARK_MASK.to_ne_bytes().to_vec() }).with(Expr::Compare {
        register: R0,
        equal: true,
        value: MESH_MARK.to_ne_bytes().to_vec(),
    })
}

fn nat(t: &mut Transaction, rules: &NodeRules) {
    if let Some(mesh) = &rules.mesh {
        for port in &mesh.ports {
            // What was translated never comes here. The socket that holds the port would accept the rest, and say nothing.
            let rule = Rule::new().protocol(port.protocol).dport(port.published).ct_state(state::NEW);
            let refuse =
                if port.protocol == TCP { Expr::RejectTcp } else { Expr::Reject { code: PORT_UNREACHABLE } };
            t.rule("input", &rule.with(refuse));
        }
        t.rule("prerouting", &Rule::new().input(&mesh.link).with(goto("mesh-in")));
        for port in mesh.ports.iter().filter(|port| !port.local.is_empty()) {
            let rule = Rule::new().protocol(port.protocol).dport(port.published);
            t.rule("mesh-in", &rule.dnat_random_port(&port.local));
        }
    }
    for chain in ["prerouting", "output"] {
        t.rule(chain, &Rule::new().to_this_host().jump("published"));
    }
    t.rule("published", &Rule::new().dnat_by(SetRef::Named(PORTS_AT.into()), true));
    t.rule("published", &Rule::new().dnat_by(SetRef::Named(PORTS.into()), false));
    for port in rules.mesh.iter().flat_map(|mesh| &mesh.ports).filter(|port| !port.entry.is_empty()) {
        let rule = Rule::new().protocol(port.protocol).dport(port.published);
        t.rule("published", &rule.dnat_random_port(&port.entry));
    }
}

fn goto(chain: &str) -> Expr {
    Expr::Verdict(gantry_linux::nft::Verdict::Goto(chain.to_owned()))
}

fn forward(t: &mut Transaction, rules: &NodeRules) {
    t.rule("forward", &Rule::new().jump(USER_CHAIN));
    t.rule("forward", &Rule::new().ct_state(state::ESTABLISHED | state::RELATED).accept());
    if let Some(mesh) = &rules.mesh {
        t.rule("forward", &Rule::new().input(&mesh.link).ct_status(STATUS_DNAT).accept());
        t.rule("forward", &Rule::new().output(&mesh.link).ct_status(STATUS_DNAT).accept());
    }
    for bridge in &rules.bridges {
        let link = bridge.link.as_str();
        let inside = Rule::new().input(link).output(link);
        if bridge.icc {
            t.rule("forward", &inside.accept());
        } else {
            t.rule("forward", &inside.clone().ct_status(STATUS_DNAT).accept())
                .rule("forward", &inside.drop());
        }
        if bridge.internal {
            t.rule("forward", &Rule::new().input(link).drop())
                .rule("forward", &Rule::new().output(link).drop());
        }
    }
    t.rule("forward", &Rule::new().output_in(LINKS).ct_status(STATUS_DNAT).accept());
    t.rule("forward", &Rule::new().output_in(LINKS).drop());
}

fn postrouting(t: &mut Transaction, rules: &NodeRules) {
    let loopback = Ipv4Addr::new(127, 0, 0, 0);
    t.rule("postrouting", &Rule::new().saddr_in(loopback, 8).output_in(LINKS).masquerade());
    if let Some(mesh) = &rules.mesh {
        t.rule("postrouting", &Rule::new().saddr_in(loopback, 8).output(&mesh.link).masquerade());
        // A node that asks here for a task of its own would get its own address as the source: a martian, and the reply would not
        // leave it. It sees this node's mesh address instead.
        for (address, network) in &mesh.others {
            let back = Rule::new().saddr(*address).daddr_in(network.address(), network.prefix());
            t.rule("postrouting", &back.output(&mesh.link).masquerade());
        }
    }
    for bridge in &rules.bridges {
        let (link, ip, prefix) = (bridge.link.as_str(), bridge.subnet.address(), bridge.subnet.prefix());
        // A container that calls a published port of a neighbour (or its own) would be answered past the translation.
        let hairpin = Rule::new().saddr_in(ip, prefix).output(link).ct_status(STATUS_DNAT);
        t.rule("postrouting", &hairpin.masquerade());
        if bridge.masquerade && !bridge.internal {
            t.rule("postrouting", &Rule::new().saddr_in(ip, prefix).not_output(link).masquerade());
        }
    }
}
