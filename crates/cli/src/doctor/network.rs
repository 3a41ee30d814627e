//! Networking: what is made in a namespace that nobody else sees, and what is read of the host's settings.

use super::Finding;
use crate::error::whole;
use gantry_linux::netlink::link::{Kind, NewLink, OuterFragments, Peer};
use gantry_linux::netlink::{Error, Socket};
use gantry_linux::netns::NetNs;
use gantry_linux::nft::expr::Rule;
use gantry_linux::nft::{ChainKind, Family, Hook, Transaction};
use gantry_linux::sysctl;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// VXLAN adds an IPv4, a UDP, a VXLAN and an Ethernet header.
const VXLAN_OVERHEAD: u32 = 50;

/// All findings of this group. Ports are in use when our own daemon runs; then they say nothing.
pub fn findings(daemon_runs: bool) -> Vec<Finding> {
    let mut found = tries();
    found.push(forwarding());
    found.push(reverse_path());
    found.push(bridge_filter());
    found.push(uplink());
    if !daemon_runs {
        found.extend(ports());
    }
    found
}

/// Name, what it is for, and the try.
type Try = (&'static str, &'static str, fn() -> Result<(), Error>);

fn tries() -> Vec<Finding> {
    let all: [Try; 4] = [
        ("network bridge", "networks between containers", || request(NewLink::new("doctor0", Kind::Bridge))),
        ("network veth", "every network but host and none", || {
            request(NewLink::new(
                "doctor1",
                Kind::Veth(Peer { name: "doctor2", netns: None, mac: None, mtu: None }),
            ))
        }),
        ("network vxlan", "overlay networks between nodes", || {
            let kind = Kind::Vxlan {
                vni: 4097,
                port: 4789,
                local: Ipv4Addr::LOCALHOST,
                proxy: true,
                fragments: OuterFragments::Allowed,
            };
            request(NewLink::new("doctor3", kind))
        }),
        ("network nf_tables", "published ports, virtual IPs, the routing mesh, ways out", nat_rule),
    ];
    let netns = match NetNs::anonymous() {
        Ok(netns) => netns,
        Err(why) => {
            return vec![Finding::fail(
                "network namespace",
                whole(&why),
                "containers get no network of their own",
                "run this as root; use a kernel with CONFIG_NET_NS",
            )];
        }
    };
    all.iter()
        .map(|(name, purpose, attempt)| match netns.run(attempt) {
            Ok(Ok(())) => Finding::ok(name, format!("works; for {purpose}")),
            Ok(Err(why)) => lacks(name, purpose, &whole(&why)),
            Err(why) => lacks(name, purpose, &whole(&why)),
        })
        .collect()
}

fn lacks(name: &str, purpose: &str, why: &str) -> Finding {
    let remedy =
        "load the module (bridge, veth, vxlan, nf_tables with nft_chain_nat) or use a kernel that has it";
    Finding::fail(name, why, &format!("not available: {purpose}"), remedy)
}

fn request(link: NewLink<'_>) -> Result<(), Error> {
    Socket::route()?.request(link.message())
}

fn nat_rule() -> Result<(), Error> {
    let mut transaction = Transaction::new(Family::Ip, "doctor");
    transaction.table().base_chain("out", ChainKind::Nat, Hook::Output, -100);
    let targets = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    transaction.rule("out", &Rule::new().daddr(Ipv4Addr::new(192, 0, 2, 9)).dnat_random(&targets));
    transaction.commit(&mut Socket::netfilter()?)
}

fn forwarding() -> Finding {
    match sysctl::read("net.ipv4.ip_forward").as_deref() {
        Ok("1") => Finding::ok("network forwarding", "on"),
        _ => Finding::warn(
            "network forwarding",
            "net.ipv4.ip_forward is off",
            "until the daemon turns it on, containers reach nothing outside; if something turns it off again, they lose it again",
            "set net.ipv4.ip_forward=1 in /etc/sysctl.d",
        ),
    }
}

