//! Links: bridge, veth, VXLAN, macvlan and what is common to all.

use super::{Batch, CREATE, EXCL, Error, Message, Socket, attributes, read_str, read_u32};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::fmt;
use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFF_UP: u32 = 1;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that Docker derives from an IPv4 address: `02:42:` and its four bytes.
    pub fn of_ip(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Parses six hex pairs joined by `:` or `-`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next()?;
            if part.len() != 2 {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Whether a VXLAN device's outer packets may be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterFragments {
    /// The outer packet may be fragmented.
    Allowed,
    /// As the inner packet says.
    Inherit,
}

/// The other end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Name inside its namespace.
    pub name: &'a str,
    /// Namespace in which it appears at once; `None`: the same as the pair's.
    pub netns: Option<BorrowedFd<'a>>,
    /// Address.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: Option<u32>,
}

/// What kind of link is made.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A bridge without spanning tree.
    Bridge,
    /// A pair. The peer can't be made with the up flag in the same request (ENOTCONN); the near end can.
    Veth(Peer<'a>),
    /// VXLAN without learning, that answers ARP from its neighbour entries.
    Vxlan {
        /// Network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Our own tunnel address.
        local: Ipv4Addr,
        /// Answer ARP for known neighbours instead of flooding.
        proxy: bool,
        /// Fragmentation of the outer packet.
        fragments: OuterFragments,
    },
    /// A macvlan in bridge mode (`None`: passed through as private) on a parent link.
    Macvlan {
        /// Index of the parent.
        parent: u32,
        /// `MACVLAN_MODE_*`: 1 private, 2 vepa, 4 bridge, 8 passthru.
        mode: u32,
    },
}

/// A link to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// Kind.
    pub kind: Kind<'a>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Address.
    pub mac: Option<Mac>,
    /// Bridge that it joins.
    pub master: Option<u32>,
    /// Whether it starts up.
    pub up: bool,
    /// Namespace in which it appears; `None`: that of the socket.
    pub netns: Option<BorrowedFd<'a>>,
}

impl<'a> NewLink<'a> {
    /// A link with the kernel's defaults.
    pub fn new(name: &'a str, kind: Kind<'a>) -> Self {
        Self { name, kind, mtu: None, mac: None, master: None, up: false, netns: None }
    }

    /// Encodes the request.
    pub fn message(&self) -> Message {
        let mut m = Message::new(RTM_NEWLINK, CREATE | EXCL, format!("create link {}", self.name));
        m.put(&link_header(0, if self.up { IFF_UP } else { 0 }, IFF_UP, 0));
        m.attr_str(IFLA_IFNAME, self.name);
        if let Some(mtu) = self.mtu {
            m.attr_u32(IFLA_MTU, mtu);
        }
        if let Some(mac) = self.mac {
            m.attr(IFLA_ADDRESS, &mac.0);
        }
        if let Some(master) = self.master {
            m.attr_u32(IFLA_MASTER, master);
        }
        if let Some(netns) = self.netns {
            m.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
        }
        if let Kind::Macvlan { parent, .. } = self.kind {
            m.attr_u32(IFLA_LINK, parent);
        }
        m.nest(IFLA_LINKINFO, |m| self.kind.encode(m));
        m
    }
}

impl Kind<'_> {
    fn encode(&self, m: &mut Message) {
        match *self {
            Self::Bridge => {
                m.attr_str(IFLA_INFO_KIND, "bridge");
            }
            Self::Veth(peer) => {
                m.attr_str(IFLA_INFO_KIND, "veth");
                m.nest(IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.put(&link_header(0, 0, 0, 0)).attr_str(IFLA_IFNAME, peer.name);
                        if let Some(netns) = peer.netns {
                            m.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
                        }
                        if let Some(mac) = peer.mac {
                            m.attr(IFLA_ADDRESS, &mac.0);
                        }
                        if let Some(mtu) = peer.mtu {
                            m.attr_u32(IFLA_MTU, mtu);
                        }
                    });
                });
            }
            Self::Vxlan { vni, port, local, proxy, fragments } => {
                m.attr_str(IFLA_INFO_KIND, "vxlan");
                // Numbers from linux/if_link.h: ID 1, LOCAL 4, LEARNING 7, PROXY 11, PORT 15, DF 29.
                m.nest(IFLA_INFO_DATA, |m| {
                    m.attr_u32(1, vni).attr(4, &local.octets()).attr_u8(7, 0);
                    m.attr_u8(11, u8::from(proxy)).attr_be16(15, port);
                    m.attr_u8(29, if fragments == OuterFragments::Inherit { 2 } else { 0 });
                });
            }
            Self::Macvlan { mode, .. } => {
                m.attr_str(IFLA_INFO_KIND, "macvlan");
                m.nest(IFLA_INFO_DATA, |m| {
                    m.attr_u32(1, mode);
                });
            }
        }
    }
}

/// A link that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Largest packet.
    pub mtu: u32,
    /// Address.
    pub mac: Mac,
    /// Index of the bridge that it belongs to, or 0.
    pub master: u32,
    /// Whether it is up.
    pub up: bool,
    /// `bridge`, `veth`, `vxlan`, … or empty.
    pub kind: String,
    /// Note on the link.
    pub alias: String,
    /// VNI, for VXLAN links.
    pub vni: Option<u32>,
    /// Own tunnel address, for VXLAN links.
    pub tunnel_local: Option<Ipv4Addr>,
}

