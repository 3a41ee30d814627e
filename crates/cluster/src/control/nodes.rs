//! Nodes: labels, availability, role; and removal from the list.

use super::commit;
use super::request::Reply;
use crate::error::{Error, Result};
use crate::manager::Manager;
use gantry_model::id::NodeId;
use gantry_model::node::{Node, NodeRole, NodeSpec};
use gantry_model::service::Version;
use gantry_planner::{Change, ClusterRecord, Object, ObjectRef, find, time, validate};
use jiff::Timestamp;
use std::time::Duration;

/// Changes what the operator wants of a node.
///
/// The version that the client read may be older than the object's, as long as nobody changed the specification since: what the
/// managers themselves note at the node (reachability, broken paths) is no reason to refuse the operator.
pub async fn update(manager: &Manager, id: &NodeId, version: Version, spec: NodeSpec) -> Result<Reply> {
    commit(manager, |state| {
        let node = find::node(state, id.as_str())?;
        if version.index > node.version.index
            || version.index < manager.hub.specified(&node.id, node.version.index)
        {
            return Err(Error::out_of_sequence());
        }
        let changed = validate::node_update(state, &node, node.version, spec.clone())?;
        if node.spec.role == NodeRole::Manager && changed.spec.role == NodeRole::Worker {
            check_quorum(manager, &node)?;
        }
        Ok((vec![Change::replace(Object::Node(Box::new(changed)))], node.id.clone()))
    })
    .await
    .map(|id| {
        let version = manager.store.read().node(&id).map_or(0, |node| node.version.index);
        manager.hub.note_specified(id, version);
        Reply::Done
    })
}

/// A majority of the managers that remain must answer.
fn check_quorum(manager: &Manager, node: &Node) -> Result<()> {
    if manager.store.voters().contains(&node.id) && !manager.store.can_lose(&node.id) {
        return Err(Error::precondition(
            "can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

/// Removes a node from the list; its certificate is worth nothing afterwards.
pub async fn remove(manager: &Manager, id: &NodeId, force: bool) -> Result<Reply> {
    let removed = commit(manager, |state| {
        let node = find::node(state, id.as_str())?;
        if manager.store.members().iter().any(|member| member.node_id == node.id) {
            return Err(Error::precondition(format!(
                "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
                node.id
            )));
        }
        validate::node_remove(&node, force)?;
        let record = state.cluster().ok_or_else(Error::no_leader)?;
        let changes = vec![
            Change::delete(ObjectRef::Node(node.id.clone())),
            Change::replace(Object::Cluster(Box::new(revoke(record, &node.id)))),
        ];
        Ok((changes, node.id.clone()))
    })
    .await?;
    manager.hub.dismiss(&removed);
    Ok(Reply::Done)
}

/// Name of the note that a node's certificate counts for nothing.
pub fn revocation(node: &NodeId) -> String {
    format!("revoked/{node}")
}

/// Notes a node as removed. Notes whose certificates have expired in any case are dropped.
fn revoke(record: &ClusterRecord, node: &NodeId) -> ClusterRecord {
    let mut record = record.clone();
    let now = Timestamp::now();
    let outdated = |until: &str| until.parse::<Timestamp>().is_ok_and(|until| until < now);
    record.secrets.other.retain(|name, until| !name.starts_with("revoked/") || !outdated(until));
    // Certificates live for 90 days, or as the specification says: twice that is beyond any that was signed before a change of it.
    let spec = u64::try_from(record.cluster.spec.ca_config.node_cert_expiry).unwrap_or(0);
    let life = Duration::from_nanos(spec).max(Duration::from_secs(90 * 24 * 3600)) * 2;
    record.secrets.other.insert(revocation(node), time::text(time::after(now, life)));
    record
}