fn reverse_path() -> Finding {
    let strict: Vec<String> = interfaces().into_iter().filter(|name| rp_filter(name) == 1).collect();
    if strict.is_empty() {
        return Finding::ok("network rp_filter", "loose or off");
    }
    Finding::warn(
        "network rp_filter",
        format!("strict on {}", strict.join(", ")),
        "the routing mesh keeps clients' addresses: their packets come on another link than replies would take, and are dropped",
        "the daemon sets it to loose (2) on its own links; set net.ipv4.conf.all.rp_filter to 0 or 2",
    )
}

/// The kernel uses the larger of the link's value and that of `all`.
fn rp_filter(name: &str) -> u8 {
    let value = |name: &str| {
        sysctl::read(&format!("net/ipv4/conf/{name}/rp_filter"))
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0)
    };
    value(name).max(value("all"))
}

fn interfaces() -> Vec<String> {
    let links = Socket::route().and_then(|mut s| s.links()).unwrap_or_default();
    links.into_iter().map(|l| l.name).filter(|n| n != "lo").collect()
}

fn bridge_filter() -> Finding {
    match sysctl::read("net.bridge.bridge-nf-call-iptables").as_deref() {
        Ok("1") => Finding::warn(
            "network br_netfilter",
            "bridged packets pass the host's IP firewall",
            "a host firewall that drops forwarded packets also drops packets between containers of one network",
            "set net.bridge.bridge-nf-call-iptables=0 unless something else needs it (Kubernetes does)",
        ),
        _ => Finding::ok("network br_netfilter", "bridged packets do not pass the host's IP firewall"),
    }
}

fn uplink() -> Finding {
    let look = || -> Result<Option<(String, u32)>, Error> {
        let mut socket = Socket::route()?;
        let routes = socket.routes()?;
        let out = routes.iter().find(|r| r.prefix == 0 && r.destination.is_ipv4()).map(|r| r.link);
        let links = socket.links()?;
        Ok(out.and_then(|index| links.into_iter().find(|l| l.index == index)).map(|l| (l.name, l.mtu)))
    };
    match look() {
        Ok(Some((name, mtu))) if mtu >= 1280 + VXLAN_OVERHEAD => Finding::ok(
            "network uplink",
            format!("{name}, MTU {mtu}; overlay networks get {}", mtu - VXLAN_OVERHEAD),
        ),
        Ok(Some((name, mtu))) => Finding::warn(
            "network uplink",
            format!("{name} has an MTU of {mtu}"),
            "overlay networks get less than 1280 bytes, which IPv6 and some programs need",
            "raise the MTU of the link between the nodes",
        ),
        Ok(None) => Finding::warn(
            "network uplink",
            "no default route",
            "containers reach nothing outside; the daemon cannot guess its address for a cluster",
            "add a default route, or give --advertise-addr to swarm init and join",
        ),
        Err(why) => Finding::warn("network uplink", whole(&why), "its MTU is not known", "run this as root"),
    }
}

fn ports() -> Vec<Finding> {
    let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2377)).map(drop);
    let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4789)).map(drop);
    let finding = |name: &str, port: &str, outcome: std::io::Result<()>, cost: &str| match outcome {
        Ok(()) => Finding::ok(name, format!("{port} is free")),
        Err(why) if why.kind() == ErrorKind::AddrInUse => Finding::warn(
            name,
            format!("{port} is in use"),
            cost,
            "stop what listens there, or choose another port",
        ),
        Err(why) => Finding::warn(name, format!("try {port}: {why}"), cost, "run this as root"),
    };
    vec![
        finding(
            "network port 2377",
            "tcp port 2377",
            tcp,
            "swarm init and join fail unless --listen-addr names another port",
        ),
        finding(
            "network port 4789",
            "udp port 4789",
            udp,
            "overlay networks do not reach other nodes (--data-path-port chooses another)",
        ),
    ]
}
