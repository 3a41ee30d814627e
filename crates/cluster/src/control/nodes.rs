//! Nodes: labels, availability, role; and removal from the list.

use super::commit;
use super::request::Reply;
use crate::error::{Error, Result};
use crate::manager::Manager;
use gantry_model::id::NodeId;
use gantry_model::node::{Node, NodeRole, NodeSpec};
use gantry_model::service::Version;
use gantry_planner::{Change, Object, ObjectRef, find, validate};

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
        Ok((vec![Change::delete(ObjectRef::Node(node.id.clone()))], node.id.clone()))
    })
    .await?;
    manager.hub.dismiss(&removed);
    Ok(Reply::Done)
}
