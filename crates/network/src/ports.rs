//! Host ports: each published port is held by a bound socket while the daemon lives, so that no process of the host can take
//! it, and a port that one has is noticed at once. The sockets carry no traffic: nftables translates before they are reached.

use crate::error::{NetworkError, Result};
use crate::sandbox::{BoundPort, PortSpec};
use gantry_model::overlay::Transport;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// A port of the host.
type Key = (Transport, u16, Ipv4Addr);

/// The held ports.
#[derive(Debug, Default)]
pub struct Ports {
    held: BTreeMap<Key, Option<OwnedFd>>,
    ingress: BTreeMap<(Transport, u16), Option<OwnedFd>>,
}

impl Ports {
    /// Takes one free port that fits. The calling thread must be in the node's namespace.
    pub fn take(&mut self, spec: &PortSpec, default_ip: Ipv4Addr) -> Result<BoundPort> {
        let host_ip = spec.host_ip.unwrap_or(default_ip);
        let (first, last) = spec.host_ports;
        let mut failure = None;
        for port in first..=last.max(first) {
            match self.take_one(host_ip, port, spec.protocol) {
                Ok(host_port) => {
                    let (container_port, protocol) = (spec.container_port, spec.protocol);
                    return Ok(BoundPort { host_ip, host_port, container_port, protocol });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or(NetworkError::PortAllocated { address: host_ip.to_string(), port: first }))
    }

    /// Takes a port again after a restart. It stays ours even if a process of the host took it meanwhile: the translation still
    /// comes first.
    pub fn retake(&mut self, port: &BoundPort) {
        let socket = hold(port.host_ip, port.host_port, port.protocol).ok().and_then(|(socket, _)| socket);
        self.held.insert((port.protocol, port.host_port, port.host_ip), socket);
    }

    /// Gives a port back.
    pub fn release(&mut self, port: &BoundPort) {
        self.held.remove(&(port.protocol, port.host_port, port.host_ip));
    }

    /// Holds the ports of the routing mesh, and only these. A port that a container or a process of the host has stays with it
    /// too; the log says so.
    pub fn hold_ingress(&mut self, wanted: &BTreeSet<(Transport, u16)>) {
        self.ingress.retain(|key, _| wanted.contains(key));
        for (protocol, port) in wanted {
            if self.ingress.contains_key(&(*protocol, *port)) {
                continue;
            }
            if self.collides(Ipv4Addr::UNSPECIFIED, *port, *protocol) {
                tracing::warn!(port, %protocol, "a container of this node publishes a port of the routing mesh; it is answered first");
            }
            let socket = match hold(Ipv4Addr::UNSPECIFIED, *port, *protocol) {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(port, %protocol, %error, "a port of the routing mesh can't be held; the mesh answers it all the same");
                    None
                }
            };
            self.ingress.insert((*protocol, *port), socket);
        }
    }

    fn take_one(&mut self, ip: Ipv4Addr, port: u16, protocol: Transport) -> Result<u16> {
        let allocated = || NetworkError::PortAllocated { address: ip.to_string(), port };
        if port != 0 && self.collides(ip, port, protocol) {
            return Err(allocated());
        }
        let fail = |errno: Errno| NetworkError::PortBind {
            address: ip.to_string(),
            port,
            protocol: protocol.to_string(),
            source: errno.into(),
        };
        let (socket, got) = hold(ip, port, protocol).map_err(fail)?;
        self.held.insert((protocol, got, ip), socket);
        Ok(got)
    }

    fn collides(&self, ip: Ipv4Addr, port: u16, protocol: Transport) -> bool {
        if self.ingress.contains_key(&(protocol, port)) {
            return true;
        }
        let range = (protocol, port, Ipv4Addr::UNSPECIFIED)..=(protocol, port, Ipv4Addr::BROADCAST);
        self.held
            .range(range)
            .any(|((_, _, other), _)| ip.is_unspecified() || other.is_unspecified() || *other == ip)
    }
}

/// Binds a socket; returns it with its port.
fn hold(ip: Ipv4Addr, port: u16, protocol: Transport) -> rustix::io::Result<(Option<OwnedFd>, u16)> {
    let kind = match protocol {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
        // The kernel may lack SCTP sockets; its ports are then only ours by our own list.
        Transport::Sctp => return if port == 0 { Err(Errno::OPNOTSUPP) } else { Ok((None, port)) },
    };
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if protocol == Transport::Tcp {
        // Old connections in TIME_WAIT must not block the port; and only a listening socket keeps out another that is as
        // generous.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddrV4::new(ip, port))?;
    if protocol == Transport::Tcp {
        rustix::net::listen(&socket, 1)?;
    }
    let bound = SocketAddrV4::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((Some(socket), bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ports: (u16, u16)) -> PortSpec {
        PortSpec {
            host_ip: Some(Ipv4Addr::LOCALHOST),
            host_ports: ports,
            container_port: 80,
            protocol: Transport::Tcp,
        }
    }

    #[test]
    fn a_port_is_given_once_and_comes_back() {
        let mut ports = Ports::default();
        let first = ports.take(&spec((0, 0)), Ipv4Addr::UNSPECIFIED).expect("any");
        let same = (first.host_port, first.host_port);
        let error = ports.take(&spec(same), Ipv4Addr::UNSPECIFIED).expect_err("taken");
        assert_eq!(
            error.to_string(),
            format!("Bind for 127.0.0.1:{} failed: port is already allocated", first.host_port)
        );
        let everywhere = PortSpec { host_ip: None, ..spec(same) };
        assert!(ports.take(&everywhere, Ipv4Addr::UNSPECIFIED).is_err());
        ports.release(&first);
        assert!(ports.take(&spec(same), Ipv4Addr::UNSPECIFIED).is_ok());
    }

    #[test]
    fn a_port_of_a_process_of_the_host_is_noticed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let error = Ports::default().take(&spec((port, port)), Ipv4Addr::UNSPECIFIED).expect_err("in use");
        assert!(
            error.to_string().contains(&format!("failed to bind host port 127.0.0.1:{port}/tcp")),
            "{error}"
        );
    }
}
