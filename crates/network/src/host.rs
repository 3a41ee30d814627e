//! The node's side of the kernel: the netlink sockets of the node's namespace and what is done through them.

use crate::definition::Bridge;
use crate::error::{NetworkError, Result, kernel};
use crate::firewall::{self, NodeRules, Start};
use gantry_linux::netlink::address::Address;
use gantry_linux::netlink::link::{Change, Kind, Link, Mac, NewLink, Peer, Port, change, configure_port};
use gantry_linux::netlink::route::Route;
use gantry_linux::netlink::{Message, Socket};
use gantry_linux::netns::NetNs;
use gantry_linux::{nft, sysctl};
use gantry_model::overlay::Subnet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Mutex;

/// The node's namespace. All calls may come from any thread, in whatever namespace that thread is.
#[derive(Debug)]
pub struct Host {
    netns: NetNs,
    identity: (u64, u64),
    route: Mutex<Socket>,
    netfilter: Mutex<Socket>,
    table: String,
}

/// A container's end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// The node's end.
    pub link: &'a str,
    /// The container's end.
    pub interface: &'a str,
    /// MAC of the container's end.
    pub mac: Mac,
    /// Largest packet.
    pub mtu: u32,
    /// Bridge.
    pub bridge: &'a str,
    /// Settings of the bridge port.
    pub port: Port,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while a socket was held leaves at worst unread answers, which later requests skip by sequence number.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Host {
    /// Takes the calling thread's namespace as the node's.
    pub fn open(table: &str) -> Result<Self> {
        let netns = NetNs::current()?;
        Ok(Self {
            identity: netns.identity()?,
            netns,
            route: Mutex::new(Socket::route().map_err(kernel("of this node"))?),
            netfilter: Mutex::new(Socket::netfilter().map_err(kernel("of this node"))?),
            table: table.to_owned(),
        })
    }

    /// The node's namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Name of our table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Runs `f` in the node's namespace; on the calling thread, where that is there already.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        if NetNs::current()?.identity()? == self.identity { Ok(f()) } else { Ok(self.netns.run(f)?) }
    }

    /// Uses the rtnetlink socket.
    pub fn route<T>(
        &self,
        object: &str,
        f: impl FnOnce(&mut Socket) -> Result<T, gantry_linux::netlink::Error>,
    ) -> Result<T> {
        f(&mut lock(&self.route)).map_err(kernel(object))
    }

    /// Uses the netfilter socket.
    pub fn netfilter<T>(
        &self,
        f: impl FnOnce(&mut Socket) -> Result<T, gantry_linux::netlink::Error>,
    ) -> Result<T> {
        f(&mut lock(&self.netfilter)).map_err(kernel("packet filter"))
    }

    /// Opens one more netfilter socket, for work that takes long.
    pub fn netfilter_socket(&self) -> Result<Socket> {
        self.run(Socket::netfilter)?.map_err(kernel("of this node"))
    }

    /// Writes the node's table. A table of another form, left by another version, is replaced as a whole.
    pub fn write_table(&self, rules: &NodeRules) -> Result<()> {
        self.netfilter(|socket| {
            let Err(error) = firewall::table(&self.table, rules, Start::Keep).commit(socket) else { return Ok(()) };
            tracing::warn!(table = self.table, %error, "the nftables table has another form; replacing it with its user chain");
            firewall::table(&self.table, rules, Start::Fresh).commit(socket)
        })
    }

    /// Removes the node's table.
    pub fn remove_table(&self) -> Result<()> {
        self.netfilter(|socket| {
            let mut t = nft::Transaction::new(nft::Family::Ip, &self.table);
            t.table().delete_table();
            t.commit(socket)
        })
    }

    /// A link by name.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        self.route(name, |socket| socket.link(name))
    }

    /// All subnets that links and routes of the node have, default routes left out.
    pub fn used_subnets(&self) -> Result<Vec<Subnet>> {
        self.route("routes", |socket| {
            let routes = socket.routes()?;
            Ok(routes.iter().filter(|r| r.prefix > 0 && !r.local).filter_map(four).collect())
        })
    }

    /// The largest packet of the link towards the others: the link that has `address`, else that of the default route.
    pub fn uplink_mtu(&self, address: Option<IpAddr>) -> Result<u32> {
        self.route("uplink", |socket| {
            let links = socket.links()?;
            let by_address = match address {
                Some(wanted) => socket.addresses()?.into_iter().find(|a| a.ip == wanted).map(|a| a.link),
                None => None,
            };
            let index = match by_address {
                Some(index) => Some(index),
                None => socket
                    .routes()?
                    .into_iter()
                    .find(|r| r.prefix == 0 && r.destination.is_ipv4())
                    .map(|r| r.link),
            };
            let link = links.into_iter().find(|link| Some(link.index) == index && link.name != "lo");
            Ok(link.map_or(1500, |link| link.mtu.clamp(576, 65535)))
        })
    }

    /// Makes a bridge as it should be, or corrects it.
    pub fn ensure_bridge(&self, bridge: &Bridge, mtu: u32, mac: Option<Mac>, alias: &str) -> Result<()> {
        let name = bridge.link.as_str();
        let link = self.route(name, |socket| {
            if socket.link(name)?.is_none() {
                let new = NewLink { mtu: Some(mtu), mac, up: true, ..NewLink::new(name, Kind::Bridge) };
                match socket.request(new.message()) {
                    Err(error) if !error.is_exists() => return Err(error),
                    _ => {}
                }
            }
            socket.link(name)
        })?;
        let Some(link) = link else { return Err(NetworkError::Invalid(format!("link {name} vanished"))) };
        if link.kind != "bridge" {
            return Err(NetworkError::Invalid(format!(
                "link {name} exists and is no bridge but {:?}",
                link.kind
            )));
        }
        self.configure_bridge(&link, bridge, mtu, alias)
    }

    fn configure_bridge(&self, link: &Link, bridge: &Bridge, mtu: u32, alias: &str) -> Result<()> {
        let name = bridge.link.as_str();
        let wanted = Address {
            link: link.index,
            ip: IpAddr::V4(bridge.layout.gateway),
            prefix: bridge.layout.subnet.prefix(),
        };
        self.route(name, |socket| {
            let others: Vec<Address> =
                socket.addresses()?.into_iter().filter(|a| a.link == link.index).collect();
            let mut batch: Vec<Message> = Vec::new();
            // Only addresses of an older form of this network; a bridge that the user made may have more.
            let stale = |a: &&Address| a.ip.is_ipv4() && **a != wanted && link.alias == alias;
            batch.extend(others.iter().filter(stale).map(Address::delete));
            if !others.contains(&wanted) {
                batch.push(wanted.add());
            }
            let alias = (link.alias.is_empty()).then_some(alias);
            if link.mtu != mtu || !link.up || alias.is_some() {
                batch.push(change(
                    link.index,
                    Change { up: Some(true), mtu: Some(mtu), alias, ..Change::default() },
                ));
            }
            if batch.is_empty() { Ok(()) } else { first(socket.batch(batch)?) }
        })?;
        self.run(|| relax(name))?
    }

    /// Lets packets through this host, in and out of the link.
    pub fn enable_forwarding(&self) -> Result<()> {
        self.run(|| {
            if sysctl::read("net.ipv4.ip_forward")? != "1" {
                sysctl::write("net.ipv4.ip_forward", "1")?;
            }
            Ok(())
        })?
    }

    /// Settings of a tunnel link as [`Host::ensure_bridge`] makes them for bridges.
    pub fn relax_link(&self, name: &str) -> Result<()> {
        self.run(|| relax(name))?
    }

    /// Deletes links in one go.
    pub fn delete_links(&self, names: &[String]) -> Result<()> {
        self.route("links", |socket| socket.delete_links(names))
    }

    /// Makes a veth pair with one end on a bridge and the other in a sandbox.
    pub fn plug(&self, sandbox: &NetNs, plug: Plug<'_>) -> Result<()> {
        let Some(bridge) = self.link(plug.bridge)? else {
            return Err(NetworkError::NoBridge(plug.bridge.to_owned()));
        };
        self.route(plug.link, |socket| {
            let peer = Peer {
                name: plug.interface,
                netns: Some(sandbox.as_fd()),
                mac: Some(plug.mac),
                mtu: Some(plug.mtu),
            };
            let veth = NewLink {
                mtu: Some(plug.mtu),
                master: Some(bridge.index),
                up: true,
                ..NewLink::new(plug.link, Kind::Veth(peer))
            };
            socket.request(veth.message())?;
            if plug.port != Port::default()
                && let Some(link) = socket.link(plug.link)?
            {
                socket.request(configure_port(link.index, plug.port))?;
            }
            Ok(())
        })
    }

    /// Makes a macvlan link on a parent, inside a sandbox.
    pub fn plug_macvlan(
        &self,
        sandbox: &NetNs,
        parent: &str,
        mode: u32,
        interface: &str,
        mac: Mac,
    ) -> Result<()> {
        let Some(parent_link) = self.link(parent)? else {
            return Err(NetworkError::Invalid(format!("macvlan parent link {parent} does not exist")));
        };
        let kind = Kind::Macvlan { parent: parent_link.index, mode };
        self.route(parent, |socket| {
            // The name is taken inside only; outside it lasts for the moment of the request.
            socket.request(
                NewLink { mac: Some(mac), netns: Some(sandbox.as_fd()), ..NewLink::new(interface, kind) }
                    .message(),
            )
        })
    }
}

