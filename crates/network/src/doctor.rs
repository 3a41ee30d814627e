//! What this node's kernel and settings lack for networking, what that costs, and what to do about it.
//!
//! Features are tried, not looked up: each is used for a moment in a network namespace that nobody else sees.

use gantry_linux::netlink::link::{Kind, NewLink, OuterFragments, Peer};
use gantry_linux::netlink::{Error, Socket};
use gantry_linux::netns::NetNs;
use gantry_linux::nft::expr::Rule;
use gantry_linux::nft::{self, ChainKind, Expr, Family, Hook, Transaction};
use gantry_linux::sysctl;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something works less well, or may fail.
    Warn,
    /// Something does not work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What it costs; empty when all is well.
    pub cost: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

impl Finding {
    fn ok(name: &str, what: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            level: Level::Ok,
            what: what.into(),
            cost: String::new(),
            remedy: String::new(),
        }
    }

    fn bad(name: &str, level: Level, what: impl Into<String>, cost: &str, remedy: &str) -> Self {
        Self { name: name.into(), level, what: what.into(), cost: cost.into(), remedy: remedy.into() }
    }
}

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Scope {
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// UDP port of control probes.
    pub probe_port: u16,
    /// This node's address towards the others.
    pub node_address: Option<IpAddr>,
}

impl Default for Scope {
    fn default() -> Self {
        Self { vxlan_port: 4789, probe_port: 7946, node_address: None }
    }
}

/// All checks with the usual ports. Needs root; the calling thread's network namespace is the node's.
pub fn checks() -> Vec<Finding> {
    checks_of(&Scope::default())
}

/// All checks.
pub fn checks_of(scope: &Scope) -> Vec<Finding> {
    let mut findings = match NetNs::anonymous() {
        Ok(netns) => netns.run(features).unwrap_or_else(|error| vec![no_namespace(&error)]),
        Err(error) => vec![no_namespace(&error)],
    };
    findings.push(forwarding());
    findings.push(rp_filter());
    findings.push(br_netfilter());
    findings.push(host_firewall());
    findings.push(conntrack());
    findings.push(mtu(scope));
    findings.push(vxlan_port(scope));
    findings.push(probe_port(scope));
    findings
}

fn no_namespace(error: &gantry_linux::netns::Error) -> Finding {
    let what = crate::chain(error);
    let remedy = "run as root, with a kernel built with CONFIG_NET_NS";
    Finding::bad(
        "network namespaces",
        Level::Fail,
        what,
        "no container can have a network of its own",
        remedy,
    )
}

/// Tries what the kernel can do, in a namespace of its own.
fn features() -> Vec<Finding> {
    let mut findings = vec![Finding::ok("network namespaces", "work")];
    let (mut route, mut netfilter) = match (Socket::route(), Socket::netfilter()) {
        (Ok(route), Ok(netfilter)) => (route, netfilter),
        (Err(error), _) | (_, Err(error)) => {
            let what = crate::chain(&error);
            findings.push(Finding::bad(
                "netlink",
                Level::Fail,
                what,
                "no network can be made",
                "run as root, with CONFIG_NETFILTER_NETLINK",
            ));
            return findings;
        }
    };
    let vxlan = Kind::Vxlan {
        vni: 1,
        port: 4789,
        local: Ipv4Addr::LOCALHOST,
        proxy: true,
        fragments: OuterFragments::Inherit,
    };
    let peer = Peer { name: "try-p", netns: None, mac: None, mtu: None };
    for (name, kind, level, cost, remedy) in [
        (
            "bridge",
            Kind::Bridge,
            Level::Fail,
            "no bridge and no overlay networks",
            "load the module: modprobe bridge",
        ),
        (
            "veth",
            Kind::Veth(peer),
            Level::Fail,
            "containers get no interface",
            "load the module: modprobe veth",
        ),
        (
            "VXLAN",
            vxlan,
            Level::Fail,
            "no overlay networks and no routing mesh between nodes",
            "load the module: modprobe vxlan",
        ),
    ] {
        let tried = route.request(NewLink::new(&format!("try-{}", name.to_lowercase()), kind).message());
        findings.push(feature(name, tried, level, cost, remedy));
    }
    let parent = route.link("try-veth").ok().flatten().map_or(0, |link| link.index);
    let macvlan = Kind::Macvlan { parent, mode: 4 };
    let tried = route.request(NewLink::new("try-macvlan", macvlan).message());
    let (cost, remedy) = ("networks of driver macvlan can't be made", "load the module: modprobe macvlan");
    findings.push(feature("macvlan", tried, Level::Warn, cost, remedy));
    findings.extend(nftables(&mut netfilter));
    findings
}

fn feature(name: &str, tried: Result<(), Error>, level: Level, cost: &str, remedy: &str) -> Finding {
    match tried {
        Ok(()) => Finding::ok(name, "works"),
        Err(error) => Finding::bad(name, level, crate::chain(&error), cost, remedy),
    }
}

