//! Expressions of a rule: each loads, compares or acts on registers; a rule goes on as long as every comparison holds.

use super::{Element, Set, Type};
use std::net::Ipv4Addr;

/// First of the sixteen 32-bit registers (`NFT_REG32_00`). A link name or an IPv6 address fills four.
pub const R0: u32 = 8;

/// A fate of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it through this table.
    Accept,
    /// Throw it away.
    Drop,
    /// Go on in another chain and come back.
    Jump(String),
    /// Go on in another chain.
    Goto(String),
    /// Back to the chain that jumped here.
    Return,
}

/// Bytes, or a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Value of a register.
    Bytes(Vec<u8>),
    /// Fate.
    Verdict(Verdict),
}

/// The set that a lookup uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetRef {
    /// A set of the table.
    Named(String),
    /// A set that belongs to this rule.
    Anonymous(Set),
}

/// What [`Expr::Meta`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Packet mark.
    Mark = 3,
    /// Name of the link on which it came.
    InputName = 6,
    /// Name of the link on which it goes.
    OutputName = 7,
    /// Transport protocol.
    Protocol = 16,
}

/// What [`Expr::Ct`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// New, established, … as bits.
    State = 0,
    /// 0 original, 1 reply.
    Direction = 1,
    /// `IPS_*` bits.
    Status = 2,
    /// Mark of the connection.
    Mark = 3,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads a property of the packet's way.
    Meta {
        /// What.
        key: MetaKey,
        /// Register.
        to: u32,
    },
    /// Sets the packet's mark from a register.
    SetMark {
        /// Register.
        from: u32,
    },
    /// Loads bytes of the network header (`transport: false`) or the transport header.
    Payload {
        /// Which header.
        transport: bool,
        /// Offset.
        offset: u32,
        /// Length.
        len: u32,
        /// Register.
        to: u32,
    },
    /// Loads a property of the connection.
    Ct {
        /// What.
        key: CtKey,
        /// Register.
        to: u32,
    },
    /// Sets the connection's mark from a register.
    SetCtMark {
        /// Register.
        from: u32,
    },
    /// Goes on if the register equals (or differs from) the bytes.
    Compare {
        /// Register.
        register: u32,
        /// Whether it must be equal.
        equal: bool,
        /// Value.
        value: Vec<u8>,
    },
    /// Keeps the masked bits of a register.
    Mask {
        /// Register.
        register: u32,
        /// Bits.
        mask: Vec<u8>,
    },
    /// Loads a constant.
    Immediate {
        /// Register.
        to: u32,
        /// Value.
        value: Vec<u8>,
    },
    /// Goes on if the key is in the set (or not, if inverted); a map also loads the value.
    Lookup {
        /// Set.
        set: SetRef,
        /// Register of the key.
        key: u32,
        /// Register of the value; 0 with a verdict map means "obey the verdict".
        to: Option<u32>,
        /// Whether the key must be absent.
        invert: bool,
    },
    /// Loads the type of the destination address (2: local).
    DestinationType {
        /// Register.
        to: u32,
    },
    /// Loads a random number below a limit.
    Random {
        /// Limit.
        modulus: u32,
        /// Register.
        to: u32,
    },
    /// Translates the destination.
    Dnat {
        /// Register of the address.
        address: u32,
        /// Register of the port.
        port: Option<u32>,
    },
    /// Translates the source to the address of the outgoing link.
    Masquerade,
    /// Translates the source to the address in a register.
    Snat {
        /// Register of the address.
        address: u32,
    },
    /// Refuses with an ICMP message of this code.
    Reject {
        /// ICMP code: 1 host unreachable, 3 port unreachable.
        code: u8,
    },
    /// Refuses a TCP connection with a reset.
    RejectTcp,
    /// Counts packets and bytes.
    Counter,
    /// Leaves the packet out of connection tracking.
    NoTrack,
    /// Ends with a verdict.
    Verdict(Verdict),
}

/// Bits of `ct state`.
pub mod state {
    /// Neither known nor good.
    pub const INVALID: u32 = 1;
    /// Replies were seen.
    pub const ESTABLISHED: u32 = 2;
    /// Belongs to another connection.
    pub const RELATED: u32 = 4;
    /// First packet.
    pub const NEW: u32 = 8;
}

/// `ct status`: the destination was translated.
pub const STATUS_DNAT: u32 = 0x20;

/// A rule while it is being written, in the order of the conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule(Vec<Expr>);

impl Rule {
    /// A rule that applies to all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its expressions.
    pub fn exprs(&self) -> &[Expr] {
        &self.0
    }

    /// Appends an expression.
    #[must_use]
    pub fn with(mut self, expr: Expr) -> Self {
        self.0.push(expr);
        self
    }

