//! Gates: a task that was prepared while its predecessor stops (or while a restart is delayed) is told to start.

use super::slot::{goal, is_lost, wanted};
use crate::draft::Draft;
use crate::index::is_placed;
use crate::time;
use gantry_model::task::Task;
use std::sync::Arc;

/// Tells each waiting task to start whose time has come and beside which nothing in its slot is still on its way out.
pub fn open_gates(draft: &mut Draft<'_>) {
    let gated: Vec<Arc<Task>> = draft.state.indexes.gated.sorted().into_iter().cloned().collect();
    for task in gated {
        if !time_has_come(draft, &task) || slot_is_busy(draft, &task) {
            continue;
        }
        let Some(service) = draft.state.service(&task.service_id) else { continue };
        let goal = goal(service);
        draft.desire(&task, goal);
    }
}

fn time_has_come(draft: &mut Draft<'_>, task: &Task) -> bool {
    let Some(start) = time::parse(&task.start_after) else { return true };
    if start > draft.now {
        draft.wake(start);
    }
    start <= draft.now
}

/// Whether another container of the slot was told to stop and may still run. A container on a lost node cannot be waited for. One
/// that is still wanted serves until the waiting task runs (its node is drained, or the update starts first): waiting for that one
/// would be waiting for ever.
fn slot_is_busy(draft: &mut Draft<'_>, task: &Task) -> bool {
    let same_slot = |other: &Task| {
        let global = task.slot == 0;
        other.id != task.id && other.slot == task.slot && (!global || other.node_id == task.node_id)
    };
    let others: Vec<Arc<Task>> = draft
        .state
        .tasks_of_service(&task.service_id)
        .filter(|other| same_slot(other) && is_placed(other) && !other.status.state.is_terminal())
        .cloned()
        .collect();
    // Older tasks only: a younger one waits for this one, and two that wait for each other would wait for ever.
    let older = |other: &&Arc<Task>| (&other.created_at, &other.id) < (&task.created_at, &task.id);
    others.iter().filter(older).any(|other| !wanted(other) && !is_lost(draft, &other.node_id))
}