fn four(route: &Route) -> Option<Subnet> {
    match route.destination {
        IpAddr::V4(ip) => Some(Subnet::new(ip, route.prefix).network()),
        IpAddr::V6(_) => None,
    }
}

/// The first refusal of a batch.
pub fn first(refused: Vec<gantry_linux::netlink::Error>) -> Result<(), gantry_linux::netlink::Error> {
    refused.into_iter().next().map_or(Ok(()), Err)
}

/// `route_localnet` for 127.0.0.1:PORT, and no strict check of source addresses: replies of the mesh come from bridges and
/// tunnels on which the node has no route to their source. 2 (loose) only where the host's own default asks for a check.
fn relax(link: &str) -> Result<()> {
    let all = sysctl::read("net/ipv4/conf/all/rp_filter")?;
    sysctl::write(&format!("net/ipv4/conf/{link}/rp_filter"), if all == "0" { "0" } else { "2" })?;
    sysctl::write(&format!("net/ipv4/conf/{link}/route_localnet"), "1")?;
    Ok(())
}

/// Gives the interfaces of a sandbox their addresses. `socket` belongs to the sandbox.
pub fn configure_interface(socket: &mut Socket, setup: &InterfaceSetup) -> Result<()> {
    let object = setup.interface.as_str();
    let link = socket.link(object).map_err(kernel(object))?;
    let Some(link) = link else {
        return Err(NetworkError::Invalid(format!("interface {object} is not in its sandbox")));
    };
    let mut batch = Vec::new();
    if let Some((ip, prefix)) = setup.address {
        batch.push(Address { link: link.index, ip: IpAddr::V4(ip), prefix }.add());
    }
    batch.push(change(link.index, Change { up: Some(true), mtu: setup.mtu, ..Change::default() }));
    if setup.loopback {
        batch.push(change(1, Change { up: Some(true), ..Change::default() }));
    }
    if let Some(gateway) = setup.default_gateway {
        batch.push(Route::default_via(IpAddr::V4(gateway), link.index).add());
    }
    let refused = socket.batch(batch).map_err(kernel(object))?;
    first(refused).map_err(kernel(object))
}

/// What an interface of a sandbox gets.
#[derive(Debug, Clone)]
pub struct InterfaceSetup {
    /// Name.
    pub interface: String,
    /// Address and prefix.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Default route.
    pub default_gateway: Option<Ipv4Addr>,
    /// Largest packet, where it differs from what the link was made with.
    pub mtu: Option<u32>,
    /// Also start the loopback link.
    pub loopback: bool,
}

/// Deletes connections to and from addresses that were given back: the next owner must not get their packets. Only UDP, since
/// TCP resets by itself. In the background, with a socket of its own: a host may have very many connections to look through.
pub fn forget_connections(host: &Host, gone: Vec<Ipv4Addr>) {
    let forget = move |mut socket: Socket| {
        socket.delete_connections(|e| {
            e.original.protocol == 17
                && (gone.contains(&e.original.source)
                    || gone.contains(&e.original.destination)
                    || gone.contains(&e.reply.source))
        })
    };
    match host.netfilter_socket() {
        Ok(socket) => {
            std::thread::spawn(move || {
                if let Err(error) = forget(socket) {
                    tracing::debug!(%error, "old connections were not deleted");
                }
            });
        }
        Err(error) => tracing::debug!(cause = crate::chain(&error), "old connections were not deleted"),
    }
}