fn nftables(netfilter: &mut Socket) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ip = Ipv4Addr::LOCALHOST;
    let nat = |hook| {
        move |t: &mut Transaction| {
            t.base_chain("c", ChainKind::Nat, hook, -100);
        }
    };
    type Fill = Box<dyn Fn(&mut Transaction)>;
    let features: [(&str, Level, &str, Fill); 6] = [
        (
            "nftables",
            Level::Fail,
            "no published ports, no isolation, no way out for containers",
            Box::new(|t| {
                t.base_chain("c", ChainKind::Filter, Hook::Forward, 0)
                    .rule("c", &Rule::new().input("lo").accept());
            }),
        ),
        (
            "nftables nat",
            Level::Fail,
            "no published ports and no virtual addresses",
            Box::new(move |t| {
                nat(Hook::Output)(t);
                t.rule("c", &Rule::new().daddr(ip).dnat_to(ip, 1));
            }),
        ),
        (
            "nftables fib",
            Level::Fail,
            "no published ports",
            Box::new(move |t| {
                nat(Hook::Prerouting)(t);
                t.rule("c", &Rule::new().to_this_host().accept());
            }),
        ),
        (
            "nftables numgen",
            Level::Fail,
            "virtual addresses and the mesh can't spread over several tasks",
            Box::new(move |t| {
                nat(Hook::Output)(t);
                t.rule("c", &Rule::new().daddr(ip).dnat_random(&[ip, Ipv4Addr::new(127, 0, 0, 2)]));
            }),
        ),
        (
            "nftables masquerade",
            Level::Fail,
            "containers can't reach the outside",
            Box::new(move |t| {
                nat(Hook::Postrouting)(t);
                t.rule("c", &Rule::new().masquerade());
            }),
        ),
        (
            "nftables reject",
            Level::Warn,
            "a virtual address without tasks is silent instead of refused",
            Box::new(|t| {
                t.base_chain("c", ChainKind::Filter, Hook::Output, 0)
                    .rule("c", &Rule::new().with(Expr::Reject { code: 1 }));
            }),
        ),
    ];
    for (name, level, cost, fill) in features {
        let mut t = Transaction::new(Family::Ip, "try");
        t.fresh_table();
        fill(&mut t);
        let tried = t.commit(netfilter);
        findings.push(feature(
            name,
            tried,
            level,
            cost,
            "use a kernel with CONFIG_NF_TABLES and the NFT_ modules for it (Debian 12's has all)",
        ));
    }
    findings
}

fn setting(name: &str) -> Option<String> {
    sysctl::read(name).ok()
}

fn forwarding() -> Finding {
    match setting("net.ipv4.ip_forward").as_deref() {
        Some("1") => Finding::ok("forwarding", "net.ipv4.ip_forward is 1"),
        other => Finding::bad(
            "forwarding",
            Level::Warn,
            format!("net.ipv4.ip_forward is {}", other.unwrap_or("unreadable")),
            "containers reach nothing outside until the daemon sets it, and nothing if something sets it back",
            "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d",
        ),
    }
}