    fn compare(self, equal: bool, value: Vec<u8>) -> Self {
        self.with(Expr::Compare { register: R0, equal, value })
    }

    /// Came on this link.
    #[must_use]
    pub fn input(self, link: &str) -> Self {
        self.with(Expr::Meta { key: MetaKey::InputName, to: R0 }).compare(true, link_name(link))
    }

    /// Did not come on this link.
    #[must_use]
    pub fn not_input(self, link: &str) -> Self {
        self.with(Expr::Meta { key: MetaKey::InputName, to: R0 }).compare(false, link_name(link))
    }

    /// Goes on this link.
    #[must_use]
    pub fn output(self, link: &str) -> Self {
        self.with(Expr::Meta { key: MetaKey::OutputName, to: R0 }).compare(true, link_name(link))
    }

    /// Does not go on this link.
    #[must_use]
    pub fn not_output(self, link: &str) -> Self {
        self.with(Expr::Meta { key: MetaKey::OutputName, to: R0 }).compare(false, link_name(link))
    }

    /// Came on a link of a named set.
    #[must_use]
    pub fn input_in(self, set: &str) -> Self {
        self.with(Expr::Meta { key: MetaKey::InputName, to: R0 }).lookup(set)
    }

    /// Goes on a link of a named set.
    #[must_use]
    pub fn output_in(self, set: &str) -> Self {
        self.with(Expr::Meta { key: MetaKey::OutputName, to: R0 }).lookup(set)
    }

    fn lookup(self, set: &str) -> Self {
        self.with(Expr::Lookup { set: SetRef::Named(set.to_owned()), key: R0, to: None, invert: false })
    }

    /// To this IPv4 address.
    #[must_use]
    pub fn daddr(self, ip: Ipv4Addr) -> Self {
        self.load_daddr(R0).compare(true, ip.octets().to_vec())
    }

    /// To this IPv4 network.
    #[must_use]
    pub fn daddr_in(self, ip: Ipv4Addr, prefix: u8) -> Self {
        self.load_daddr(R0).network(ip, prefix, true)
    }

    /// From this IPv4 network.
    #[must_use]
    pub fn saddr_in(self, ip: Ipv4Addr, prefix: u8) -> Self {
        self.load_saddr(R0).network(ip, prefix, true)
    }

    /// From this IPv4 address.
    #[must_use]
    pub fn saddr(self, ip: Ipv4Addr) -> Self {
        self.load_saddr(R0).compare(true, ip.octets().to_vec())
    }

    /// Not to this IPv4 network.
    #[must_use]
    pub fn daddr_not_in(self, ip: Ipv4Addr, prefix: u8) -> Self {
        self.load_daddr(R0).network(ip, prefix, false)
    }

    fn network(self, ip: Ipv4Addr, prefix: u8, equal: bool) -> Self {
        let bits = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = u32::from(ip) & bits;
        let rule = if prefix == 32 {
            self
        } else {
            self.with(Expr::Mask { register: R0, mask: bits.to_be_bytes().to_vec() })
        };
        rule.compare(equal, network.to_be_bytes().to_vec())
    }

    /// Loads the destination address.
    #[must_use]
    pub fn load_daddr(self, to: u32) -> Self {
        self.with(Expr::Payload { transport: false, offset: 16, len: 4, to })
    }

    /// Loads the source address.
    #[must_use]
    pub fn load_saddr(self, to: u32) -> Self {
        self.with(Expr::Payload { transport: false, offset: 12, len: 4, to })
    }

    /// Loads the destination port.
    #[must_use]
    pub fn load_dport(self, to: u32) -> Self {
        self.with(Expr::Payload { transport: true, offset: 2, len: 2, to })
    }

    /// Loads the protocol.
    #[must_use]
    pub fn load_protocol(self, to: u32) -> Self {
        self.with(Expr::Meta { key: MetaKey::Protocol, to })
    }

