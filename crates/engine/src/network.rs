//! A container's networks: which it asks for, which ports it publishes, and what is kept of them.

use crate::error::{Error, Result, parameter};
use crate::record::Record;
use gantry_model::container::{ContainerConfig, HostConfig, NetworkingConfig, PortBinding, PortMap};
use gantry_model::id::ContainerId;
use gantry_model::network::EndpointSettings;
use gantry_model::overlay::Transport;
use gantry_network::{Attachment, DnsSettings, Endpoint, NetworkError, PortSpec, Sandbox};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Gives containers places in networks that this node does not know by itself: those of the cluster.
pub trait NetworkSource: Send + Sync + 'static {
    /// Asks for a place. `network` is a name or id as in the endpoint. `None`: no such network. `Some`: the network is
    /// now known to [`gantry_network::Networks`], and the settings hold its id, the address, the prefix and the MAC address.
    fn attach<'a>(
        &'a self,
        network: &'a str,
        container: &'a ContainerId,
        names: Vec<String>,
        wanted: &'a EndpointSettings,
    ) -> BoxFuture<'a, std::result::Result<Option<EndpointSettings>, String>>;

    /// Tells by which names a container is found that has a place.
    fn rename<'a>(
        &'a self,
        network_id: &'a str,
        container: &'a ContainerId,
        names: Vec<String>,
    ) -> BoxFuture<'a, std::result::Result<(), String>>;

    /// Gives the place back.
    fn detach<'a>(&'a self, network_id: &'a str, container: &'a ContainerId) -> BoxFuture<'a, ()>;
}

/// The label of containers whose addresses the cluster has already given.
pub(crate) const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// What `--network` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The host's namespace.
    Host,
    /// That of another container.
    Container(String),
    /// A sandbox of its own.
    Own,
}

/// Reads a network mode.
pub(crate) fn mode(text: &str) -> Result<Mode> {
    match text.split_once(':') {
        Some(("container", id)) if !id.is_empty() => Ok(Mode::Container(id.to_owned())),
        Some(("container", _)) => Err(parameter("Container Mode requires a container ID or name")),
        _ if text == "host" => Ok(Mode::Host),
        _ => Ok(Mode::Own),
    }
}

/// The endpoints of a new container: the network of its mode, and those it names besides.
pub(crate) fn endpoints(
    network_mode: &str,
    config: &NetworkingConfig,
    mac: &str,
    canonical: impl Fn(&str) -> Option<(String, String)>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    let named =
        |reference: &str| canonical(reference).unwrap_or_else(|| (reference.to_owned(), String::new()));
    let mut all = BTreeMap::new();
    for (reference, settings) in &config.endpoints_config {
        let (name, id) = named(reference);
        let mut settings = settings.clone().unwrap_or_default();
        settings.network_id = id;
        all.insert(name, settings);
    }
    let main = match mode(network_mode)? {
        Mode::Container(_) => {
            if !all.is_empty() {
                return Err(parameter(
                    "conflicting options: a container that shares a network namespace can't join networks",
                ));
            }
            return Ok(all);
        }
        Mode::Host => "host",
        Mode::Own => match network_mode {
            "" | "default" => "bridge",
            other => other,
        },
    };
    let (main, id) = named(main);
    let settings = all.entry(main.clone()).or_default();
    settings.network_id = id;
    if !mac.is_empty() && settings.mac_address.is_empty() {
        mac.clone_into(&mut settings.mac_address);
    }
    if matches!(main.as_str(), "host" | "none") && all.len() > 1 {
        return Err(parameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) or host mode",
        ));
    }
    check(&main, &all[&main])?;
    Ok(all)
}

