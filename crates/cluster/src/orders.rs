//! Orders: what a manager sends to one node, complete at every change.

use gantry_model::id::{NodeId, TaskId};
use gantry_model::overlay::OverlayState;
use gantry_planner::{Assignment, State, assignment};
use serde::{Deserialize, Serialize};

/// All that one node has to do: its tasks (ended ones too, as long as they are shown) with what they use, and the cluster's networks.
/// What of an earlier order is not in it any more is to be removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Orders {
    /// By the planner.
    pub assignment: Assignment,
}

impl Orders {
    /// What this node has to do, by this state.
    pub fn of(state: &State, node: &NodeId) -> Self {
        Self { assignment: assignment(state, node) }
    }

    /// All tasks that the node may have something of.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.assignment.tasks.iter().map(|task| task.id.clone())
    }

    /// The cluster's networks on this node.
    pub fn overlay(&self) -> Option<&OverlayState> {
        self.assignment.overlay.as_ref()
    }

    /// The same without what the node itself reported: a report must not come back as an order.
    pub fn without_reports(&self) -> Self {
        let mut bare = self.clone();
        for task in &mut bare.assignment.tasks {
            task.status = Default::default();
            task.version = Default::default();
            task.updated_at = String::new();
        }
        bare
    }
}
