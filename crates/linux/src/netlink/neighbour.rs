//! Neighbour entries (address → MAC) and forwarding entries of bridges and VXLAN devices (MAC → port or tunnel end).

use super::link::Mac;
use super::{CREATE, Error, Message, REPLACE, Socket, attributes, family, ip_bytes, read_ip, read_u32};
use std::net::IpAddr;

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const NUD_NOARP: u16 = 0x40;
const NTF_SELF: u8 = 2;
const NTF_MASTER: u8 = 4;
const AF_BRIDGE: u8 = 7;

/// A permanent neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Address.
    pub ip: IpAddr,
    /// MAC address.
    pub mac: Mac,
}

impl Neighbour {
    /// Encodes "add or replace".
    pub fn add(&self) -> Message {
        let mut m = Message::new(
            RTM_NEWNEIGH,
            CREATE | REPLACE,
            format!("add neighbour {} on link {}", self.ip, self.link),
        );
        m.put(&header(family(self.ip), self.link, 0))
            .attr(NDA_DST, &ip_bytes(self.ip))
            .attr(NDA_LLADDR, &self.mac.0);
        m
    }

    /// Encodes the removal.
    pub fn delete(&self) -> Message {
        let mut m =
            Message::new(RTM_DELNEIGH, 0, format!("delete neighbour {} on link {}", self.ip, self.link));
        m.put(&header(family(self.ip), self.link, 0)).attr(NDA_DST, &ip_bytes(self.ip));
        m
    }
}

/// A static forwarding entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Forward {
    /// Index of the VXLAN device or bridge port.
    pub link: u32,
    /// MAC address.
    pub mac: Mac,
    /// Tunnel end, in the VXLAN device's own table; `None`: an entry of the bridge above ("this MAC is behind this port").
    pub tunnel: Option<IpAddr>,
}

impl Forward {
    /// Encodes "add or replace".
    pub fn add(&self) -> Message {
        let mut m = Message::new(
            RTM_NEWNEIGH,
            CREATE | REPLACE,
            format!("add forwarding of {} on link {}", self.mac, self.link),
        );
        self.fill(&mut m);
        m
    }

    /// Encodes the removal.
    pub fn delete(&self) -> Message {
        let mut m =
            Message::new(RTM_DELNEIGH, 0, format!("delete forwarding of {} on link {}", self.mac, self.link));
        self.fill(&mut m);
        m
    }

    fn fill(&self, m: &mut Message) {
        let mut head =
            header(AF_BRIDGE, self.link, if self.tunnel.is_some() { NTF_SELF } else { NTF_MASTER });
        // A bridge entry must be "no ARP" (static), not permanent: permanent means the bridge's own address.
        let state = if self.tunnel.is_some() { NUD_PERMANENT } else { NUD_NOARP };
        head[8..10].copy_from_slice(&state.to_ne_bytes());
        m.put(&head).attr(NDA_LLADDR, &self.mac.0);
        if let Some(tunnel) = self.tunnel {
            m.attr(NDA_DST, &ip_bytes(tunnel));
        }
    }
}

/// `struct ndmsg`.
fn header(family: u8, link: u32, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header[10] = flags;
    header
}

impl Socket {
    /// The permanent neighbour entries of a link.
    pub fn neighbours(&mut self, link: u32) -> Result<Vec<Neighbour>, Error> {
        let mut message = Message::new(RTM_GETNEIGH, 0, "list neighbours");
        message.put(&[0; 12]);
        let mut all = Vec::new();
        self.dump(message, |_, payload| {
            let Some(head) = payload.get(..12) else { return };
            let state = u16::from_ne_bytes([head[8], head[9]]);
            if matches!(head[0], 2 | 10) && read_u32(&head[4..]) == link && state & NUD_PERMANENT != 0 {
                let (ip, mac) = destination_and_mac(&payload[12..]);
                all.extend(ip.zip(mac).map(|(ip, mac)| Neighbour { link, ip, mac }));
            }
        })?;
        Ok(all)
    }

    /// The static forwarding entries of a VXLAN device, both its own and the bridge's.
    pub fn forwards(&mut self, link: u32) -> Result<Vec<Forward>, Error> {
        let mut message = Message::new(RTM_GETNEIGH, 0, "list forwarding entries");
        message.put(&header(AF_BRIDGE, 0, 0));
        let mut all = Vec::new();
        self.dump(message, |_, payload| {
            let Some(head) = payload.get(..12) else { return };
            let state = u16::from_ne_bytes([head[8], head[9]]);
            if head[0] != AF_BRIDGE || read_u32(&head[4..]) != link {
                return;
            }
            let (ip, mac) = destination_and_mac(&payload[12..]);
            let own = head[10] & NTF_SELF != 0;
            // The port's own MAC is a permanent bridge entry, which nobody added.
            if let Some(mac) = mac
                && (own && ip.is_some() || !own && state & NUD_NOARP != 0)
            {
                all.push(Forward { link, mac, tunnel: ip });
            }
        })?;
        Ok(all)
    }
}

fn destination_and_mac(bytes: &[u8]) -> (Option<IpAddr>, Option<Mac>) {
    let mut found = (None, None);
    for (kind, value) in attributes(bytes) {
        match kind {
            NDA_DST => found.0 = read_ip(value),
            NDA_LLADDR => found.1 = <[u8; 6]>::try_from(value).ok().map(Mac),
            _ => {}
        }
    }
    found
}
