//! Addresses of links.

use super::{CREATE, Error, Message, REPLACE, Socket, attributes, family, ip_bytes, read_ip, read_u32};
use std::net::IpAddr;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;

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

impl Socket {
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
