//! Connection tracking: entries of the namespace of a netfilter socket, listed and deleted.

use crate::netlink::{Error, Message, Socket, attributes, read_u32};
use std::net::Ipv4Addr;

const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const MARK: u16 = 8;
const ID: u16 = 12;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// Transport protocol.
    pub protocol: u8,
    /// Source port, where the protocol has ports.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// One IPv4 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the client sent it.
    pub original: Tuple,
    /// As the server answers.
    pub reply: Tuple,
    /// Mark.
    pub mark: u32,
    tuple: Vec<u8>,
    id: Vec<u8>,
}

fn parse_tuple(value: &[u8]) -> Option<Tuple> {
    let mut tuple = Tuple {
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
        protocol: 0,
        source_port: 0,
        destination_port: 0,
    };
    let port = |v: &[u8]| v.get(..2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    for (kind, value) in attributes(value) {
        for (inner, v) in attributes(value) {
            match (kind, inner) {
                (1, 1) => tuple.source = Ipv4Addr::from(<[u8; 4]>::try_from(v).ok()?),
                (1, 2) => tuple.destination = Ipv4Addr::from(<[u8; 4]>::try_from(v).ok()?),
                (2, 1) => tuple.protocol = *v.first()?,
                (2, 2) => tuple.source_port = port(v),
                (2, 3) => tuple.destination_port = port(v),
                _ => {}
            }
        }
    }
    Some(tuple)
}

fn parse(payload: &[u8]) -> Option<Entry> {
    let attrs = payload.get(4..)?;
    let find = |wanted| attributes(attrs).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let tuple = find(TUPLE_ORIGINAL)?;
    Some(Entry {
        original: parse_tuple(tuple)?,
        reply: parse_tuple(find(TUPLE_REPLY)?)?,
        mark: find(MARK).map_or(0, |v| u32::from_be(read_u32(v))),
        tuple: tuple.to_vec(),
        id: find(ID).unwrap_or_default().to_vec(),
    })
}

impl Socket {
    /// All IPv4 connections.
    pub fn connections(&mut self) -> Result<Vec<Entry>, Error> {
        let mut message = Message::new(GET, 0, "list connections");
        message.put(&[2, 0, 0, 0]);
        let mut all = Vec::new();
        self.dump(message, |_, payload| all.extend(parse(payload)))?;
        Ok(all)
    }

    /// Deletes the IPv4 connections for which `gone` is true; returns how many there were. One that ended meanwhile is no error.
    pub fn delete_connections(&mut self, gone: impl Fn(&Entry) -> bool) -> Result<usize, Error> {
        let mut batch = Vec::new();
        for entry in self.connections()?.into_iter().filter(|entry| gone(entry)) {
            let Tuple { source, destination, .. } = entry.original;
            let mut m = Message::new(DELETE, 0, format!("delete connection {source} → {destination}"));
            // The identity protects against deleting a newer connection with the same addresses.
            m.put(&[2, 0, 0, 0]).attr(TUPLE_ORIGINAL | 0x8000, &entry.tuple).attr(ID, &entry.id);
            batch.push(m);
        }
        let count = batch.len();
        match self.batch(batch)?.into_iter().find(|error| !error.is_missing()) {
            None => Ok(count),
            Some(error) => Err(error),
        }
    }
}
