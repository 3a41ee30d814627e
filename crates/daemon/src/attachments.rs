//! Containers outside services on cluster networks (`docker run --network OVERLAY`): the engine asks here for a place, the
//! cluster gives it. A place is kept until the container leaves the network or is removed. Which places there are, the
//! node's orders tell, also after a restart of the daemon; those that nobody uses any more are given back now and then.

use crate::daemon::Daemon;
use gantry_cluster::{AttachRequest, Attachment, Cluster, ErrorKind};
use gantry_engine::{BoxFuture, Engine, NetworkSource};
use gantry_model::id::{ContainerId, TaskId};
use gantry_model::network::{EndpointIpam, EndpointSettings};
use gantry_model::overlay::Subnet;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often places that nobody uses are looked for.
const ROUND: Duration = Duration::from_secs(5);

/// Asks the cluster for places.
pub struct ClusterNetworks {
    cluster: Cluster,
    /// Places given back that the node's orders may still have for a moment.
    given_back: Mutex<HashSet<TaskId>>,
}

impl ClusterNetworks {
    /// Over the cluster of this node.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, given_back: Mutex::default() }
    }

    fn given_back(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place that a container holds already.
    fn held(&self, container: &ContainerId, networks: &[&str]) -> Option<Attachment> {
        // Outside a cluster there are no places.
        let places = self.cluster.attachments().unwrap_or_default();
        let mut given_back = self.given_back();
        given_back.retain(|task| places.iter().any(|place| place.task == *task));
        places.into_iter().find(|place| {
            !given_back.contains(&place.task)
                && place.container_id == container.as_str()
                && networks.iter().any(|n| *n == place.network_id.as_str() || *n == place.network_name)
        })
    }

    async fn ask(
        &self,
        network: &str,
        container: &ContainerId,
        names: Vec<String>,
        wanted: &EndpointSettings,
    ) -> Result<Option<EndpointSettings>, String> {
        let held = self.held(container, &[wanted.network_id.as_str(), network]);
        if let Some(place) = held.as_ref().filter(|place| place.names == names) {
            return Ok(Some(settings(wanted, place)));
        }
        let address = wanted.ipam_config.as_ref().map(|ipam| ipam.ipv4_address.clone()).unwrap_or_default();
        let request = AttachRequest {
            network: network.to_owned(),
            container_id: container.to_string(),
            names,
            address,
            ..AttachRequest::default()
        };
        match self.cluster.attach_network(request).await {
            Ok(place) => {
                // One that could not be given back is the container's again.
                self.given_back().remove(&place.task);
                Ok(Some(settings(wanted, &place)))
            }
            // It was renamed while it did not run. The place is good, and the managers hear of the name the next time.
            Err(_) if let Some(place) = held => Ok(Some(settings(wanted, &place))),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotInSwarm) => Ok(None),
            Err(error) => Err(error.message),
        }
    }
}

/// What the container asked for, with what it got.
fn settings(wanted: &EndpointSettings, given: &Attachment) -> EndpointSettings {
    let place = given.addresses.first().and_then(|cidr| Subnet::parse(cidr).ok());
    let address = place.map(Subnet::address);
    EndpointSettings {
        network_id: given.network_id.to_string(),
        ip_address: address.map(|address| address.to_string()).unwrap_or_default(),
        ip_prefix_len: place.map(Subnet::prefix).unwrap_or_default(),
        mac_address: address.map(mac).unwrap_or_default(),
        ipam_config: address
            .map(|address| EndpointIpam { ipv4_address: address.to_string(), ..EndpointIpam::default() }),
        ..wanted.clone()
    }
}

/// Members of overlay networks have the MAC address that their address says.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

impl NetworkSource for ClusterNetworks {
    fn attach<'a>(
        &'a self,
        network: &'a str,
        container: &'a ContainerId,
        names: Vec<String>,
        wanted: &'a EndpointSettings,
    ) -> BoxFuture<'a, Result<Option<EndpointSettings>, String>> {
        Box::pin(self.ask(network, container, names, wanted))
    }

    fn rename<'a>(
        &'a self,
        network_id: &'a str,
        container: &'a ContainerId,
        names: Vec<String>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if self.held(container, &[network_id]).is_none_or(|place| place.names == names) {
                return Ok(());
            }
            let (network, container_id) = (network_id.to_owned(), container.to_string());
            let request = AttachRequest { network, container_id, names, ..AttachRequest::default() };
            self.cluster.attach_network(request).await.map(drop).map_err(|error| error.message)
        })
    }

    fn detach<'a>(&'a self, network_id: &'a str, container: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(place) = self.held(container, &[network_id]) else { return };
            self.given_back().insert(place.task.clone());
            if let Err(error) = self.cluster.detach_network(&place.task).await {
                tracing::warn!(container = container.short(), network_id, %error, "a place in a cluster network is given back later");
            }
        })
    }
}

/// Gives back the places of containers that are gone: removed while no leader could be told, or the daemon died in between.
pub async fn give_back_unused(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut suspects = Suspects::default();
    while tokio::time::timeout(ROUND, stop.cancelled()).await.is_err() {
        let places = daemon.cluster.attachments().unwrap_or_default();
        let unused = places.into_iter().filter(|place| !in_use(&daemon.engine, place));
        for task in suspects.again(unused.map(|place| place.task).collect()) {
            match daemon.cluster.detach_network(&task).await {
                Ok(()) => {
                    tracing::info!(%task, "gave the place of a gone container in a cluster network back")
                }
                Err(error) => tracing::debug!(%task, %error, "give a place in a cluster network back"),
            }
        }
    }
}

fn in_use(engine: &Engine, place: &Attachment) -> bool {
    let Ok(container) = engine.get(&place.container_id) else { return false };
    let mut networks = container.network.networks.iter();
    networks.any(|(name, e)| *name == place.network_name || e.network_id == place.network_id.as_str())
}

/// Places that nobody used when they were looked at last. Once proves nothing: a container that just joins a network has
/// its place before it knows.
#[derive(Debug, Default)]
struct Suspects(HashSet<TaskId>);

impl Suspects {
    /// Those of the unused that were so the last time too.
    fn again(&mut self, unused: HashSet<TaskId>) -> Vec<TaskId> {
        let known = std::mem::replace(&mut self.0, unused);
        self.0.intersection(&known).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::id::NetworkId;

    #[test]
    fn a_place_becomes_settings() {
        let wanted = EndpointSettings { aliases: Some(vec!["db".into()]), ..EndpointSettings::default() };
        let place = Attachment {
            task: TaskId::parse("t").unwrap(),
            network_id: NetworkId::parse("net1").unwrap(),
            network_name: "front".into(),
            container_id: "c".into(),
            addresses: vec!["10.0.1.7/24".into()],
            names: Vec::new(),
        };
        let got = settings(&wanted, &place);
        assert_eq!((got.ip_address.as_str(), got.ip_prefix_len), ("10.0.1.7", 24));
        assert_eq!(got.mac_address, "02:42:0a:00:01:07");
        assert_eq!((got.network_id.as_str(), got.aliases), ("net1", wanted.aliases));
    }

    #[test]
    fn a_place_is_given_back_when_it_is_unused_twice() {
        let set = |ids: &[&str]| ids.iter().map(|id| TaskId::parse(id).unwrap()).collect::<HashSet<_>>();
        let mut suspects = Suspects::default();
        assert_eq!(suspects.again(set(&["joining", "gone"])), []);
        assert_eq!(suspects.again(set(&["gone", "new"])), [TaskId::parse("gone").unwrap()]);
        assert_eq!(suspects.again(set(&["joining"])), []);
    }
}
