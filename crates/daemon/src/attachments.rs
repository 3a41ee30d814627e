//! Containers outside services on cluster networks (`docker run --network OVERLAY`): the engine asks here for a place, the
//! cluster gives it. A place is kept until the container leaves the network or is removed, and found again after a restart
//! of the daemon by the task that stands for it.

use gantry_cluster::{AttachRequest, Cluster, ErrorKind};
use gantry_engine::{BoxFuture, NetworkSource};
use gantry_model::id::{ContainerId, TaskId};
use gantry_model::network::{EndpointIpam, EndpointSettings};
use gantry_model::overlay::Subnet;
use gantry_model::task::Task;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    task: TaskId,
    container: String,
    network_id: String,
    address: String,
}

/// The places that containers of this node hold.
#[derive(Debug, Default)]
pub struct Places(Mutex<Vec<Place>>);

impl Places {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Place>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, place: Place) {
        self.with(|places| {
            places.retain(|known| known.task != place.task);
            places.push(place);
        });
    }

    /// Notes a task that stands for a container; other tasks are no concern.
    pub fn note(&self, task: &Task) {
        let Some(spec) = &task.spec.network_attachment_spec else { return };
        let Some(attachment) = task.networks_attachments.first() else { return };
        self.keep(Place {
            task: task.id.clone(),
            container: spec.container_id.clone(),
            network_id: attachment.network_id.clone(),
            address: attachment.addresses.first().cloned().unwrap_or_default(),
        });
    }

    /// Forgets a task that is gone.
    pub fn forget(&self, task: &TaskId) {
        self.with(|places| places.retain(|place| place.task != *task));
    }

    fn find(&self, container: &ContainerId, network: &str) -> Option<Place> {
        self.with(|places| {
            places
                .iter()
                .find(|place| place.container == container.as_str() && place.network_id == network)
                .cloned()
        })
    }

    fn take(&self, container: &ContainerId, network: &str) -> Option<Place> {
        let found = self.find(container, network)?;
        self.forget(&found.task);
        Some(found)
    }
}

/// Asks the cluster for places.
pub struct ClusterNetworks {
    cluster: Cluster,
    places: std::sync::Arc<Places>,
}

impl ClusterNetworks {
    /// Over the cluster of this node.
    pub fn new(cluster: Cluster, places: std::sync::Arc<Places>) -> Self {
        Self { cluster, places }
    }

    async fn ask(
        &self,
        network: &str,
        container: &ContainerId,
        names: Vec<String>,
        wanted: &EndpointSettings,
    ) -> Result<Option<EndpointSettings>, String> {
        let known = [wanted.network_id.as_str(), network];
        if let Some(place) = known.iter().find_map(|id| self.places.find(container, id)) {
            return Ok(Some(settings(wanted, &place.network_id, &place.address)));
        }
        let address = wanted.ipam_config.as_ref().map(|ipam| ipam.ipv4_address.clone()).unwrap_or_default();
        let request = AttachRequest {
            network: network.to_owned(),
            container_id: container.to_string(),
            names,
            address,
            ..AttachRequest::default()
        };
        let attachment = match self.cluster.attach_network(request).await {
            Ok(attachment) => attachment,
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotInSwarm) => {
                return Ok(None);
            }
            Err(error) => return Err(error.message),
        };
        let place = Place {
            task: attachment.task,
            container: container.to_string(),
            network_id: attachment.network_id.to_string(),
            address: attachment.addresses.first().cloned().unwrap_or_default(),
        };
        let answer = settings(wanted, &place.network_id, &place.address);
        self.places.keep(place);
        Ok(Some(answer))
    }
}

/// What the container asked for, with what it got.
fn settings(wanted: &EndpointSettings, network_id: &str, cidr: &str) -> EndpointSettings {
    let place = Subnet::parse(cidr).ok();
    let address = place.map(Subnet::address);
    EndpointSettings {
        network_id: network_id.to_owned(),
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

    fn detach<'a>(&'a self, network_id: &'a str, container: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(place) = self.places.take(container, network_id) else { return };
            if let Err(error) = self.cluster.detach_network(&place.task).await {
                // The task ends with its container at the latest.
                tracing::warn!(container = container.short(), network_id, %error, "give the place in a cluster network back");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_becomes_settings() {
        let wanted = EndpointSettings { aliases: Some(vec!["db".into()]), ..EndpointSettings::default() };
        let got = settings(&wanted, "net1", "10.0.1.7/24");
        assert_eq!((got.ip_address.as_str(), got.ip_prefix_len), ("10.0.1.7", 24));
        assert_eq!(got.mac_address, "02:42:0a:00:01:07");
        assert_eq!(got.aliases, wanted.aliases);
    }

    #[test]
    fn places_are_found_by_container_and_network() {
        let places = Places::default();
        let container = ContainerId::from_random([1; 32]);
        let place = Place {
            task: TaskId::parse("t").unwrap(),
            container: container.to_string(),
            network_id: "n".into(),
            address: "10.0.0.2/24".into(),
        };
        places.keep(place.clone());
        assert_eq!(places.find(&container, "n"), Some(place.clone()));
        assert_eq!(places.find(&container, "m"), None);
        assert_eq!(places.take(&container, "n"), Some(place));
        assert_eq!(places.find(&container, "n"), None);
    }
}
