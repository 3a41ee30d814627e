//! The wires of a playground: a bridge in a namespace of its own, a veth pair to the host and one to each node.

use super::{Error, Playground};
use gantry_linux::netlink::address::Address;
use gantry_linux::netlink::link::{self, Change, Kind, NewLink, Peer};
use gantry_linux::netlink::route::Route;
use gantry_linux::netlink::{Error as NetlinkError, Socket};
use gantry_linux::netns::NetNs;
use rustix::fd::AsFd;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

const BRIDGE: &str = "switch";
const PREFIX: u8 = 24;

/// A /24 of the playground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subnet(u8);

impl Subnet {
    /// The address of a host number.
    pub(super) fn host(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 223, self.0, number)
    }

    /// The first of 10.223.0.0/24 … to which no route of this host leads.
    pub(super) fn find_free() -> Result<Self, Error> {
        let fail = |source| Error::Link { act: "list the routes of this host".to_owned(), source };
        let routes = Socket::route().and_then(|mut s| s.routes()).map_err(fail)?;
        let taken = |third: u8| {
            routes.iter().any(|r| r.destination == Ipv4Addr::new(10, 223, third, 0) && r.prefix == PREFIX)
        };
        (0..=255).find(|third| !taken(*third)).map(Self).ok_or(Error::NoSubnet)
    }
}

/// Name of the host's end.
fn host_link(name: &str) -> String {
    format!("gpg-{name}")
}

/// Name of a node's port on the switch.
pub(super) fn port_of(number: usize) -> String {
    format!("n{number}")
}

/// Makes the bridge and the host's end.
pub(super) fn make_switch(playground: &Playground) -> Result<(), Error> {
    let host = NetNs::current()?;
    let switch = playground.switch.netns()?;
    let name = host_link(&playground.name);
    // Made inside the switch with its peer in the host: so the host's namespace sees the link only when it is whole.
    inside(&switch, "make the switch", |socket| {
        socket.request(NewLink { up: true, ..NewLink::new(BRIDGE, Kind::Bridge) }.message())?;
        let bridge = index(socket, BRIDGE)?;
        let peer = Peer { name: &name, netns: Some(host.as_fd()), mac: None, mtu: None };
        socket.request(
            NewLink { up: true, master: Some(bridge), ..NewLink::new("host", Kind::Veth(peer)) }.message(),
        )
    })?;
    configure(&host, &name, playground.outside, None)
}

/// Connects a node with the switch and gives it its address; the host is its way out.
pub(super) fn plug_in(playground: &Playground, number: usize) -> Result<(), Error> {
    let switch = playground.switch.netns()?;
    let node = playground.node(number)?;
    let netns = node.holder.netns()?;
    inside(&switch, "connect a node with the switch", |socket| {
        let bridge = index(socket, BRIDGE)?;
        let peer = Peer { name: "eth0", netns: Some(netns.as_fd()), mac: None, mtu: None };
        let port = port_of(number);
        socket.request(
            NewLink { up: true, master: Some(bridge), ..NewLink::new(&port, Kind::Veth(peer)) }.message(),
        )
    })?;
    configure(&netns, "eth0", node.address, Some(playground.outside))
}

/// Removes the host's end at once. The kernel takes it away with the switch's namespace as well, but some time later.
pub(super) fn remove_host_end(name: &str) -> Result<(), Error> {
    let link = host_link(name);
    let outcome = Socket::route().and_then(|mut socket| match socket.link(&link)? {
        Some(_) => socket.request(link::delete(&link)),
        None => Ok(()),
    });
    match outcome {
        // It went between the look and the removal.
        Err(error) if error.is_missing() => Ok(()),
        other => other.map_err(|source| Error::Link { act: format!("remove {link}"), source }),
    }
}

fn configure(netns: &NetNs, name: &str, address: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Result<(), Error> {
    inside(netns, &format!("configure {name} with {address}/{PREFIX}"), |socket| {
        let link = index(socket, name)?;
        set_up(socket, "lo")?;
        socket.request(Address { link, ip: IpAddr::V4(address), prefix: PREFIX }.add())?;
        set_up(socket, name)?;
        gateway.map_or(Ok(()), |gateway| socket.request(Route::default_via(gateway.into(), link).add()))
    })
}

fn set_up(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let index = index(socket, name)?;
    socket.request(link::change(index, Change { up: Some(true), ..Change::default() }))
}

/// Takes a node's port on the switch up or down.
pub(super) fn set_port(playground: &Playground, number: usize, up: bool) -> Result<(), Error> {
    let port = port_of(playground.node(number)?.number);
    inside(&playground.switch.netns()?, &format!("take port {port} of the switch up or down"), |socket| {
        let index = index(socket, &port)?;
        socket.request(link::change(index, Change { up: Some(up), ..Change::default() }))
    })
}

fn index(socket: &mut Socket, name: &str) -> Result<u32, NetlinkError> {
    // A link that is not there has index 0; the kernel's answer to that names the request.
    Ok(socket.link(name)?.map_or(0, |l| l.index))
}

/// Runs requests with a socket inside a namespace.
pub(super) fn inside(
    netns: &NetNs,
    act: &str,
    requests: impl FnOnce(&mut Socket) -> Result<(), NetlinkError> + Send,
) -> Result<(), Error> {
    let outcome = netns.run(|| Socket::route().and_then(|mut socket| requests(&mut socket)))?;
    outcome.map_err(|source| Error::Link { act: act.to_owned(), source })
}
