//! A container's networks: which it asks for, its sandbox while it runs, and the files that follow from it.

use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, io, parameter};
use crate::events::Event;
use crate::record::Record;
use gantry_model::container::{NetworkingConfig, PortBinding, PortMap};
use gantry_model::id::ContainerId;
use gantry_model::network::{EndpointIpam, EndpointSettings};
use gantry_model::overlay::Transport;
use gantry_network::{Attachment, DnsSettings, Endpoint, NetworkError, PortSpec, Sandbox, SandboxSpec};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
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

    /// Gives the place back.
    fn detach<'a>(&'a self, network_id: &'a str, container: &'a ContainerId) -> BoxFuture<'a, ()>;
}

/// The label of containers whose addresses the cluster has already given.
const TASK_LABEL: &str = "com.docker.swarm.task.id";

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

fn check(network: &str, settings: &EndpointSettings) -> Result<()> {
    if let Some(ipam) = &settings.ipam_config
        && !ipam.ipv4_address.is_empty()
    {
        if ipam.ipv4_address.parse::<Ipv4Addr>().is_err() {
            return Err(parameter(format!("invalid IPv4 address: {}", ipam.ipv4_address)));
        }
        if network == "bridge" {
            return Err(parameter(
                "invalid config for network bridge: invalid endpoint settings: user specified IP address is supported on user defined networks only",
            ));
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
fn port_map(record: &Record, sandbox: &Sandbox) -> PortMap {
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

fn attachment(name: &str, settings: &EndpointSettings) -> Result<Attachment> {
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
        priority: settings.gw_priority,
    })
}

/// The part of an endpoint that was asked, without what a run gave it. A MAC address that the network derived is not kept.
fn asked(settings: &EndpointSettings) -> EndpointSettings {
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

fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
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
fn keep_endpoint(networks: &mut BTreeMap<String, EndpointSettings>, endpoint: &Endpoint) {
    let fits = |(name, e): &(&String, &EndpointSettings)| {
        **name == endpoint.network_name || **name == endpoint.network_id || e.network_id == endpoint.network_id
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

/// What a start gets from its network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plugged {
    /// Namespace; none: the host's.
    pub netns: Option<PathBuf>,
    /// Text of /etc/resolv.conf and /etc/hosts; none: those of another container are bound.
    pub texts: Option<(String, String)>,
}

impl Engine {
    /// Sets who gives places in networks of the cluster.
    pub fn set_network_source(&self, source: std::sync::Arc<dyn NetworkSource>) {
        *self.network_source_slot().write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(source);
    }

    fn network_source(&self) -> Option<std::sync::Arc<dyn NetworkSource>> {
        self.network_source_slot().read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Makes the network of a run. Whatever fails is taken back before.
    pub(crate) async fn plug(&self, container: &Container) -> Result<Plugged> {
        let record = container.record().clone();
        match mode(&record.host.network_mode)? {
            Mode::Host => {
                let texts = host_texts(&record, &self.dns_settings(&record)?);
                return Ok(Plugged { netns: None, texts: Some(texts) });
            }
            Mode::Container(other) => {
                let other = self.find(&other)?;
                let Some(run) = other.run() else {
                    return Err(Error::Conflict(format!(
                        "cannot join network of a non running container: {}",
                        other.id
                    )));
                };
                let netns = PathBuf::from(format!("/proc/{}/ns/net", run.pid));
                return Ok(Plugged { netns: Some(netns), texts: None });
            }
            Mode::Own => {}
        }
        let spec = self.sandbox_spec(container, &record).await?;
        let networks = self.networks().clone();
        let sandbox = blocking("network sandbox", move || {
            // What a former run could not take away.
            networks.remove_sandbox(&spec.id).map_err(error)?;
            networks.create_sandbox(spec).map_err(error)
        })
        .await?;
        let mut record = container.record();
        record.sandbox_key.clone_from(&sandbox.netns);
        record.ports = port_map(&record, &sandbox);
        for endpoint in &sandbox.endpoints {
            keep_endpoint(&mut record.networks, endpoint);
        }
        drop(record);
        for endpoint in &sandbox.endpoints {
            self.network_event("connect", &endpoint.network_id, &endpoint.network_name, container);
        }
        Ok(Plugged { netns: Some(sandbox.netns), texts: Some((sandbox.resolv_conf, sandbox.hosts)) })
    }

    async fn sandbox_spec(&self, container: &Container, record: &Record) -> Result<SandboxSpec> {
        let mut networks = Vec::new();
        for (name, settings) in &record.networks {
            let wanted = self.attach_foreign(container, record, name, asked(settings)).await?;
            if let Some(kept) = container.record().networks.get_mut(name) {
                kept.network_id.clone_from(&wanted.network_id);
            }
            networks.push(attachment(name, &wanted)?);
        }
        let sysctls = record.host.sysctls.iter().filter(|(key, _)| key.starts_with("net."));
        Ok(SandboxSpec {
            id: record.id.to_string(),
            name: record.name.clone(),
            hostname: hostname(record),
            domainname: record.config.domainname.clone(),
            networks,
            publish: ports(record)?,
            dns: self.dns_settings(record)?,
            extra_hosts: extra_hosts(record)?,
            sysctls: sysctls.map(|(key, value)| (key.clone(), value.clone())).collect(),
        })
    }

    /// Asks the cluster for a place in a network that this node does not know by itself.
    async fn attach_foreign(
        &self,
        container: &Container,
        record: &Record,
        name: &str,
        wanted: EndpointSettings,
    ) -> Result<EndpointSettings> {
        let reference = if wanted.network_id.is_empty() { name } else { wanted.network_id.as_str() };
        if record.config.labels.contains_key(TASK_LABEL) || self.networks().inspect(reference).is_ok() {
            return Ok(wanted);
        }
        let unknown = || Error::NetworkNotFound(format!("network {name} not found"));
        let Some(source) = self.network_source() else { return Err(unknown()) };
        let mut names = vec![record.name.clone(), record.id.short().to_owned(), hostname(record)];
        names.extend(wanted.aliases.iter().flatten().cloned());
        let given = source.attach(reference, &container.id, names, &wanted).await.map_err(Error::Network)?;
        let mut given = given.ok_or_else(unknown)?;
        if !given.ip_address.is_empty() {
            given.ipam_config = Some(EndpointIpam {
                ipv4_address: given.ip_address.clone(),
                ..given.ipam_config.unwrap_or_default()
            });
        }
        given.aliases = wanted.aliases;
        Ok(given)
    }

    fn dns_settings(&self, record: &Record) -> Result<DnsSettings> {
        let config = self.config();
        let or =
            |own: &[String], default: &[String]| if own.is_empty() { default.to_vec() } else { own.to_vec() };
        let servers = or(&record.host.dns, &config.default_dns)
            .iter()
            .map(|ip| ip.parse().map_err(|_| parameter(format!("bad nameserver address {ip}"))))
            .collect::<Result<Vec<IpAddr>>>()?;
        Ok(DnsSettings {
            servers,
            search: or(&record.host.dns_search, &config.default_dns_search),
            options: or(&record.host.dns_options, &config.default_dns_options),
        })
    }

    /// Takes the network of a run away. Errors are logged: the container has ended whatever happens here.
    pub(crate) async fn unplug(&self, container: &Container) {
        let networks = self.networks().clone();
        let id = container.id.to_string();
        let had = {
            let mut record = container.record();
            let had: Vec<(String, String)> = record
                .networks
                .iter()
                .filter(|(_, e)| !e.endpoint_id.is_empty())
                .map(|(name, e)| (name.clone(), e.network_id.clone()))
                .collect();
            for settings in record.networks.values_mut() {
                *settings = asked(settings);
            }
            record.ports = PortMap::new();
            record.sandbox_key = PathBuf::new();
            had
        };
        let removed = blocking("network sandbox", move || networks.remove_sandbox(&id).map_err(error)).await;
        if let Err(error) = removed {
            tracing::warn!(container = container.id.short(), error = error.whole(), "remove network sandbox");
        }
        for (name, id) in had {
            self.network_event("disconnect", &id, &name, container);
        }
    }

    /// Gives places in networks of the cluster back, when a container goes for good.
    pub(crate) async fn detach_foreign(&self, container: &Container) {
        let Some(source) = self.network_source() else { return };
        let record = container.record().clone();
        if record.config.labels.contains_key(TASK_LABEL) {
            return;
        }
        for settings in record.networks.values() {
            if !settings.network_id.is_empty() && self.networks().inspect(&settings.network_id).is_err() {
                source.detach(&settings.network_id, &container.id).await;
            }
        }
    }

    fn network_event(&self, action: &str, id: &str, name: &str, container: &Container) {
        // What this node does not know by itself comes from the cluster.
        let driver = self.networks().inspect(id).map_or_else(|_| "overlay".to_owned(), |n| n.spec.driver);
        self.publish(
            Event::local("network", action, id)
                .with("container", container.id.as_str())
                .with("name", name)
                .with("type", driver),
        );
    }

    /// Joins a network, now if the container runs, else at its next start.
    pub async fn network_connect(
        &self,
        network: &str,
        reference: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let container = self.find(reference)?;
        let _operation = container.operation.lock().await;
        let record = container.record().clone();
        if !matches!(mode(&record.host.network_mode)?, Mode::Own) || record.networks.contains_key("none") {
            return Err(Error::Forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network"
                    .to_owned(),
            ));
        }
        let mut settings = asked(&settings);
        let mut name = network.to_owned();
        if let Ok(known) = self.networks().inspect(network) {
            name.clone_from(&known.spec.name);
            settings.network_id = known.id;
        }
        check(&name, &settings)?;
        if record.networks.contains_key(&name) {
            return Err(Error::Forbidden(format!(
                "endpoint with name {} already exists in network {name}",
                record.name
            )));
        }
        let settings = self.attach_foreign(&container, &record, &name, settings).await?;
        if container.run().is_some() {
            let networks = self.networks().clone();
            let (id, place) = (container.id.to_string(), attachment(&name, &settings)?);
            let (endpoint, sandbox) = blocking("network connect", move || {
                let endpoint = networks.connect(&id, &place).map_err(error)?;
                Ok((endpoint, networks.sandbox(&id).map_err(error)?))
            })
            .await?;
            let mut settings = settings;
            fill(&mut settings, &endpoint);
            container.record().networks.insert(endpoint.network_name.clone(), settings);
            self.write_texts(&container, &sandbox.resolv_conf, &sandbox.hosts)?;
            self.network_event("connect", &endpoint.network_id, &endpoint.network_name, &container);
        } else {
            container.record().networks.insert(name, settings);
        }
        self.save(&container).await
    }

    /// Leaves a network. With `force` a container that is not there is fine.
    pub async fn network_disconnect(&self, network: &str, reference: &str, force: bool) -> Result<()> {
        let container = match self.find(reference) {
            Err(_) if force => return Ok(()),
            other => other?,
        };
        let _operation = container.operation.lock().await;
        let found = {
            let record = container.record();
            let fits = |(name, e): &(&String, &EndpointSettings)| {
                name.as_str() == network || (!e.network_id.is_empty() && e.network_id.starts_with(network))
            };
            record.networks.iter().find(fits).map(|(name, e)| (name.clone(), e.clone()))
        };
        let Some((name, settings)) = found else {
            return Err(Error::Forbidden(format!(
                "container {} is not connected to network {network}",
                container.id
            )));
        };
        if name == "host" {
            return Err(Error::Forbidden(
                "container cannot be disconnected from host network or connected to host network".to_owned(),
            ));
        }
        if container.run().is_some() && !settings.endpoint_id.is_empty() {
            let networks = self.networks().clone();
            let (id, network_id) = (container.id.to_string(), settings.network_id.clone());
            let sandbox = blocking("network disconnect", move || {
                networks.disconnect(&id, &network_id).map_err(error)?;
                networks.sandbox(&id).map_err(error)
            })
            .await?;
            self.write_texts(&container, &sandbox.resolv_conf, &sandbox.hosts)?;
            self.network_event("disconnect", &settings.network_id, &name, &container);
        }
        if let Some(source) = self.network_source()
            && !settings.network_id.is_empty()
            && self.networks().inspect(&settings.network_id).is_err()
        {
            source.detach(&settings.network_id, &container.id).await;
        }
        container.record().networks.remove(&name);
        self.save(&container).await
    }

    /// Writes the two files in place: they are bind mounts, a renamed file would stay unseen.
    pub(crate) fn write_texts(&self, container: &Container, resolv_conf: &str, hosts: &str) -> Result<()> {
        let folder = self.container_folder(&container.id);
        for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts)] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(io("write", &path))?;
        }
        Ok(())
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
                Ok((name.to_owned(), address.trim_matches(['[', ']']).to_owned()))
            }
            _ => Err(parameter(format!("bad format for add-host: \"{line}\""))),
        })
        .collect()
}

/// /etc/resolv.conf and /etc/hosts for a container in the host's network: the host's own, with what it asks besides.
fn host_texts(record: &Record, dns: &DnsSettings) -> (String, String) {
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
