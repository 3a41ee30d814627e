//! nf_tables: tables, chains, sets, maps and rules, written as one atomic transaction without calling `nft`.
//!
//! A [`Transaction`] collects changes of one table and [`Transaction::commit`] makes all of them take effect together, or none.
//! A ruleset is plain data ([`Rule`] is a list of [`Expr`]), so that what would be written can be compared in tests.
//! Numbers are those of linux/netfilter/nf_tables.h.

mod encode;
pub mod expr;

pub use expr::{Data, Expr, Rule, SetRef, Verdict};

use crate::netlink::{CREATE, Error, Message, Socket, attributes, read_str, read_u32};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const DELETE_SET: u16 = SUBSYSTEM | 11;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// So many elements stay below the 64 KiB of one attribute.
const ELEMENTS_AT_ONCE: usize = 500;

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses, once for each connection.
    Nat,
    /// Change the mark of local packets and route them again.
    Route,
}

/// Where a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// Types of keys and data, as `nft` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// 32-bit number in host order.
    Integer,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Protocol number.
    Protocol,
    /// Port.
    Port,
    /// Packet mark in host order.
    Mark,
    /// Name of a link.
    LinkName,
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::LinkName => 41,
        }
    }

    /// Whether values are in host order, which `nft` must be told to print them right.
    fn host_order(self) -> bool {
        matches!(self, Self::Integer | Self::Mark | Self::LinkName)
    }

    fn len(self) -> u32 {
        match self {
            Self::Integer | Self::Ipv4 | Self::Mark => 4,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv6 | Self::LinkName => 16,
        }
    }
}

/// Number and length of a key or data type: concatenations shift by six bits and pad each part to four bytes.
fn type_of(parts: &[Type]) -> (u32, u32) {
    match parts {
        [one] => (one.number(), one.len()),
        many => many.iter().fold((0, 0), |(number, len), part| {
            ((number << 6) | part.number(), len + part.len().next_multiple_of(4))
        }),
    }
}

/// An element: its key, and for a map its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Key, parts padded to four bytes each.
    pub key: Vec<u8>,
    /// Value.
    pub value: Option<Data>,
}

/// A set or map that belongs to the table, or to one rule when it has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Types of the key.
    pub key: Vec<Type>,
    /// Types of the value; empty for a set. A map to verdicts says so in `verdicts`.
    pub value: Vec<Type>,
    /// Whether it maps to verdicts.
    pub verdicts: bool,
    /// Elements.
    pub elements: Vec<Element>,
}

/// Changes of one table that take effect together.
#[derive(Debug)]
pub struct Transaction {
    family: Family,
    table: String,
    messages: Vec<Message>,
    sets: u32,
}

impl Transaction {
    /// Starts an empty transaction on a table.
    pub fn new(family: Family, table: &str) -> Self {
        let mut begin = Message::new(BATCH_BEGIN, 0, "commit of nf_tables transaction");
        begin.put(&[0, 0, 0, 10]);
        Self { family, table: table.to_owned(), messages: vec![begin], sets: 0 }
    }

    /// Makes the table, or leaves it.
    pub fn table(&mut self) -> &mut Self {
        let mut m = self.message(NEW_TABLE, CREATE, format!("add table {}", self.table));
        m.attr_str(1, &self.table).attr_be32(2, 0);
        self.push(m)
    }

    /// Deletes the table and all in it; it must be there ([`Self::table`] before makes sure of it).
    pub fn delete_table(&mut self) -> &mut Self {
        let mut m = self.message(DELETE_TABLE, 0, format!("delete table {}", self.table));
        m.attr_str(1, &self.table);
        self.push(m)
    }

    /// Makes the table empty, whether it was there or not.
    pub fn fresh_table(&mut self) -> &mut Self {
        self.table().delete_table().table()
    }

    /// Makes a chain that others jump to, or leaves it.
    pub fn chain(&mut self, name: &str) -> &mut Self {
        let mut m = self.message(NEW_CHAIN, CREATE, format!("add chain {name}"));
        m.attr_str(1, &self.table).attr_str(3, name);
        self.push(m)
    }

