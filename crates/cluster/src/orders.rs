//! Orders: what a manager sends to one node, complete at every change.

use gantry_model::id::{NodeId, TaskId};
use gantry_model::overlay::OverlayState;
use gantry_planner::{Assigner, Assignment, Revision, State};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// All that one node has to do: its tasks (ended ones too, as long as they are shown) with what they use, and the cluster's networks.
/// What of an earlier order is not in it any more is to be removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Orders {
    /// By the planner.
    pub assignment: Assignment,
}

/// Where the orders of all nodes are made: what they have in common once, and only those that may have changed.
#[derive(Default)]
pub struct Desk {
    assigner: Mutex<Option<Assigner>>,
}

impl Desk {
    /// What a node has to do by this state, or a newer one; `None` if it knows that already.
    pub fn orders(
        &self,
        state: &Arc<State>,
        node: &NodeId,
        known: Option<&Revision>,
    ) -> Option<(Revision, Orders)> {
        let mut assigner = self.assigner.lock().unwrap_or_else(PoisonError::into_inner);
        let assigner = assigner.get_or_insert_with(|| Assigner::new(Arc::clone(state)));
        assigner.advance(state);
        let revision = assigner.revision(node);
        if known == Some(&revision) {
            return None;
        }
        let assignment = assigner.assignment(node);
        Some((revision, Orders { assignment }))
    }

    /// Forgets the state: this manager no longer leads.
    pub fn clear(&self) {
        *self.assigner.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Orders {
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
