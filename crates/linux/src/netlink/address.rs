//! Addresses of links.

use super::{CREATE, Error, Message, REPLACE, Socket, attributes, family, ip_bytes, read_ip, read_u32};
use std::net::IpAddr;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_NODAD: u8 = 0x02;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const SCOPE_UNIVERSE: u8 = 0;

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// Address.
    pub ip: IpAddr,
    /// Length of the prefix.
    pub prefix: u8,
}

impl Address {
    /// Encodes "add, or leave as it is".
    pub fn add(&self) -> Message {
        let mut m = Message::new(
            RTM_NEWADDR,
            CREATE | REPLACE,
            format!("add address {}/{} to link {}", self.ip, self.prefix, self.link),
        );
        self.fill(&mut m);
        if let IpAddr::V4(ip) = self.ip
            && self.prefix < 31
        {
            let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
            m.attr(IFA_BROADCAST, &(u32::from(ip) | host_bits).to_be_bytes());
        }
        m
    }

    /// Encodes the removal.
    pub fn delete(&self) -> Message {
        let mut m = Message::new(
            RTM_DELADDR,
            0,
            format!("delete address {}/{} from link {}", self.ip, self.prefix, self.link),
        );
        self.fill(&mut m);
        m
    }

    fn fill(&self, m: &mut Message) {
        let mut header = [0; 8];
        header[0] = family(self.ip);
        header[1] = self.prefix;
        // Duplicate address detection would keep an IPv6 address unusable for a second; ours are unique by allocation.
        header[2] = if self.ip.is_ipv6() { IFA_F_NODAD } else { 0 };
        header[4..].copy_from_slice(&self.link.to_ne_bytes());
        let bytes = ip_bytes(self.ip);
        m.put(&header).attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes);
    }
}

/// An address that a link keeps when it moves to another namespace, where the kernel takes all addresses away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAddress {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl KeptAddress {
    /// Only what somebody has configured for good, and what has a meaning beyond its link (RFC 3549, 2.3.3.2).
    fn parse(payload: &[u8], link: u32) -> Option<KeptAddress> {
        let header = payload.get(..8)?;
        let all = || attributes(&payload[8..]);
        // The header has the lower eight flags only.
        let flags =
            all().find(|(kind, _)| *kind == IFA_FLAGS).map_or(u32::from(header[2]), |(_, v)| read_u32(v));
        let wanted = flags & IFA_F_PERMANENT != 0 && header[3] == SCOPE_UNIVERSE;
        if !wanted || read_u32(&header[4..]) != link {
            return None;
        }
        let mut kept: Vec<(u16, Vec<u8>)> = all()
            .filter(|(kind, _)| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY].contains(kind))
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect();
        let own = flags & (u32::from(IFA_F_NODAD) | IFA_F_NOPREFIXROUTE);
        kept.push((IFA_FLAGS, own.to_ne_bytes().to_vec()));
        Some(KeptAddress { family: header[0], prefix: header[1], attributes: kept })
    }

    /// Encodes "add to this link".
    pub fn add(&self, link: u32) -> Message {
        let mut m = Message::new(RTM_NEWADDR, CREATE | REPLACE, format!("add an address to link {link}"));
        let mut header = [0; 8];
        header[0] = self.family;
        header[1] = self.prefix;
        header[4..].copy_from_slice(&link.to_ne_bytes());
        m.put(&header);
        for (kind, value) in &self.attributes {
            m.attr(*kind, value);
        }
        m
    }
}

impl Socket {
    /// The permanent addresses of global scope of a link.
    pub fn kept_addresses(&mut self, link: u32) -> Result<Vec<KeptAddress>, Error> {
        let mut message = Message::new(RTM_GETADDR, 0, "list addresses");
        message.put(&[0; 8]);
        let mut kept = Vec::new();
        self.dump(message, |kind, payload| {
            if kind == RTM_NEWADDR {
                kept.extend(KeptAddress::parse(payload, link));
            }
        })?;
        Ok(kept)
    }

    /// All addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let mut message = Message::new(RTM_GETADDR, 0, "list addresses");
        message.put(&[0; 8]);
        let mut all = Vec::new();
        self.dump(message, |kind, payload| {
            if kind == RTM_NEWADDR && payload.len() >= 8 {
                let pick = |wanted| attributes(&payload[8..]).find(|(kind, _)| *kind == wanted);
                let ip = pick(IFA_LOCAL).or_else(|| pick(IFA_ADDRESS)).and_then(|(_, value)| read_ip(value));
                all.extend(ip.map(|ip| Address { link: read_u32(&payload[4..]), ip, prefix: payload[1] }));
            }
        })?;
        Ok(all)
    }
}