    /// Makes a chain that the kernel calls, or leaves it. Its policy is accept.
    pub fn base_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) -> &mut Self {
        let mut m = self.message(NEW_CHAIN, CREATE, format!("add chain {name}"));
        m.attr_str(1, &self.table).attr_str(3, name);
        m.nest(4, |m| {
            m.attr_be32(1, hook as u32).attr_be32(2, priority.cast_unsigned());
        });
        m.attr_be32(5, 1);
        m.attr_str(
            7,
            match kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
                ChainKind::Route => "route",
            },
        );
        self.push(m)
    }

    /// Takes all rules out of a chain.
    pub fn flush_chain(&mut self, name: &str) -> &mut Self {
        let mut m = self.message(DELETE_RULE, 0, format!("flush chain {name}"));
        m.attr_str(1, &self.table).attr_str(2, name);
        self.push(m)
    }

    /// Makes a named set or map with its elements. An existing one of the same type keeps what it has and gets these too.
    pub fn set(&mut self, name: &str, set: &Set) -> &mut Self {
        self.write_set(name, set, 0);
        self
    }

    /// Deletes a named set or map; it must be there and no rule may use it.
    pub fn delete_set(&mut self, name: &str) -> &mut Self {
        let mut m = self.message(DELETE_SET, 0, format!("delete set {name}"));
        m.attr_str(1, &self.table).attr_str(2, name);
        self.push(m)
    }

    /// Takes all elements out of a set or map.
    pub fn flush_set(&mut self, name: &str) -> &mut Self {
        let mut m = self.message(DELETE_ELEMENTS, 0, format!("flush set {name}"));
        m.attr_str(1, &self.table).attr_str(2, name);
        self.push(m)
    }

    /// Adds elements to a named set or map.
    pub fn add_elements(&mut self, name: &str, elements: &[Element]) -> &mut Self {
        self.write_elements(NEW_ELEMENTS, name, elements, None);
        self
    }

    /// Takes elements out of a named set or map; each must be there.
    pub fn delete_elements(&mut self, name: &str, elements: &[Element]) -> &mut Self {
        self.write_elements(DELETE_ELEMENTS, name, elements, None);
        self
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, rule: &Rule) -> &mut Self {
        let mut ids = Vec::new();
        for expr in rule.exprs() {
            if let Expr::Lookup { set: SetRef::Anonymous(set), .. } = expr {
                ids.push(self.write_set("", set, 3));
            }
        }
        let mut m =
            self.message(NEW_RULE, CREATE | crate::netlink::APPEND, format!("add rule to chain {chain}"));
        m.attr_str(1, &self.table).attr_str(2, chain);
        let family = self.family;
        m.nest(4, |m| {
            let mut ids = ids.into_iter();
            for expr in rule.exprs() {
                m.nest(1, |m| expr.encode(m, family, &mut ids));
            }
        });
        self.push(m)
    }

    /// Writes the transaction.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Error> {
        let mut end = Message::new(BATCH_END, 0, "end of nf_tables transaction");
        end.put(&[0, 0, 0, 10]);
        self.messages.push(end);
        if self.messages.len() == 2 {
            return Ok(());
        }
        socket.transaction(self.messages)
    }

    /// Size of all messages.
    pub fn size(&self) -> usize {
        self.messages.iter().map(Message::size).sum()
    }

    fn write_set(&mut self, name: &str, set: &Set, flags: u32) -> u32 {
        self.sets += 1;
        let id = self.sets;
        let map = !set.value.is_empty() || set.verdicts;
        let name = match (name.is_empty(), map) {
            (false, _) => name,
            (true, true) => "__map%d",
            (true, false) => "__set%d",
        };
        let (key, key_len) = type_of(&set.key);
        let mut m = self.message(NEW_SET, CREATE, format!("add set {name}"));
        m.attr_str(1, &self.table).attr_str(2, name).attr_be32(3, flags | if map { 8 } else { 0 });
        m.attr_be32(4, key).attr_be32(5, key_len).attr_be32(10, id);
        if set.verdicts {
            m.attr_be32(6, 0xffff_ff00).attr_be32(7, 0);
        } else if map {
            let (value, value_len) = type_of(&set.value);
            m.attr_be32(6, value).attr_be32(7, value_len);
        }
        if flags & 1 != 0 {
            m.nest(9, |m| {
                m.attr_be32(1, u32::try_from(set.elements.len()).unwrap_or(u32::MAX));
            });
        }
        if let [one] = set.key.as_slice()
            && one.host_order()
        {
            // libnftnl's user data: type 0 (byte order of the key), four bytes, 1 (host order). The kernel only keeps it.
            let [a, b, c, d] = 1u32.to_ne_bytes();
            m.attr(13, &[0, 4, a, b, c, d]);
        }
        self.push(m);
        self.write_elements(NEW_ELEMENTS, name, &set.elements, Some(id));
        id
    }

    fn write_elements(&mut self, kind: u16, name: &str, elements: &[Element], id: Option<u32>) {
        for chunk in elements.chunks(ELEMENTS_AT_ONCE) {
            let flags = if kind == NEW_ELEMENTS { CREATE } else { 0 };
            let act = if kind == NEW_ELEMENTS { "add elements to" } else { "delete elements of" };
            let mut m = self.message(kind, flags, format!("{act} set {name}"));
            m.attr_str(1, &self.table).attr_str(2, name);
            if let Some(id) = id {
                m.attr_be32(4, id);
            }
            m.nest(3, |m| {
                for element in chunk {
                    m.nest(1, |m| {
                        m.nest(1, |m| {
                            m.attr(1, &element.key);
                        });
                        if let Some(value) = &element.value
                            && kind == NEW_ELEMENTS
                        {
                            m.nest(2, |m| value.encode(m));
                        }
                    });
                }
            });
            self.push(m);
        }
    }

    fn message(&self, kind: u16, flags: u16, act: String) -> Message {
        let mut m = Message::new(kind, flags, format!("nf_tables, table {}: {act}", self.table));
        m.put(&[self.family.number(), 0, 0, 0]);
        m
    }

    fn push(&mut self, message: Message) -> &mut Self {
        self.messages.push(message);
        self
    }
}

