//! Addresses as users give them: defaults, ports, and the address with which this host reaches others.

use crate::config::DEFAULT_PORT;
use crate::error::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The address to listen at: `ip`, `ip:port`, or all addresses.
pub fn listen(text: &str) -> Result<SocketAddr> {
    if text.is_empty() {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)));
    }
    parse(text).ok_or_else(|| {
        Error::invalid(format!(
            "invalid ListenAddr {text:?}: it must be a host address with an optional port (ADDR:PORT)"
        ))
    })
}

/// The address that others are told.
pub fn advertise(text: &str, listen: SocketAddr, peer: Option<&str>) -> Result<SocketAddr> {
    if !text.is_empty() {
        let address =
            text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, listen.port())).ok().or_else(|| parse(text));
        let address = address.ok_or_else(|| {
            Error::invalid(format!("advertise address must be a non-zero IP address or network interface (with optional port number), not {text:?}"))
        })?;
        if address.ip().is_unspecified() {
            return Err(Error::invalid(
                "advertise address must be a non-zero IP address or network interface (with optional port number)",
            ));
        }
        return Ok(address);
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let ip = outgoing(peer).ok_or_else(|| {
        Error::invalid("could not choose an IP address to advertise since this system has no route to others - specify one with --advertise-addr")
    })?;
    Ok(SocketAddr::new(ip, listen.port()))
}

/// Where the tunnels end: an IPv4 address, by default that of `advertise`.
pub fn data_path(text: &str, advertise: SocketAddr) -> Result<String> {
    if text.is_empty() {
        return Ok(advertise.ip().to_string());
    }
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => Ok(ip.to_string()),
        _ => Err(Error::invalid(format!("data path address must be a non-zero IP, not {text:?}"))),
    }
}

/// A manager's address from the command line, with the port that it lacks.
pub fn remote(text: &str) -> String {
    if text.parse::<SocketAddr>().is_ok() {
        return text.to_owned();
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{DEFAULT_PORT}"),
        _ if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => text.to_owned(),
        _ => format!("{text}:{DEFAULT_PORT}"),
    }
}

/// The host of `host:port`.
pub fn host(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host.trim_start_matches('[').trim_end_matches(']'))
}

fn parse(text: &str) -> Option<SocketAddr> {
    text.parse::<SocketAddr>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT)))
}

/// The source address that the kernel takes towards a peer. Connecting a UDP socket sends nothing.
fn outgoing(peer: Option<&str>) -> Option<IpAddr> {
    // 192.0.2.1 is set aside for documents (RFC 5737): any address beyond the default route does.
    let target = peer.unwrap_or("192.0.2.1:9");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(target).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_defaults() {
        let all = listen("").expect("default");
        assert_eq!(all.to_string(), "0.0.0.0:2377");
        assert_eq!(listen("127.0.0.5").expect("ip").to_string(), "127.0.0.5:2377");
        assert_eq!(
            advertise("10.1.2.3", "0.0.0.0:99".parse().expect("addr"), None).expect("ip").to_string(),
            "10.1.2.3:99"
        );
        assert_eq!(advertise("10.1.2.3:5", all, None).expect("ip").to_string(), "10.1.2.3:5");
        let one = listen("127.0.0.5:7").expect("ip");
        assert_eq!(advertise("", one, None).expect("listen").to_string(), "127.0.0.5:7");
        assert!(
            advertise("0.0.0.0", all, None).is_err()
                && advertise("eth0", all, None).is_err()
                && listen("eth0").is_err()
        );
        assert_eq!(data_path("", one).expect("advertise"), "127.0.0.5");
        assert!(data_path("x", one).is_err());
    }

    #[test]
    fn remote_addresses_get_a_port() {
        assert_eq!(remote("10.0.0.1"), "10.0.0.1:2377");
        assert_eq!(remote("10.0.0.1:1"), "10.0.0.1:1");
        assert_eq!(remote("manager"), "manager:2377");
        assert_eq!(remote("::1"), "[::1]:2377");
        assert_eq!(host("[::1]:2377"), "::1");
        assert_eq!(host("10.0.0.1:2377"), "10.0.0.1");
    }
}
