//! A container's sandbox: made at its start, changed while it runs, taken away at its end.

use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, io, parameter};
use crate::events::Event;
use crate::network::*;
use crate::record::Record;
use gantry_model::container::PortMap;
use gantry_model::network::{EndpointIpam, EndpointSettings};
use gantry_network::{DnsSettings, SandboxSpec};
use std::net::IpAddr;
use std::path::PathBuf;

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
        let given = source
            .attach(reference, &container.id, foreign_names(record, &wanted), &wanted)
            .await
            .map_err(Error::Network)?;
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

    /// Makes a container's new name known in its networks. The new name holds whatever happens here: what could not be told is told
    /// at the next start.
    pub(crate) async fn rename_in_networks(&self, container: &Container) {
        let record = container.record().clone();
        let (networks, id, name) = (self.networks().clone(), record.id.to_string(), record.name.clone());
        let renamed = blocking("network rename", move || {
            networks.rename(&id, &name).map_err(error)?;
            Ok(networks.sandbox(&id).ok())
        })
        .await;
        match renamed {
            Ok(sandbox) => {
                let mut record = container.record();
                for endpoint in sandbox.iter().flat_map(|sandbox| &sandbox.endpoints) {
                    keep_endpoint(&mut record.networks, endpoint);
                }
            }
            Err(error) => {
                tracing::warn!(container = container.id.short(), error = error.whole(), "rename in networks");
            }
        }
        let Some(source) = self.network_source() else { return };
        for settings in record.networks.values().filter(|settings| self.is_foreign(&record, settings)) {
            let names = foreign_names(&record, settings);
            if let Err(error) = source.rename(&settings.network_id, &record.id, names).await {
                tracing::warn!(container = record.id.short(), error, "rename in a network of the cluster");
            }
        }
    }

    /// Whether the cluster gave the container its place in a network.
    fn is_foreign(&self, record: &Record, settings: &EndpointSettings) -> bool {
        !record.config.labels.contains_key(TASK_LABEL)
            && !settings.network_id.is_empty()
            && self.networks().inspect(&settings.network_id).is_err()
    }

    /// Brings the networks of a running container together that a former engine left in the middle of a connect, disconnect or
    /// rename: what was made and never acknowledged is taken back, what was begun to be taken away is gone.
    pub(crate) async fn agree_on_networks(&self, container: &Container) {
        let (networks, id, name) = (self.networks().clone(), container.id.to_string(), container.name());
        let found = blocking("network rename", move || {
            networks.rename(&id, &name).map_err(error)?;
            Ok(networks.sandbox(&id).ok())
        })
        .await;
        let sandbox = match found {
            Ok(Some(sandbox)) => sandbox,
            Ok(None) => return,
            Err(error) => {
                let error = error.whole();
                return tracing::warn!(container = container.id.short(), error, "look at networks again");
            }
        };
        let fits = |name: &str, settings: &EndpointSettings, e: &gantry_network::Endpoint| {
            name == e.network_name || name == e.network_id || settings.network_id == e.network_id
        };
        let (known, unknown): (Vec<_>, Vec<_>) = {
            let mut record = container.record();
            record.networks.retain(|name, settings| {
                settings.endpoint_id.is_empty() || sandbox.endpoints.iter().any(|e| fits(name, settings, e))
            });
            let wanted = &record.networks;
            sandbox
                .endpoints
                .iter()
                .cloned()
                .partition(|e| wanted.iter().any(|(name, settings)| fits(name, settings, e)))
        };
        {
            let mut record = container.record();
            for endpoint in &known {
                keep_endpoint(&mut record.networks, endpoint);
            }
            record.sandbox_key.clone_from(&sandbox.netns);
            record.ports = port_map(&record, &sandbox);
        }
        let (networks, id) = (self.networks().clone(), container.id.to_string());
        let left = blocking("network disconnect", move || {
            unknown.iter().try_for_each(|e| networks.disconnect(&id, &e.network_id).map_err(error))?;
            networks.sandbox(&id).map_err(error)
        })
        .await;
        let told = left.and_then(|sandbox| self.write_texts(container, &sandbox.resolv_conf, &sandbox.hosts));
        if let Err(error) = told {
            let error = error.whole();
            tracing::warn!(container = container.id.short(), error, "leave a network that was half joined");
        }
    }

    /// Gives places in networks of the cluster back, when a container goes for good.
    pub(crate) async fn detach_foreign(&self, container: &Container) {
        let Some(source) = self.network_source() else { return };
        let record = container.record().clone();
        for settings in record.networks.values().filter(|settings| self.is_foreign(&record, settings)) {
            source.detach(&settings.network_id, &container.id).await;
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

/// The names by which a container outside services is found in a network of the cluster.
fn foreign_names(record: &Record, settings: &EndpointSettings) -> Vec<String> {
    let mut names = vec![record.name.clone(), record.id.short().to_owned(), hostname(record)];
    names.extend(settings.aliases.iter().flatten().cloned());
    names
}