/// Whether a table exists.
pub fn table_exists(socket: &mut Socket, family: Family, table: &str) -> Result<bool, Error> {
    let mut m = Message::new(GET_TABLE, 0, format!("nf_tables: look up table {table}"));
    m.put(&[family.number(), 0, 0, 0]).attr_str(1, table);
    match socket.get(m, |_, _| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A base chain that exists, of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Table.
    pub table: String,
    /// Chain.
    pub name: String,
    /// Number of the address family (2: IPv4, 10: IPv6, 1: both).
    pub family: u8,
    /// Number of the hook, see [`Hook`].
    pub hook: u32,
    /// Whether it drops what no rule accepts.
    pub drops: bool,
}

/// All base chains of the namespace, those of other programs too.
pub fn base_chains(socket: &mut Socket) -> Result<Vec<BaseChain>, Error> {
    let mut m = Message::new(GET_CHAIN, 0, "nf_tables: list chains");
    m.put(&[0, 0, 0, 0]);
    let mut chains = Vec::new();
    socket.dump(m, |_, payload| {
        let Some((header, attrs)) = payload.split_at_checked(4) else { return };
        let find = |wanted| attributes(attrs).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let number = |value: &[u8]| u32::from_be(read_u32(value));
        let Some(hook) = find(4).and_then(|hook| attributes(hook).find(|(kind, _)| *kind == 1)) else {
            return;
        };
        chains.push(BaseChain {
            table: find(1).map(read_str).unwrap_or_default(),
            name: find(3).map(read_str).unwrap_or_default(),
            family: header[0],
            hook: number(hook.1),
            drops: find(5).map(number) == Some(0),
        });
    })?;
    Ok(chains)
}
