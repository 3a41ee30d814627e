//! Routes and routing rules.

use super::{CREATE, EXCL, Error, Message, REPLACE, Socket, attributes, family, ip_bytes, read_ip, read_u32};
use std::net::{IpAddr, Ipv4Addr};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTNH_F_ONLINK: u32 = 4;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;

/// The main table.
pub const MAIN: u32 = 254;
/// The table of local addresses.
pub const LOCAL: u32 = 255;

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Destination; `0.0.0.0/0` is the default route.
    pub destination: IpAddr,
    /// Length of the prefix.
    pub prefix: u8,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the link (0: found through the gateway).
    pub link: u32,
    /// Table.
    pub table: u32,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Whether the destination is this host itself.
    pub local: bool,
    /// Whether the gateway is reachable on the link though no address says so.
    pub onlink: bool,
}

impl Route {
    /// A default route.
    pub fn default_via(gateway: IpAddr, link: u32) -> Self {
        let destination = if gateway.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
        };
        Self {
            destination,
            prefix: 0,
            gateway: Some(gateway),
            link,
            table: MAIN,
            source: None,
            local: false,
            onlink: false,
        }
    }

    /// A route to what is on the link.
    pub fn on_link(destination: IpAddr, prefix: u8, link: u32) -> Self {
        Self {
            destination,
            prefix,
            gateway: None,
            link,
            table: MAIN,
            source: None,
            local: false,
            onlink: false,
        }
    }

    /// Encodes "add, or replace what has the same destination".
    pub fn add(&self) -> Message {
        let mut m = Message::new(RTM_NEWROUTE, CREATE | REPLACE, format!("add route {self}"));
        self.fill(&mut m);
        m
    }

    /// Encodes the removal.
    pub fn delete(&self) -> Message {
        let mut m = Message::new(RTM_DELROUTE, 0, format!("delete route {self}"));
        self.fill(&mut m);
        m
    }

    fn fill(&self, m: &mut Message) {
        let scope = match (self.local, self.gateway) {
            (true, _) => SCOPE_HOST,
            (false, None) => SCOPE_LINK,
            (false, Some(_)) => 0,
        };
        let mut header = [0; 12];
        header[0] = family(self.destination);
        header[1] = self.prefix;
        header[4] = u8::try_from(self.table).unwrap_or(0);
        header[5] = RTPROT_BOOT;
        header[6] = if self.destination.is_ipv6() { 0 } else { scope };
        header[7] = if self.local { RTN_LOCAL } else { RTN_UNICAST };
        header[8..].copy_from_slice(&if self.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
        m.put(&header).attr_u32(RTA_TABLE, self.table);
        if self.prefix > 0 {
            m.attr(RTA_DST, &ip_bytes(self.destination));
        }
        if let Some(gateway) = self.gateway {
            m.attr(RTA_GATEWAY, &ip_bytes(gateway));
        }
        if self.link != 0 {
            m.attr_u32(RTA_OIF, self.link);
        }
        if let Some(source) = self.source {
            m.attr(RTA_PREFSRC, &ip_bytes(source));
        }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " link {} table {}", self.link, self.table)
    }
}

/// An IPv4 routing rule: packets with this mark use this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Place among the rules.
    pub priority: u32,
    /// Mark.
    pub mark: u32,
    /// Table.
    pub table: u32,
}

impl Rule {
    /// Encodes "add" (EEXIST when it is there).
    pub fn add(&self) -> Message {
        let mut m = Message::new(
            RTM_NEWRULE,
            CREATE | EXCL,
            format!("add rule mark {:#x} table {}", self.mark, self.table),
        );
        self.fill(&mut m);
        m
    }

    /// Encodes the removal.
    pub fn delete(&self) -> Message {
        let mut m =
            Message::new(RTM_DELRULE, 0, format!("delete rule mark {:#x} table {}", self.mark, self.table));
        self.fill(&mut m);
        m
    }

    fn fill(&self, m: &mut Message) {
        // struct fib_rule_hdr: family, dst_len, src_len, tos, table, res1, res2, action (1: look up in the table), flags.
        let header = [2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        // FRA_PRIORITY 6, FRA_FWMARK 10, FRA_TABLE 15, FRA_FWMASK 16.
        m.put(&header)
            .attr_u32(6, self.priority)
            .attr_u32(10, self.mark)
            .attr_u32(16, u32::MAX)
            .attr_u32(15, self.table);
    }
}

impl Socket {
    /// All IPv4 and IPv6 routes of all tables.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut message = Message::new(RTM_GETROUTE, 0, "list routes");
        message.put(&[0; 12]);
        let mut all = Vec::new();
        self.dump(message, |kind, payload| {
            if kind == RTM_NEWROUTE {
                all.extend(parse_route(payload));
            }
        })?;
        Ok(all)
    }

    /// All IPv4 rules that look at a mark.
    pub fn mark_rules(&mut self) -> Result<Vec<Rule>, Error> {
        let mut message = Message::new(RTM_GETRULE, 0, "list rules");
        message.put(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut all = Vec::new();
        self.dump(message, |kind, payload| {
            if kind == RTM_NEWRULE && payload.len() >= 12 {
                let pick =
                    |wanted| attributes(&payload[12..]).find(|(k, _)| *k == wanted).map(|(_, v)| read_u32(v));
                if let Some(mark) = pick(10) {
                    let table = pick(15).unwrap_or(u32::from(payload[4]));
                    all.push(Rule { priority: pick(6).unwrap_or(0), mark, table });
                }
            }
        })?;
        Ok(all)
    }
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let header = payload.get(..12)?;
    let destination = match header[0] {
        2 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        10 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = Route {
        destination,
        prefix: header[1],
        gateway: None,
        link: 0,
        table: u32::from(header[4]),
        source: None,
        local: header[7] == RTN_LOCAL,
        onlink: read_u32(&header[8..]) & RTNH_F_ONLINK != 0,
    };
    if !matches!(header[7], RTN_UNICAST | RTN_LOCAL) {
        return None;
    }
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            RTA_DST => route.destination = read_ip(value)?,
            RTA_GATEWAY => route.gateway = read_ip(value),
            RTA_OIF => route.link = read_u32(value),
            RTA_PREFSRC => route.source = read_ip(value),
            RTA_TABLE => route.table = read_u32(value),
            _ => {}
        }
    }
    Some(route)
}
