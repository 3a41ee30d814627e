//! The wire form of expressions and data.

use super::Family;
use super::expr::{Data, Expr, SetRef, Verdict};
use crate::netlink::Message;

impl Data {
    pub(super) fn encode(&self, m: &mut Message) {
        match self {
            Self::Bytes(bytes) => {
                m.attr(1, bytes);
            }
            Self::Verdict(verdict) => {
                m.nest(2, |m| verdict.encode(m));
            }
        }
    }
}

impl Verdict {
    fn encode(&self, m: &mut Message) {
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        m.attr_be32(1, code.cast_unsigned());
        if let Some(chain) = chain {
            m.attr_str(2, chain);
        }
    }
}

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.attr_str(1, name).nest(2, fill);
}

fn value(m: &mut Message, kind: u16, bytes: &[u8]) {
    m.nest(kind, |m| {
        m.attr(1, bytes);
    });
}

impl Expr {
    /// Writes name and data of the expression; `ids` gives the numbers of the rule's anonymous sets in order.
    pub(super) fn encode(&self, m: &mut Message, family: Family, ids: &mut impl Iterator<Item = u32>) {
        match self {
            Self::Meta { key, to } => expression(m, "meta", |m| {
                m.attr_be32(2, *key as u32).attr_be32(1, *to);
            }),
            Self::SetMark { from } => expression(m, "meta", |m| {
                m.attr_be32(2, 3).attr_be32(3, *from);
            }),
            Self::Payload { transport, offset, len, to } => expression(m, "payload", |m| {
                m.attr_be32(1, *to).attr_be32(2, if *transport { 2 } else { 1 });
                m.attr_be32(3, *offset).attr_be32(4, *len);
            }),
            Self::Ct { key, to } => expression(m, "ct", |m| {
                m.attr_be32(2, *key as u32).attr_be32(1, *to);
            }),
            Self::SetCtMark { from } => expression(m, "ct", |m| {
                m.attr_be32(2, 3).attr_be32(4, *from);
            }),
            Self::Compare { register, equal, value: bytes } => expression(m, "cmp", |m| {
                m.attr_be32(1, *register).attr_be32(2, u32::from(!*equal));
                value(m, 3, bytes);
            }),
            Self::Mask { register, mask } => expression(m, "bitwise", |m| {
                let len = u32::try_from(mask.len()).unwrap_or(0);
                m.attr_be32(1, *register).attr_be32(2, *register).attr_be32(3, len);
                value(m, 4, mask);
                value(m, 5, &vec![0; mask.len()]);
            }),
            Self::Immediate { to, value: bytes } => expression(m, "immediate", |m| {
                m.attr_be32(1, *to);
                value(m, 2, bytes);
            }),
            Self::Lookup { set, key, to, invert } => expression(m, "lookup", |m| {
                match set {
                    SetRef::Named(name) => {
                        m.attr_str(1, name);
                    }
                    SetRef::Anonymous(set) => {
                        let map = !set.value.is_empty() || set.verdicts;
                        m.attr_str(1, if map { "__map%d" } else { "__set%d" });
                        m.attr_be32(4, ids.next().unwrap_or(0));
                    }
                }
                m.attr_be32(2, *key);
                if let Some(to) = to {
                    m.attr_be32(3, *to);
                }
                if *invert {
                    m.attr_be32(5, 1);
                }
            }),
            other => other.encode_action(m, family),
        }
    }

    fn encode_action(&self, m: &mut Message, family: Family) {
        match self {
            Self::DestinationType { to } => expression(m, "fib", |m| {
                m.attr_be32(1, *to).attr_be32(2, 3).attr_be32(3, 2);
            }),
            Self::Random { modulus, to } => expression(m, "numgen", |m| {
                m.attr_be32(1, *to).attr_be32(2, *modulus).attr_be32(3, 1).attr_be32(4, 0);
            }),
            Self::Dnat { address, port } => expression(m, "nat", |m| nat(m, 1, family, *address, *port)),
            Self::Snat { address } => expression(m, "nat", |m| nat(m, 0, family, *address, None)),
            Self::Masquerade => expression(m, "masq", |_| {}),
            Self::Reject { code } => expression(m, "reject", |m| {
                m.attr_be32(1, 0).attr_u8(2, *code);
            }),
            Self::RejectTcp => expression(m, "reject", |m| {
                m.attr_be32(1, 1);
            }),
            Self::Counter => expression(m, "counter", |_| {}),
            Self::NoTrack => expression(m, "notrack", |_| {}),
            Self::Verdict(verdict) => expression(m, "immediate", |m| {
                m.attr_be32(1, 0).nest(2, |m| {
                    m.nest(2, |m| verdict.encode(m));
                });
            }),
            _ => {}
        }
    }
}

fn nat(m: &mut Message, kind: u32, family: Family, address: u32, port: Option<u32>) {
    // In an inet table the addresses of our rules are IPv4.
    let family = if family == Family::Inet { Family::Ip } else { family };
    m.attr_be32(1, kind).attr_be32(2, u32::from(family.number()));
    m.attr_be32(3, address).attr_be32(4, address);
    if let Some(port) = port {
        m.attr_be32(5, port).attr_be32(6, port);
    }
}