/// Changes of one link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Bridge (0: none).
    pub master: Option<u32>,
    /// New name; the link must be down.
    pub name: Option<&'a str>,
    /// Address.
    pub mac: Option<Mac>,
    /// Note on the link: who owns it. (The kernel ignores it in the request that makes the link.)
    pub alias: Option<&'a str>,
    /// Namespace to which it moves.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Encodes changes of the link `index`.
pub fn change(index: u32, change: Change<'_>) -> Message {
    let mut m = Message::new(RTM_NEWLINK, 0, format!("change link {index}"));
    let (flags, mask) = match change.up {
        Some(true) => (IFF_UP, IFF_UP),
        Some(false) => (0, IFF_UP),
        None => (0, 0),
    };
    m.put(&link_header(index, flags, mask, 0));
    if let Some(name) = change.name {
        m.attr_str(IFLA_IFNAME, name);
    }
    if let Some(mtu) = change.mtu {
        m.attr_u32(IFLA_MTU, mtu);
    }
    if let Some(mac) = change.mac {
        m.attr(IFLA_ADDRESS, &mac.0);
    }
    if let Some(master) = change.master {
        m.attr_u32(IFLA_MASTER, master);
    }
    if let Some(alias) = change.alias {
        m.attr_str(IFLA_IFALIAS, alias);
    }
    if let Some(netns) = change.netns {
        m.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    }
    m
}

/// Encodes the removal of a link by name.
pub fn delete(name: &str) -> Message {
    let mut m = Message::new(RTM_DELLINK, 0, format!("delete link {name}"));
    m.put(&link_header(0, 0, 0, 0)).attr_str(IFLA_IFNAME, name);
    m
}

/// Settings of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Port {
    /// It may not talk to other isolated ports.
    pub isolated: bool,
    /// Frames may go out where they came in.
    pub hairpin: bool,
}

/// Encodes the settings of the bridge port `index`.
pub fn configure_port(index: u32, port: Port) -> Message {
    let mut m = Message::new(RTM_SETLINK, 0, format!("configure bridge port {index}"));
    m.put(&link_header(index, 0, 0, AF_BRIDGE)).nest(IFLA_PROTINFO, |m| {
        m.attr_u8(IFLA_BRPORT_MODE, u8::from(port.hairpin))
            .attr_u8(IFLA_BRPORT_ISOLATED, u8::from(port.isolated));
    });
    m
}

const AF_BRIDGE: u8 = 7;

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, mask: u32, family: u8) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&mask.to_ne_bytes());
    header
}

fn parse(payload: &[u8]) -> Option<Link> {
    let header = payload.get(..16)?;
    let mut link =
        Link { index: read_u32(&header[4..]), up: read_u32(&header[8..]) & IFF_UP != 0, ..Link::default() };
    for (kind, value) in attributes(&payload[16..]) {
        match kind {
            IFLA_IFNAME => link.name = read_str(value),
            IFLA_MTU => link.mtu = read_u32(value),
            IFLA_ADDRESS => {
                if let Ok(mac) = <[u8; 6]>::try_from(value) {
                    link.mac = Mac(mac);
                }
            }
            IFLA_MASTER => link.master = read_u32(value),
            IFLA_IFALIAS => link.alias = read_str(value),
            IFLA_LINKINFO => parse_info(value, &mut link),
            _ => {}
        }
    }
    Some(link)
}

fn parse_info(value: &[u8], link: &mut Link) {
    for (kind, value) in attributes(value) {
        match kind {
            IFLA_INFO_KIND => link.kind = read_str(value),
            IFLA_INFO_DATA if link.kind == "vxlan" => {
                let find = |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
                link.vni = find(1).map(read_u32);
                link.tunnel_local = find(4).and_then(|v| <[u8; 4]>::try_from(v).ok()).map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
}

impl Socket {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = Message::new(RTM_GETLINK, 0, "list links");
        message.put(&link_header(0, 0, 0, 0));
        let mut links = Vec::new();
        self.dump(message, |kind, payload| {
            if kind == RTM_NEWLINK {
                links.extend(parse(payload));
            }
        })?;
        Ok(links)
    }

    /// One link, or `None` where there is none of that name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = Message::new(RTM_GETLINK, 0, format!("look up link {name}"));
        message.put(&link_header(0, 0, 0, 0)).attr_str(IFLA_IFNAME, name);
        let mut link = None;
        match self.get(message, |_, payload| link = parse(payload)) {
            Ok(()) => Ok(link),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes links in one go; those that are gone already are no error.
    pub fn delete_links(&mut self, names: &[String]) -> Result<(), Error> {
        let batch: Batch = names.iter().map(|name| delete(name)).collect();
        match self.batch(batch)?.into_iter().find(|error| !error.is_missing()) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_parsed_and_printed() {
        assert_eq!(Mac::parse("02:42:0A:00:01:05"), Some(Mac([2, 0x42, 10, 0, 1, 5])));
        assert_eq!(Mac::of_ip(Ipv4Addr::new(10, 0, 1, 5)).to_string(), "02:42:0a:00:01:05");
        assert_eq!(Mac::parse("02:42:0a:00:01"), None);
        assert_eq!(Mac::parse("02:42:0a:00:01:05:06"), None);
        assert_eq!(Mac::parse("2:42:0a:00:01:05"), None);
    }
}