/// Refuses what a container in another's network namespace would silently not get: these are the other's to set.
pub(crate) fn check_shared(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(parameter("conflicting options: hostname and the UTS mode"));
    }
    if !matches!(mode(&host.network_mode)?, Mode::Container(_)) {
        return Ok(());
    }
    let conflict = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (!host.dns.is_empty(), "dns and the network mode"),
        (!host.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "mac-address and the network mode"),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (!config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    match conflict.iter().find(|(is, _)| *is) {
        Some((_, what)) => Err(parameter(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

pub(crate) fn check(network: &str, settings: &EndpointSettings) -> Result<()> {
    if let Some(ipam) = &settings.ipam_config
        && !ipam.ipv4_address.is_empty()
    {
        if ipam.ipv4_address.parse::<Ipv4Addr>().is_err() {
            return Err(parameter(format!("invalid IPv4 address: {}", ipam.ipv4_address)));
        }
        if matches!(network, "bridge" | "host" | "none") {
            return Err(parameter(format!(
                "invalid config for network {network}: invalid endpoint settings: user specified IP address is supported on user defined networks only"
            )));
        }
    }
    Ok(())
}

/// The ports to publish.
pub(crate) fn ports(record: &Record) -> Result<Vec<PortSpec>> {
    let mut list = Vec::new();
    for (port, bindings) in &record.host.port_bindings {
        let (number, protocol) = container_port(port)?;
        let default = [PortBinding::default()];
        let bindings = bindings.as_deref().filter(|b| !b.is_empty()).unwrap_or(&default);
        for binding in bindings {
            list.extend(port_spec(binding, number, protocol)?);
        }
    }
    if record.host.publish_all_ports {
        for port in record.config.exposed_ports.keys() {
            if !record.host.port_bindings.contains_key(port) {
                let (container_port, protocol) = container_port(port)?;
                list.push(PortSpec { host_ip: None, host_ports: (0, 0), container_port, protocol });
            }
        }
    }
    Ok(list)
}

fn container_port(text: &str) -> Result<(u16, Transport)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let bad = || parameter(format!("invalid port specification: \"{text}\""));
    let protocol = match protocol {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => {
            return Err(parameter(format!(
                "invalid protocol in port \"{text}\": tcp and udp can be published"
            )));
        }
    };
    match number.parse() {
        Ok(0) | Err(_) => Err(bad()),
        Ok(number) => Ok((number, protocol)),
    }
}

fn port_spec(binding: &PortBinding, container_port: u16, protocol: Transport) -> Result<Option<PortSpec>> {
    let text = binding.host_port.as_str();
    let bad = || parameter(format!("invalid port specification: \"{text}\""));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |n: &str| if n.is_empty() { Ok(0) } else { n.parse::<u16>().map_err(|_| bad()) };
    let host_ip = match binding.host_ip.as_str() {
        "" | "0.0.0.0" => None,
        ip => match ip.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(ip)) => Some(ip),
            // "All addresses" of IPv6 comes beside that of IPv4; published ports are IPv4 here.
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => return Ok(None),
            Ok(IpAddr::V6(_)) => {
                return Err(parameter(format!(
                    "invalid host IP {ip}: ports are published on IPv4 addresses only"
                )));
            }
            Err(_) => return Err(parameter(format!("invalid IP address: {ip}"))),
        },
    };
    let host_ports = (number(from)?, number(to)?);
    if host_ports.0 > host_ports.1 {
        return Err(bad());
    }
    Ok(Some(PortSpec { host_ip, host_ports, container_port, protocol }))
}

/// What the API shows as ports: published ones with their addresses, exposed ones with null.
pub(crate) fn port_map(record: &Record, sandbox: &Sandbox) -> PortMap {
    let mut map: PortMap = record.config.exposed_ports.keys().map(|port| (normal_port(port), None)).collect();
    for port in &sandbox.ports {
        let key = format!("{}/{}", port.container_port, port.protocol);
        let binding =
            PortBinding { host_ip: port.host_ip.to_string(), host_port: port.host_port.to_string() };
        map.entry(key).or_default().get_or_insert_default().push(binding);
    }
    map
}

fn normal_port(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

pub(crate) fn attachment(name: &str, settings: &EndpointSettings) -> Result<Attachment> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let address = match ipam.ipv4_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| parameter(format!("invalid IPv4 address: {text}")))?),
    };
    Ok(Attachment {
        network: if settings.network_id.is_empty() { name.to_owned() } else { settings.network_id.clone() },
        address,
        mac: (!settings.mac_address.is_empty()).then(|| settings.mac_address.clone()),
        names: settings.aliases.clone().unwrap_or_default(),
        links: settings.links.iter().flatten().map(|text| link(text)).collect::<Result<_>>()?,
        priority: settings.gw_priority,
    })
}

/// `container[:alias]` as alias and container.
pub(crate) fn link(text: &str) -> Result<(String, String)> {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    // Inspections of others write `/web:/app/alias`.
    let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    match (bare(container), bare(alias)) {
        (container, alias) if container.is_empty() || alias.is_empty() || alias.contains(':') => {
            Err(parameter(format!("bad format for links: {text}")))
        }
        (container, alias) => Ok((alias, container)),
    }
}

