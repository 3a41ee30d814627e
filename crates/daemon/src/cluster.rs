//! What handlers of other resources want to know of the cluster: its part of `info`, its networks beside the local ones.

use crate::daemon::Daemon;
use crate::http::ApiError;
use gantry_api::network::{PeerInfo, ServiceInfo, ServiceTask};
use gantry_cluster::{ErrorKind, LocalInfo, LocalNodeState};
use gantry_linux::netlink::Socket;
use gantry_model::network::{Network, NetworkSpec};
use gantry_model::task::{Task, TaskState};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Daemon {
    /// The `Swarm` header of `/_ping`.
    pub fn swarm_word(&self) -> &'static str {
        let info = self.cluster.info();
        match (info.local_node_state, info.control_available) {
            (LocalNodeState::Active, true) => "active/manager",
            (LocalNodeState::Active, false) => "active/worker",
            (state, _) => state.as_str(),
        }
    }

    /// The `Swarm` section of `/info`.
    pub fn swarm_section(&self) -> serde_json::Value {
        section(&self.cluster.info())
    }

    /// Whether this node can say what the cluster has.
    fn is_manager(&self) -> bool {
        self.cluster.info().control_available
    }

    /// Networks of the cluster, if this node can say.
    pub async fn cluster_networks(&self) -> Vec<Network> {
        if !self.is_manager() {
            return Vec::new();
        }
        self.cluster.networks().await.unwrap_or_default()
    }

    /// One network of the cluster.
    pub async fn cluster_network(&self, reference: &str) -> Result<Option<Network>, ApiError> {
        if !self.is_manager() {
            return Ok(None);
        }
        match self.cluster.network(reference).await {
            Ok(network) => Ok(Some(network)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a network of the cluster; its id.
    pub async fn create_cluster_network(&self, spec: NetworkSpec) -> Result<String, ApiError> {
        Ok(self.cluster.create_network(spec).await?.to_string())
    }

    /// Removes a network of the cluster.
    pub async fn remove_cluster_network(&self, network: &Network) -> Result<(), ApiError> {
        Ok(self.cluster.remove_network(&network.id).await?)
    }

    /// Nodes and, if asked for, services of an overlay network.
    pub async fn overlay_details(
        &self,
        network: &str,
        verbose: bool,
    ) -> (Option<Vec<PeerInfo>>, Option<BTreeMap<String, ServiceInfo>>) {
        if !self.is_manager() {
            return (None, None);
        }
        let tasks = self.cluster.tasks().await.unwrap_or_default();
        let inside: Vec<&Task> = tasks
            .iter()
            .map(|task| -> &Task { task })
            .filter(|task| task.status.state == TaskState::Running && address_in(task, network).is_some())
            .collect();
        let nodes = self.cluster.nodes().await.unwrap_or_default();
        let peers =
            nodes.iter().filter(|node| inside.iter().any(|task| task.node_id == node.id)).map(|node| {
                let ip =
                    if node.data_path_addr.is_empty() { &node.status.addr } else { &node.data_path_addr };
                PeerInfo { name: node.description.hostname.clone(), ip: ip.clone() }
            });
        let peers = Some(peers.collect());
        if !verbose {
            return (peers, None);
        }
        let mut services = BTreeMap::new();
        for service in self.cluster.services().await.unwrap_or_default() {
            let own = inside.iter().filter(|task| task.service_id == service.id);
            let tasks: Vec<ServiceTask> = own.map(|task| service_task(task, network)).collect();
            let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network_id == network);
            if tasks.is_empty() && vip.is_none() {
                continue;
            }
            let ports = service.endpoint.ports.iter();
            let ports =
                ports.map(|port| format!("Target: {}, Publish: {}", port.target_port, port.published_port));
            let vip = vip.map(|vip| bare(&vip.addr).to_owned()).unwrap_or_default();
            let info = ServiceInfo { vip, ports: ports.collect(), local_lb_index: 0, tasks };
            services.insert(service.spec.name.clone(), info);
        }
        (peers, Some(services))
    }
}

/// First IPv4 address of an interface of this node (or its first address at all).
pub fn interface_address(name: &str) -> Option<IpAddr> {
    let mut socket = Socket::route().ok()?;
    let link = socket.links().ok()?.into_iter().find(|link| link.name == name)?;
    let addresses = socket.addresses().ok()?;
    let own: Vec<IpAddr> =
        addresses.iter().filter(|address| address.link == link.index).map(|address| address.ip).collect();
    own.iter().find(|ip| ip.is_ipv4()).or_else(|| own.first()).copied()
}

fn bare(cidr: &str) -> &str {
    cidr.split('/').next().unwrap_or(cidr)
}

fn address_in<'a>(task: &'a Task, network: &str) -> Option<&'a str> {
    let place = task.networks_attachments.iter().find(|place| place.network_id == network)?;
    place.addresses.first().map(|cidr| bare(cidr))
}

fn service_task(task: &Task, network: &str) -> ServiceTask {
    let slot = if task.slot == 0 { task.node_id.to_string() } else { task.slot.to_string() };
    ServiceTask {
        name: format!("{}.{slot}.{}", task.service_name, task.id),
        endpoint_id: String::new(),
        endpoint_ip: address_in(task, network).unwrap_or_default().to_owned(),
        info: BTreeMap::from([("Host IP".to_owned(), task.node_id.to_string())]),
    }
}

/// `swarm.Info` of Docker's API.
fn section(info: &LocalInfo) -> serde_json::Value {
    let managers = (!info.remote_managers.is_empty()).then_some(&info.remote_managers);
    let mut section = serde_json::json!({
        "NodeID": info.node_id,
        "NodeAddr": info.node_addr,
        "LocalNodeState": info.local_node_state.as_str(),
        "ControlAvailable": info.control_available,
        "Error": info.error,
        "RemoteManagers": managers,
    });
    if let (Some(map), Some(cluster)) = (section.as_object_mut(), &info.cluster) {
        map.insert("Nodes".to_owned(), info.nodes.into());
        map.insert("Managers".to_owned(), info.managers.into());
        map.insert("Cluster".to_owned(), serde_json::to_value(cluster).unwrap_or_default());
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_outside_any_cluster_says_so() {
        let value = section(&LocalInfo::default());
        assert_eq!(value["LocalNodeState"], "inactive");
        assert!(value["RemoteManagers"].is_null());
        assert!(value.get("Cluster").is_none());
    }
}
