//! Insecure registries: those that an administrator trusts without a valid certificate, and loopback.

use std::collections::HashSet;
use std::net::IpAddr;

/// Registries whose certificate is not verified and that may speak plain http: those configured, and loopback.
#[derive(Clone, Debug, Default)]
pub struct InsecureRegistries {
    hosts: HashSet<String>,
    networks: Vec<(IpAddr, u8)>,
}

impl InsecureRegistries {
    /// Takes entries of the form `host`, `host:port` or `address/prefix`, as in Docker's `insecure-registries`.
    pub fn new<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> InsecureRegistries {
        let mut registries = InsecureRegistries::default();
        for entry in entries {
            let entry = entry.as_ref();
            match parse_network(entry) {
                Some(network) => registries.networks.push(network),
                None => drop(registries.hosts.insert(entry.to_ascii_lowercase())),
            }
        }
        registries
    }

    /// Whether this registry (`host[:port]`) was configured to be insecure.
    pub fn names(&self, domain: &str) -> bool {
        let (host, port) = split_port(domain);
        let domain = domain.to_ascii_lowercase();
        if self.hosts.contains(&domain) || (port.is_some() && self.hosts.contains(&host.to_ascii_lowercase()))
        {
            return true;
        }
        let address = address_of(host);
        address.is_some_and(|address| self.networks.iter().any(|network| within(address, *network)))
    }

    /// Whether this registry may do without a valid certificate: it is configured so, or on loopback.
    pub fn allows(&self, domain: &str) -> bool {
        self.names(domain) || is_loopback(domain)
    }

    /// The entries, sorted, as `docker info` shows them.
    pub fn entries(&self) -> Vec<String> {
        let networks = self.networks.iter().map(|(address, prefix)| format!("{address}/{prefix}"));
        let mut entries: Vec<String> = self.hosts.iter().cloned().chain(networks).collect();
        entries.sort();
        entries
    }
}

/// Whether a registry (`host[:port]`) is on this host.
pub(super) fn is_loopback(domain: &str) -> bool {
    let (host, _) = split_port(domain);
    host.eq_ignore_ascii_case("localhost") || address_of(host).is_some_and(|address| address.is_loopback())
}

/// `address/prefix`.
pub(super) fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

/// The address that a host is written as, with or without brackets.
pub(super) fn address_of(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

pub(super) fn within(address: IpAddr, (network, prefix): (IpAddr, u8)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let width = if network.is_ipv4() { 32 } else { 128 };
    let shift = 128 - u32::from(prefix.min(width));
    let same = bits(address) ^ bits(network);
    address.is_ipv4() == network.is_ipv4() && (shift == 128 || same >> shift == 0)
}

/// Host and port of an authority; brackets of IPv6 stay.
pub(super) fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_configured_registries_need_no_valid_certificate() {
        let insecure = InsecureRegistries::new(["reg.example:5000", "plain.example", "10.0.0.0/8"]);
        for host in [
            "localhost:5000",
            "127.0.0.9",
            "[::1]:80",
            "reg.example:5000",
            "plain.example:1",
            "10.2.3.4:5000",
        ] {
            assert!(insecure.allows(host), "{host}");
        }
        for host in ["docker.io", "reg.example", "11.0.0.1:5000", "localhost.example"] {
            assert!(!insecure.allows(host), "{host}");
        }
        assert!(!insecure.names("localhost:5000"), "nobody named it");
    }
}
