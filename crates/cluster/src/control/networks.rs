//! Networks of the cluster.

use super::request::Reply;
use super::{commit, random};
use crate::error::Result;
use crate::manager::Manager;
use gantry_model::id::NetworkId;
use gantry_model::network::{Network, NetworkSpec};
use gantry_planner::{Change, ClusterNetwork, Object, ObjectRef, find, validate};
use std::time::Duration;

/// How long a client waits so that it sees the subnet at once; later it comes all the same.
const ALLOCATION: Duration = Duration::from_secs(2);

/// A new network; returns when it has its subnet.
pub async fn create(manager: &Manager, spec: NetworkSpec) -> Result<Reply> {
    let id = NetworkId::from_random(random()?);
    commit(manager, |state| {
        let spec = validate::network_spec(state, spec.clone())?;
        let network = Network { id: id.to_string(), created: jiff::Timestamp::now().to_string(), spec };
        let network = ClusterNetwork { network, ..ClusterNetwork::default() };
        Ok((vec![Change::create(Object::Network(Box::new(network)))], ()))
    })
    .await?;
    let mut changes = manager.store.watch();
    let allocated =
        changes.wait_for(|_| manager.store.read().network(&id).is_none_or(|network| network.is_allocated()));
    if tokio::time::timeout(ALLOCATION, allocated).await.is_err() {
        tracing::warn!(network = %id, "a network has no subnet yet");
    }
    Ok(Reply::Network(id))
}

/// Removes a network that nothing uses.
pub async fn remove(manager: &Manager, id: &NetworkId) -> Result<Reply> {
    commit(manager, |state| {
        let network = find::network(state, id.as_str())?;
        validate::network_remove(state, &network)?;
        Ok((vec![Change::delete(ObjectRef::Network(network.id()))], Reply::Done))
    })
    .await
}
