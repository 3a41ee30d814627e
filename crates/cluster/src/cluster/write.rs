//! Writes: executed by the leader, wherever it is; when they return, this node sees them.

use super::Cluster;
use crate::config::Rotate;
use crate::control::request::{AttachRequest, Attachment, RegistryAuthFrom, Reply, Request, Rollback};
use crate::error::{Error, Result};
use gantry_model::id::{ConfigId, NetworkId, SecretId, ServiceId, TaskId};
use gantry_model::network::NetworkSpec;
use gantry_model::node::NodeSpec;
use gantry_model::secret::DataSpec;
use gantry_model::service::{ServiceSpec, Version};
use gantry_model::swarm::SwarmSpec;
use gantry_planner::find;

fn unexpected() -> Error {
    Error::internal("the leader answered another request than this one")
}

impl Cluster {
    async fn write(&self, request: Request) -> Result<Reply> {
        let manager = self.manager()?;
        manager.write(request).await
    }

    /// Changes the cluster's specification, replaces tokens.
    pub async fn update_swarm(&self, version: Version, spec: SwarmSpec, rotate: Rotate) -> Result<()> {
        self.write(Request::UpdateSwarm { version, spec: Box::new(spec), rotate }).await.map(drop)
    }

    /// Creates a service; answers its id and warnings.
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<(ServiceId, Vec<String>)> {
        match self.write(Request::CreateService { spec: Box::new(spec) }).await? {
            Reply::Service { id, warnings } => Ok((id, warnings)),
            _ => Err(unexpected()),
        }
    }

    /// Updates a service or takes it back to its specification before; answers warnings.
    pub async fn update_service(
        &self,
        reference: &str,
        version: Version,
        spec: ServiceSpec,
        auth: RegistryAuthFrom,
        rollback: Rollback,
    ) -> Result<Vec<String>> {
        let id = find::service(self.state()?.as_ref(), reference)?.id.clone();
        let request = Request::UpdateService { id, version, spec: Box::new(spec), auth, rollback };
        match self.write(request).await? {
            Reply::Service { warnings, .. } => Ok(warnings),
            _ => Err(unexpected()),
        }
    }

    /// Removes a service.
    pub async fn remove_service(&self, reference: &str) -> Result<()> {
        let id = find::service(self.state()?.as_ref(), reference)?.id.clone();
        self.write(Request::RemoveService { id }).await.map(drop)
    }

    /// Changes what is wanted of a node: labels, availability, role.
    pub async fn update_node(&self, reference: &str, version: Version, spec: NodeSpec) -> Result<()> {
        let id = self.node(reference).await?.id;
        self.write(Request::UpdateNode { id, version, spec }).await.map(drop)
    }

    /// Removes a node that is down from the list; forced, also one that is not.
    pub async fn remove_node(&self, reference: &str, force: bool) -> Result<()> {
        let id = self.node(reference).await?.id;
        self.write(Request::RemoveNode { id, force }).await.map(drop)
    }

    /// Creates a network.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId> {
        match self.write(Request::CreateNetwork { spec: Box::new(spec) }).await? {
            Reply::Network(id) => Ok(id),
            _ => Err(unexpected()),
        }
    }

    /// Removes a network that nothing uses.
    pub async fn remove_network(&self, reference: &str) -> Result<()> {
        let id = find::network(self.state()?.as_ref(), reference)?.id();
        self.write(Request::RemoveNetwork { id }).await.map(drop)
    }

    /// Creates a secret.
    pub async fn create_secret(&self, spec: DataSpec) -> Result<SecretId> {
        match self.write(Request::CreateSecret { spec }).await? {
            Reply::Secret(id) => Ok(id),
            _ => Err(unexpected()),
        }
    }

    /// Changes the labels of a secret.
    pub async fn update_secret(&self, reference: &str, version: Version, spec: DataSpec) -> Result<()> {
        let id = find::secret(self.state()?.as_ref(), reference)?.id.clone();
        self.write(Request::UpdateSecret { id, version, spec }).await.map(drop)
    }

    /// Removes a secret that nothing uses.
    pub async fn remove_secret(&self, reference: &str) -> Result<()> {
        let id = find::secret(self.state()?.as_ref(), reference)?.id.clone();
        self.write(Request::RemoveSecret { id }).await.map(drop)
    }

    /// Creates a config.
    pub async fn create_config(&self, spec: DataSpec) -> Result<ConfigId> {
        match self.write(Request::CreateConfig { spec }).await? {
            Reply::Config(id) => Ok(id),
            _ => Err(unexpected()),
        }
    }

    /// Changes the labels of a config.
    pub async fn update_config(&self, reference: &str, version: Version, spec: DataSpec) -> Result<()> {
        let id = find::config(self.state()?.as_ref(), reference)?.id.clone();
        self.write(Request::UpdateConfig { id, version, spec }).await.map(drop)
    }

    /// Removes a config that nothing uses.
    pub async fn remove_config(&self, reference: &str) -> Result<()> {
        let id = find::config(self.state()?.as_ref(), reference)?.id.clone();
        self.write(Request::RemoveConfig { id }).await.map(drop)
    }

    /// Joins a container of this node to a cluster network; works on workers too. Returns after the executor has applied the overlay with
    /// it. Asked again for the same container and network, it answers the same place.
    pub async fn attach_network(&self, request: AttachRequest) -> Result<Attachment> {
        let node = self.inside()?;
        let request = AttachRequest { node: node.settings().node_id, ..request };
        node.agent().attach(request).await
    }

    /// Takes a container out of a cluster network.
    pub async fn detach_network(&self, task: &TaskId) -> Result<()> {
        self.inside()?.agent().detach(task.clone()).await
    }

    /// The places that this node's containers hold in cluster networks, as the node's orders have them: known without a
    /// manager, and again after a restart.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        Ok(self.inside()?.agent().attachments())
    }
}
