//! Checks of nodes.

use super::Invalid;
use crate::state::State;
use gantry_model::id::NodeId;
use gantry_model::node::{Node, NodeRole, NodeSpec, NodeState};
use gantry_model::service::Version;

/// The node with a new specification. The version that the client read must be the node's.
pub fn node_update(state: &State, node: &Node, read: Version, wanted: NodeSpec) -> Result<Node, Invalid> {
    if read != node.version {
        return Err(Invalid::OutOfSequence);
    }
    let demoted = node.spec.role == NodeRole::Manager && wanted.role == NodeRole::Worker;
    if demoted && managers(state).all(|id| id == node.id) {
        return Err(Invalid::Precondition("attempting to demote the last manager of the swarm".to_owned()));
    }
    Ok(Node { spec: wanted, ..node.clone() })
}

fn managers(state: &State) -> impl Iterator<Item = NodeId> {
    state.nodes().iter().filter(|node| node.spec.role == NodeRole::Manager).map(|node| node.id.clone())
}

/// Checks that a node may be removed: it is down (or is forced), and no manager.
pub fn node_remove(node: &Node, force: bool) -> Result<(), Invalid> {
    let id = &node.id;
    if node.spec.role == NodeRole::Manager {
        return Err(Invalid::Precondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        )));
    }
    if !force && !matches!(node.status.state, NodeState::Down | NodeState::Disconnected) {
        return Err(Invalid::Precondition(format!("node {id} is not down and can't be removed")));
    }
    Ok(())
}