/// Moves links of the host configuration to the network that they are about; in the default bridge they would be Docker's old ones,
/// with variables and an order of starts, which there are not.
pub(crate) fn place_links(
    host: &HostConfig,
    endpoints: &mut BTreeMap<String, EndpointSettings>,
) -> Result<()> {
    if host.links.is_empty() {
        return Ok(());
    }
    match mode(&host.network_mode)? {
        Mode::Container(_) => return Err(conflicting_links("container type network")),
        Mode::Host => return Err(conflicting_links("host type networking")),
        Mode::Own if matches!(host.network_mode.as_str(), "" | "default" | "bridge" | "none") => {
            return Err(parameter(
                "legacy links are not supported on the default network: put both containers into a network of your own",
            ));
        }
        Mode::Own => {}
    }
    let main = endpoints
        .iter()
        .find(|(name, e)| **name == host.network_mode || e.network_id == host.network_mode)
        .or(endpoints.first_key_value());
    let Some(main) = main.map(|(name, _)| name.clone()) else { return Ok(()) };
    let links = endpoints.entry(main).or_default().links.get_or_insert_default();
    for text in &host.links {
        link(text)?;
        if !links.contains(text) {
            links.push(text.clone());
        }
    }
    Ok(())
}

fn conflicting_links(what: &str) -> Error {
    parameter(format!(
        "conflicting options: {what} can't be used with links. This would result in undefined behavior"
    ))
}

/// The part of an endpoint that was asked, without what a run gave it. A MAC address that the network derived is not kept.
pub(crate) fn asked(settings: &EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: settings.ipam_config.clone(),
        links: settings.links.clone(),
        aliases: settings.aliases.clone(),
        driver_opts: settings.driver_opts.clone(),
        gw_priority: settings.gw_priority,
        network_id: settings.network_id.clone(),
        mac_address: if settings.endpoint_id.is_empty() {
            settings.mac_address.clone()
        } else {
            String::new()
        },
        ..EndpointSettings::default()
    }
}

pub(crate) fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.id);
    settings.mac_address.clone_from(&endpoint.mac);
    settings.gateway = endpoint.gateway.map(|g| g.to_string()).unwrap_or_default();
    settings.ip_address = endpoint.address.map(|a| a.to_string()).unwrap_or_default();
    settings.ip_prefix_len = endpoint.prefix;
    settings.dns_names =
        (!matches!(endpoint.network_name.as_str(), "bridge" | "none")).then(|| endpoint.names.clone());
}

/// Writes an endpoint into the container's networks, under the network's name: the user may have named it by its id.
pub(crate) fn keep_endpoint(networks: &mut BTreeMap<String, EndpointSettings>, endpoint: &Endpoint) {
    let fits = |(name, e): &(&String, &EndpointSettings)| {
        **name == endpoint.network_name
            || **name == endpoint.network_id
            || e.network_id == endpoint.network_id
    };
    let key = networks.iter().find(fits).map(|(name, _)| name.clone());
    let mut settings = key.and_then(|key| networks.remove(&key)).unwrap_or_default();
    fill(&mut settings, endpoint);
    networks.insert(endpoint.network_name.clone(), settings);
}

/// An error of the network layer as one of ours.
pub(crate) fn error(error: NetworkError) -> Error {
    let text = crate::error::whole(&error);
    match error.kind() {
        gantry_network::ErrorKind::NotFound => Error::NetworkNotFound(text),
        gantry_network::ErrorKind::Invalid => Error::Parameter(text),
        gantry_network::ErrorKind::Conflict => Error::Conflict(text),
        gantry_network::ErrorKind::Forbidden => Error::Forbidden(text),
        gantry_network::ErrorKind::Internal => Error::Network(text),
    }
}

/// The host name inside: the asked one, else the short id.
pub(crate) fn hostname(record: &Record) -> String {
    if record.config.hostname.is_empty() {
        record.id.short().to_owned()
    } else {
        record.config.hostname.clone()
    }
}

pub(crate) fn extra_hosts(record: &Record) -> Result<Vec<(String, String)>> {
    record
        .host
        .extra_hosts
        .iter()
        .map(|line| match line.split_once([':', '=']) {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                let address = address.trim_matches(['[', ']']);
                if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                    return Err(parameter(format!("invalid IP address in add-host: {address:?}")));
                }
                Ok((name.to_owned(), address.to_owned()))
            }
            _ => Err(parameter(format!("bad format for add-host: \"{line}\""))),
        })
        .collect()
}