    /// Is of this transport protocol (6 TCP, 17 UDP).
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.load_protocol(R0).compare(true, vec![number])
    }

    /// Goes to this port.
    #[must_use]
    pub fn dport(self, port: u16) -> Self {
        self.load_dport(R0).compare(true, port.to_be_bytes().to_vec())
    }

    /// Goes to an address of this host.
    #[must_use]
    pub fn to_this_host(self) -> Self {
        self.with(Expr::DestinationType { to: R0 }).compare(true, 2u32.to_ne_bytes().to_vec())
    }

    /// Belongs to a connection in one of these states.
    #[must_use]
    pub fn ct_state(self, bits: u32) -> Self {
        self.with(Expr::Ct { key: CtKey::State, to: R0 }).any_bit(bits)
    }

    /// Belongs to a connection with one of these status bits.
    #[must_use]
    pub fn ct_status(self, bits: u32) -> Self {
        self.with(Expr::Ct { key: CtKey::Status, to: R0 }).any_bit(bits)
    }

    fn any_bit(self, bits: u32) -> Self {
        self.with(Expr::Mask { register: R0, mask: bits.to_ne_bytes().to_vec() }).compare(false, vec![0; 4])
    }

    /// Goes in the direction of the connection's first packet.
    #[must_use]
    pub fn original(self) -> Self {
        self.with(Expr::Ct { key: CtKey::Direction, to: R0 }).compare(true, vec![0])
    }

    /// Is a reply.
    #[must_use]
    pub fn reply(self) -> Self {
        self.with(Expr::Ct { key: CtKey::Direction, to: R0 }).compare(true, vec![1])
    }

    /// Ends with a translation of the destination to what a named map has for address, protocol and port (or only protocol and
    /// port); the map gives address and port.
    #[must_use]
    pub fn dnat_by(self, map: SetRef, with_address: bool) -> Self {
        let rule = if with_address {
            self.load_daddr(R0).load_protocol(R0 + 1).load_dport(R0 + 2)
        } else {
            self.load_protocol(R0).load_dport(R0 + 1)
        };
        rule.with(Expr::Lookup { set: map, key: R0, to: Some(R0), invert: false })
            .with(Expr::Dnat { address: R0, port: Some(R0 + 1) })
    }

    /// Ends with a translation of the destination to one of these addresses, at random for each connection.
    #[must_use]
    pub fn dnat_random(self, targets: &[Ipv4Addr]) -> Self {
        match targets {
            [one] => self.with(Expr::Immediate { to: R0, value: one.octets().to_vec() }),
            many => self.random(many.iter().map(|ip| ip.octets().to_vec()).collect(), vec![Type::Ipv4]),
        }
        .with(Expr::Dnat { address: R0, port: None })
    }

    /// Ends with a translation of the destination to one of these addresses and ports.
    #[must_use]
    pub fn dnat_random_port(self, targets: &[(Ipv4Addr, u16)]) -> Self {
        let values: Vec<Vec<u8>> = targets.iter().map(|(ip, port)| address_and_port(*ip, *port)).collect();
        let rule = match targets {
            [(ip, port)] => self.load_target(*ip, *port),
            _ => self.random(values, vec![Type::Ipv4, Type::Port]),
        };
        rule.with(Expr::Dnat { address: R0, port: Some(R0 + 1) })
    }

    /// Loads an address and a port, in two steps, as `nft` expects them when it lists the rule.
    fn load_target(self, ip: Ipv4Addr, port: u16) -> Self {
        self.with(Expr::Immediate { to: R0, value: ip.octets().to_vec() })
            .with(Expr::Immediate { to: R0 + 1, value: port.to_be_bytes().to_vec() })
    }

    /// Ends with a translation of the destination to one address and port.
    #[must_use]
    pub fn dnat_to(self, ip: Ipv4Addr, port: u16) -> Self {
        self.load_target(ip, port).with(Expr::Dnat { address: R0, port: Some(R0 + 1) })
    }

    fn random(self, values: Vec<Vec<u8>>, value: Vec<Type>) -> Self {
        let modulus = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let elements = (0u32..)
            .zip(values)
            .map(|(n, value)| Element { key: n.to_ne_bytes().to_vec(), value: Some(Data::Bytes(value)) })
            .collect();
        let set = Set { key: vec![Type::Integer], value, verdicts: false, elements };
        self.with(Expr::Random { modulus, to: R0 }).with(Expr::Lookup {
            set: SetRef::Anonymous(set),
            key: R0,
            to: Some(R0),
            invert: false,
        })
    }

    /// Ends by masquerading.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.with(Expr::Masquerade)
    }

    /// Ends with accept.
    #[must_use]
    pub fn accept(self) -> Self {
        self.with(Expr::Verdict(Verdict::Accept))
    }

    /// Ends with drop.
    #[must_use]
    pub fn drop(self) -> Self {
        self.with(Expr::Verdict(Verdict::Drop))
    }

    /// Goes through another chain.
    #[must_use]
    pub fn jump(self, chain: &str) -> Self {
        self.with(Expr::Verdict(Verdict::Jump(chain.to_owned())))
    }
}

/// A link's name as registers hold it.
pub fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Address and port as a map's value.
pub fn address_and_port(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let [a, b, c, d] = ip.octets();
    vec![a, b, c, d, high, low, 0, 0]
}

/// Protocol and port as a key.
pub fn protocol_and_port(protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol, 0, 0, 0, high, low, 0, 0]
}
