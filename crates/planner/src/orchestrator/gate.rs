//! Gates: a task that was prepared while its predecessor stops (or while a restart is delayed) is told to start.

use super::slot::{SlotKey, by_node, by_number, goal, is_lost, wanted};
use crate::draft::Draft;
use crate::index::is_placed;
use crate::time;
use gantry_model::id::ServiceId;
use gantry_model::task::Task;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The tasks of one service that were told to stop and may still run, by their slot.
type Leaving = HashMap<SlotKey, Vec<Arc<Task>>>;

/// Tells each waiting task to start whose time has come and beside which nothing in its slot is still on its way out.
pub fn open_gates(draft: &mut Draft<'_>) {
    let mut by_service: BTreeMap<ServiceId, Vec<Arc<Task>>> = BTreeMap::new();
    for task in draft.state.listed(Some(&draft.state.indexes.gated)) {
        by_service.entry(task.service_id.clone()).or_default().push(Arc::clone(task));
    }
    for (id, gated) in by_service {
        let Some(goal) = draft.state.service(&id).map(|service| goal(service)) else { continue };
        let leaving = leaving(draft, &id);
        for task in gated {
            if time_has_come(draft, &task) && !slot_is_busy(draft, &task, &leaving) {
                draft.desire(&task, goal);
            }
        }
    }
}

fn leaving(draft: &Draft<'_>, service: &ServiceId) -> Leaving {
    let mut leaving = Leaving::new();
    for task in draft.state.tasks_of_service(service) {
        if is_placed(task) && !task.status.state.is_terminal() && !wanted(task) {
            leaving.entry(slot_of(task)).or_default().push(Arc::clone(task));
        }
    }
    leaving
}

fn slot_of(task: &Task) -> SlotKey {
    if task.slot == 0 { by_node(task) } else { by_number(task) }
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
fn slot_is_busy(draft: &mut Draft<'_>, task: &Task, leaving: &Leaving) -> bool {
    // Older tasks only: a younger one waits for this one, and two that wait for each other would wait for ever.
    let older = |other: &&Arc<Task>| (&other.created_at, &other.id) < (&task.created_at, &task.id);
    let others = leaving.get(&slot_of(task)).map(Vec::as_slice).unwrap_or_default();
    others.iter().filter(older).any(|other| !is_lost(draft, &other.node_id))
}