/// /etc/resolv.conf and /etc/hosts for a container in the host's network: the host's own, with what it asks besides.
pub(crate) fn host_texts(record: &Record, dns: &DnsSettings) -> (String, String) {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let overridden = !(dns.servers.is_empty() && dns.search.is_empty() && dns.options.is_empty());
    let resolv = if overridden { merged_resolv_conf(&own, dns) } else { own };
    let mut hosts =
        std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1\tlocalhost\n".to_owned());
    for (name, address) in extra_hosts(record).unwrap_or_default() {
        let address = if address == "host-gateway" { "127.0.0.1".to_owned() } else { address };
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    (resolv, hosts)
}

fn merged_resolv_conf(own: &str, dns: &DnsSettings) -> String {
    let kept = |word: &str, replaced: bool| -> Vec<String> {
        own.lines().filter(|line| !replaced && line.starts_with(word)).map(str::to_owned).collect()
    };
    let mut lines = kept("nameserver", !dns.servers.is_empty());
    lines.extend(dns.servers.iter().map(|ip| format!("nameserver {ip}")));
    lines.extend(kept("search", !dns.search.is_empty()));
    if !dns.search.is_empty() && dns.search != ["."] {
        lines.push(format!("search {}", dns.search.join(" ")));
    }
    lines.extend(kept("options", !dns.options.is_empty()));
    if !dns.options.is_empty() {
        lines.push(format!("options {}", dns.options.join(" ")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<(String, String)> {
        None
    }

    #[test]
    fn the_mode_decides_the_first_network() {
        let empty = NetworkingConfig::default();
        let names = |mode: &str| endpoints(mode, &empty, "", none).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(names(""), ["bridge"]);
        assert_eq!(names("default"), ["bridge"]);
        assert_eq!(names("front"), ["front"]);
        assert_eq!(names("host"), ["host"]);
        assert!(names("container:x").is_empty());
        assert!(mode("container:").is_err());
    }

    #[test]
    fn links_are_names_in_the_network_of_the_mode() {
        assert_eq!(link("db:database").unwrap(), ("database".to_owned(), "db".to_owned()));
        assert_eq!(link("db").unwrap(), ("db".to_owned(), "db".to_owned()));
        assert_eq!(link("/db:/app/alias").unwrap(), ("alias".to_owned(), "db".to_owned()));
        for bad in ["", ":", "db:", ":x", "a:b:c"] {
            assert!(link(bad).is_err(), "{bad}");
        }
        let placed = |mode: &str| {
            let host = HostConfig {
                network_mode: mode.to_owned(),
                links: vec!["db:database".to_owned()],
                ..HostConfig::default()
            };
            let mut all = endpoints(mode, &NetworkingConfig::default(), "", none).unwrap();
            place_links(&host, &mut all).map(|()| all.into_values().find_map(|endpoint| endpoint.links))
        };
        assert_eq!(placed("front").unwrap(), Some(vec!["db:database".to_owned()]));
        for mode in ["", "bridge", "none", "host", "container:x"] {
            assert!(placed(mode).is_err(), "{mode}");
        }
    }

    #[test]
    fn what_the_other_container_sets_is_refused() {
        let of = |mode: &str, change: fn(&mut ContainerConfig, &mut HostConfig)| {
            let mut host = HostConfig { network_mode: mode.to_owned(), ..HostConfig::default() };
            let mut config = ContainerConfig::default();
            change(&mut config, &mut host);
            check_shared(&config, &host)
        };
        let changes: [fn(&mut ContainerConfig, &mut HostConfig); 6] = [
            |c, _| c.hostname = "x".into(),
            |_, h| h.dns = vec!["1.1.1.1".into()],
            |_, h| h.extra_hosts = vec!["a:1.1.1.1".into()],
            |_, h| drop(h.port_bindings.insert("80/tcp".into(), None)),
            |_, h| h.publish_all_ports = true,
            |c, _| c.exposed_ports = [("80/tcp".into(), Default::default())].into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(of("container:x", change).is_err(), "{number}");
            assert!(of("front", change).is_ok(), "{number}");
        }
        assert!(of("container:x", |_, _| ()).is_ok());
        let named = |c: &mut ContainerConfig, h: &mut HostConfig| {
            c.hostname = "x".into();
            h.uts_mode = "host".into();
        };
        assert!(of("front", named).is_err());
    }

    #[test]
    fn ports_are_read_with_ranges_and_addresses() {
        let binding =
            |ip: &str, port: &str| PortBinding { host_ip: ip.to_owned(), host_port: port.to_owned() };
        let read = |ip: &str, port: &str| port_spec(&binding(ip, port), 80, Transport::Tcp);
        assert_eq!(read("", "8080").unwrap().unwrap().host_ports, (8080, 8080));
        assert_eq!(read("127.0.0.1", "1-5").unwrap().unwrap().host_ports, (1, 5));
        assert_eq!(read("", "").unwrap().unwrap().host_ports, (0, 0));
        assert_eq!(read("::", "80").unwrap(), None);
        for (ip, port) in [("x", "80"), ("", "http"), ("", "5-1"), ("", "70000")] {
            assert!(read(ip, port).is_err(), "{ip} {port}");
        }
        assert!(container_port("80/icmp").is_err() && container_port("0").is_err());
    }
}