fn rp_filter() -> Finding {
    match setting("net/ipv4/conf/all/rp_filter").as_deref() {
        Some("1") => Finding::bad(
            "rp_filter",
            Level::Warn,
            "net.ipv4.conf.all.rp_filter is 1 (strict)",
            "the daemon sets its own links to loose; if something sets them back, replies of the routing mesh are dropped silently",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
        Some(other) => Finding::ok("rp_filter", format!("net.ipv4.conf.all.rp_filter is {other}")),
        None => Finding::bad("rp_filter", Level::Warn, "it can't be read", "unknown", "mount /proc"),
    }
}

fn br_netfilter() -> Finding {
    match setting("net/bridge/bridge-nf-call-iptables").as_deref() {
        Some("1") => Finding::ok(
            "br_netfilter",
            "bridged packets pass the packet filter; the host's own forward rules apply to containers of one network too",
        ),
        Some(_) | None => Finding::ok(
            "br_netfilter",
            "bridged packets do not pass the packet filter; nothing of Gantry needs it",
        ),
    }
}

/// Chains of other programs that drop forwarded IPv4 packets unless a rule of theirs accepts them: our own accept can't
/// overrule that.
pub(crate) fn dropping_chains(socket: &mut Socket) -> Result<Vec<String>, Error> {
    let chains = nft::base_chains(socket)?;
    let drops = |chain: &&nft::BaseChain| {
        chain.drops && chain.hook == Hook::Forward as u32 && matches!(chain.family, 1 | 2)
    };
    Ok(chains.iter().filter(drops).map(|chain| format!("{} of table {}", chain.name, chain.table)).collect())
}

fn host_firewall() -> Finding {
    let name = "host firewall";
    match Socket::netfilter().and_then(|mut socket| dropping_chains(&mut socket)) {
        Ok(chains) if chains.is_empty() => {
            Finding::ok(name, "no other nftables chain drops forwarded packets by default")
        }
        Ok(chains) => Finding::bad(
            name,
            Level::Warn,
            format!("forwarded packets are dropped by default in chain {}", chains.join(", ")),
            "containers reach the outside, and are reached through published ports, only as far as the host's own rules accept it",
            "accept forwarding from and to Gantry's links there (for example: iifname \"gantry0\" accept; ct status dnat accept; ct state established,related accept)",
        ),
        Err(error) => Finding::bad(name, Level::Warn, crate::chain(&error), "unknown", "run as root"),
    }
}

fn conntrack() -> Finding {
    let number = |name: &str| setting(name).and_then(|text| text.parse::<u64>().ok());
    match (number("net/netfilter/nf_conntrack_count"), number("net/netfilter/nf_conntrack_max")) {
        (Some(count), Some(max)) if max > 0 && count * 10 > max * 8 => Finding::bad(
            "conntrack",
            Level::Warn,
            format!("{count} of {max} entries are used"),
            "when the table is full, new connections are dropped",
            "raise net.netfilter.nf_conntrack_max",
        ),
        (Some(count), Some(max)) => Finding::ok("conntrack", format!("{count} of {max} entries are used")),
        (None, Some(max)) => Finding::ok("conntrack", format!("at most {max} entries")),
        (_, None) if Socket::netfilter().and_then(|mut socket| socket.connections()).is_ok() => {
            // The settings are shown in the first network namespace only.
            Finding::ok("conntrack", "works")
        }
        (_, None) => Finding::bad(
            "conntrack",
            Level::Fail,
            "connection tracking is missing",
            "no published ports, no virtual addresses",
            "load the modules: modprobe nf_conntrack nf_conntrack_netlink",
        ),
    }
}

fn mtu(scope: &Scope) -> Finding {
    let read = || -> Result<Option<(String, u32)>, Error> {
        let mut socket = Socket::route()?;
        let index = match scope.node_address {
            Some(wanted) => socket.addresses()?.into_iter().find(|a| a.ip == wanted).map(|a| a.link),
            None => socket
                .routes()?
                .into_iter()
                .find(|r| r.prefix == 0 && r.destination.is_ipv4())
                .map(|r| r.link),
        };
        Ok(socket
            .links()?
            .into_iter()
            .find(|link| Some(link.index) == index)
            .map(|link| (link.name, link.mtu)))
    };
    match read() {
        Ok(Some((link, mtu))) if mtu < 1280 => Finding::bad(
            "MTU",
            Level::Warn,
            format!("{link} carries packets of {mtu} bytes"),
            "packets in overlay networks are smaller than 1230 bytes, below what IPv6 needs",
            "raise the MTU of the network between the nodes",
        ),
        Ok(Some((link, mtu))) => {
            Finding::ok("MTU", format!("{link} carries {mtu} bytes, overlay networks {}", mtu - 50))
        }
        Ok(None) => Finding::bad(
            "MTU",
            Level::Warn,
            "there is no link towards other nodes",
            "1500 is assumed",
            "give the node an address and a default route",
        ),
        Err(error) => {
            Finding::bad("MTU", Level::Warn, crate::chain(&error), "1500 is assumed", "run as root")
        }
    }
}

fn vxlan_port(scope: &Scope) -> Finding {
    let port = scope.vxlan_port;
    let name = format!("UDP port {port}");
    let used_by_vxlan = || {
        let links = Socket::route().and_then(|mut socket| socket.links()).unwrap_or_default();
        links.into_iter().find(|link| link.kind == "vxlan")
    };
    match (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)), used_by_vxlan()) {
        (Ok(_), _) => Finding::ok(&name, "is free for VXLAN"),
        (Err(_), Some(link)) => Finding::ok(&name, format!("is used by VXLAN ({})", link.name)),
        (Err(error), None) => Finding::bad(
            &name,
            Level::Fail,
            format!("can't be used: {error}"),
            "no overlay networks and no routing mesh between nodes",
            "end the process that has it (ss -lupn), or choose another port for the cluster",
        ),
    }
}

fn probe_port(scope: &Scope) -> Finding {
    let port = scope.probe_port;
    let name = format!("UDP port {port}");
    let address = scope.node_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match UdpSocket::bind((address, port)) {
        Ok(_) => Finding::ok(&name, "is free for probes between nodes"),
        // A running daemon holds it.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Finding::ok(&name, "is in use (by the daemon, when it runs in a cluster)")
        }
        Err(error) => Finding::bad(
            &name,
            Level::Warn,
            format!("can't be used: {error}"),
            "a blocked path between nodes is not noticed",
            "check the node's address",
        ),
    }
}
