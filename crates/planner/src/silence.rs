//! Silence: whether a node that the leader does not hear is dead, by what the other nodes say.
//!
//! Missing heartbeats alone prove little: a daemon that was killed misses them too, while its containers live on. So its node keeps
//! the whole grace. But when the leader and most other nodes hear *nothing* of a node, not even an echo of its kernel, nothing is
//! gained by waiting. Where many nodes fall silent together the network is at fault, which comes back: they keep their grace.

use crate::state::State;
use gantry_model::id::NodeId;
use gantry_model::node::NodeState;
use std::collections::{BTreeMap, BTreeSet};

/// One node of so many may be called dead at once, besides the first.
const TOGETHER: usize = 4;

/// What the leader knows of who hears whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The leader's own node.
    pub leader: NodeId,
    /// Nodes that gave the leader a sign of life a moment ago.
    pub heard: BTreeSet<NodeId>,
    /// By node: those of which it hears nothing, as it says now.
    pub silent_for: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

/// The nodes that are dead beyond doubt.
pub fn dead_nodes(state: &State, evidence: &Evidence) -> BTreeSet<NodeId> {
    let nodes = state.nodes().len();
    let answering: BTreeSet<&NodeId> = state
        .nodes()
        .iter()
        .filter(|node| matches!(node.status.state, NodeState::Ready | NodeState::Unknown))
        .map(|node| &node.id)
        .collect();
    let is_dead = |id: &NodeId| {
        let accusers: BTreeSet<&NodeId> = evidence
            .silent_for
            .iter()
            .filter(|(witness, silent)| *witness != id && answering.contains(witness) && silent.contains(id))
            .map(|(witness, _)| witness)
            .collect();
        let others = answering.iter().filter(|other| **other != id).count();
        // One witness may itself be the one that is cut off.
        !evidence.heard.contains(id)
            && accusers.len() >= 2
            && accusers.contains(&evidence.leader)
            && accusers.len() * 2 > others
    };
    let dead: BTreeSet<NodeId> = state.nodes().iter().map(|node| node.id.clone()).filter(is_dead).collect();
    if dead.len() > (nodes / TOGETHER).max(1) { BTreeSet::new() } else { dead }
}
