//! The texts of a container's `/etc/hosts` and `/etc/resolv.conf`. Pure.

use crate::sandbox::{DnsSettings, SandboxSpec};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// The address of the resolver in every sandbox that has one.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The parts of a resolv.conf that we use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads resolv.conf(5); what is not understood is left out.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A link-local server has a zone, which means nothing in another namespace.
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    fn print(&self) -> String {
        let mut text = String::from("# Written by Gantry for this container.\n");
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }

    /// With the container's own settings in place of the node's.
    fn with(mut self, settings: &DnsSettings) -> Self {
        if !settings.servers.is_empty() {
            self.servers.clone_from(&settings.servers);
        }
        if !settings.search.is_empty() {
            self.search = settings.search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if !settings.options.is_empty() {
            self.options.clone_from(&settings.options);
        }
        self
    }
}

/// A resolv.conf for a container that uses the node's servers directly. Servers on the node's loopback can't be reached from a
/// container; if no other is known, public ones stand in, as with Docker.
pub fn direct_resolv_conf(node: &ResolvConf, settings: &DnsSettings) -> String {
    let mut conf = node.clone();
    conf.servers.retain(|server| !server.is_loopback());
    let mut conf = conf.with(settings);
    if conf.servers.is_empty() {
        conf.servers = vec![IpAddr::from([8, 8, 8, 8]), IpAddr::from([8, 8, 4, 4])];
    }
    conf.print()
}

/// A resolv.conf for a container whose resolver is ours.
pub fn own_resolv_conf(node: &ResolvConf, settings: &DnsSettings) -> String {
    let mut conf = node.clone().with(settings);
    conf.servers = vec![IpAddr::V4(RESOLVER)];
    if !conf.options.iter().any(|option| option.starts_with("ndots:")) {
        // Names of containers have no dot; they must be asked for as they are before search domains are tried.
        conf.options.push("ndots:0".to_owned());
    }
    conf.print()
}

/// A container's hosts file.
pub fn hosts(spec: &SandboxSpec, addresses: &[Ipv4Addr], host_gateway: Option<Ipv4Addr>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let hostname =
        if spec.hostname.is_empty() { spec.id.get(..12).unwrap_or(&spec.id) } else { &spec.hostname };
    let names = if spec.domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{} {hostname}", spec.domainname)
    };
    for (name, address) in &spec.extra_hosts {
        let address = match (address.as_str(), host_gateway) {
            ("host-gateway", Some(gateway)) => gateway.to_string(),
            ("host-gateway", None) => continue,
            (text, _) => text.to_owned(),
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    for address in addresses {
        let _ = writeln!(text, "{address}\t{names}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_left_out_unless_the_resolver_is_ours() {
        let node = ResolvConf::parse(
            "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a.example b.example\noptions edns0\n",
        );
        let settings = DnsSettings::default();
        let direct = direct_resolv_conf(&node, &settings);
        assert!(
            direct.contains("nameserver 10.0.0.2\nsearch a.example b.example\noptions edns0\n"),
            "{direct}"
        );
        assert!(!direct.contains("127.0.0.53"));
        let own = own_resolv_conf(&node, &settings);
        assert!(
            own.contains("nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 ndots:0\n"),
            "{own}"
        );
    }

    #[test]
    fn settings_of_the_container_replace_those_of_the_node() {
        let node = ResolvConf::parse("nameserver 10.0.0.2\nsearch a.example\n");
        let settings = DnsSettings {
            servers: vec![IpAddr::from([1, 1, 1, 1])],
            search: vec![".".into()],
            options: vec![],
        };
        let text = direct_resolv_conf(&node, &settings);
        assert!(text.contains("nameserver 1.1.1.1\n") && !text.contains("search"), "{text}");
        assert!(direct_resolv_conf(&ResolvConf::default(), &DnsSettings::default()).contains("8.8.8.8"));
    }

    #[test]
    fn a_hosts_file_names_the_container_and_the_host() {
        let spec = SandboxSpec {
            hostname: "web".into(),
            domainname: "example".into(),
            extra_hosts: vec![("host.docker.internal".into(), "host-gateway".into())],
            ..SandboxSpec::default()
        };
        let text = hosts(&spec, &[Ipv4Addr::new(10, 0, 0, 2)], Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert!(text.contains("10.0.0.2\tweb.example web\n"), "{text}");
        assert!(text.contains("172.17.0.1\thost.docker.internal\n"), "{text}");
    }
}
