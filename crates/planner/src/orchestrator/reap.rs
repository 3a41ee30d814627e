//! The reaper: what has ended is forgotten, after a history that the cluster's specification limits.

use super::restart::history_needed;
use super::slot::{by_node, by_number, slots_of};
use crate::draft::Draft;
use crate::index::is_placed;
use crate::object::ObjectRef;
use gantry_model::id::ServiceId;
use gantry_model::service::Service;
use gantry_model::task::{Task, TaskState};
use std::sync::Arc;
use std::time::Duration;

/// Tasks kept for a slot when the specification names no number, as Docker does; the running one is among them.
const HISTORY: i64 = 5;
/// How long a node may be down before its tasks are given up.
const ORPHANED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Gives up the tasks of nodes that are gone, or down for a day: nothing will ever be heard of them.
pub fn bury_orphans(draft: &mut Draft<'_>) {
    let mut gone = Vec::new();
    for id in Arc::clone(&draft.state.indexes.silent).iter() {
        let since = draft.state.node(id).map(|node| node.status.since.clone());
        let has_tasks = draft.state.tasks_of_node(id).next().is_some();
        if has_tasks && since.is_none_or(|since| draft.passed(&since, ORPHANED_AFTER)) {
            gone.push(id.clone());
        }
    }
    for node in gone {
        let tasks: Vec<Arc<Task>> = draft.state.tasks_of_node(&node).cloned().collect();
        for task in tasks.iter().filter(|task| !task.status.state.is_terminal()) {
            draft.observe(&task.id, TaskState::Orphaned, "orphaned", "the task's node is gone");
        }
    }
}

/// Deletes what is to be removed and has ended, and the oldest ended tasks of slots with too long a history.
pub fn reap_history(draft: &mut Draft<'_>, service: &Service) {
    remove_ended(draft, &service.id);
    let limit = draft
        .state
        .cluster()
        .and_then(|record| record.cluster.spec.orchestration.task_history_retention_limit);
    let Ok(limit) = usize::try_from(limit.unwrap_or(HISTORY)) else { return };
    let limit = limit.max(1).max(history_needed(service));
    let global = service.spec.mode.global.is_some() || service.spec.mode.global_job.is_some();
    // Most services have nothing to forget: that is seen without sorting their tasks into slots.
    let (mut tasks, mut surplus) = (0, false);
    for task in draft.state.tasks_of_service(&service.id) {
        tasks += 1;
        surplus |= is_history(task);
    }
    if !surplus || tasks <= limit {
        return;
    }
    let slots = slots_of(draft, &service.id, if global { by_node } else { by_number });
    for slot in slots.values().filter(|slot| slot.tasks().len() > limit) {
        let mut surplus = slot.tasks().len() - limit;
        for task in slot.earlier() {
            if surplus > 0 && is_history(task) {
                draft.delete(ObjectRef::Task(task.id.clone()));
                surplus -= 1;
            }
        }
    }
}

/// Removes the tasks of a service that was removed.
pub fn reap_removed_service(draft: &mut Draft<'_>, service: &ServiceId) {
    let tasks: Vec<Arc<Task>> = draft.state.tasks_of_service(service).cloned().collect();
    for task in tasks {
        draft.desire(&task, TaskState::Remove);
    }
    remove_ended(draft, service);
}

/// Deletes attachments whose container has gone.
pub fn reap_attachments(draft: &mut Draft<'_>) {
    let ended: Vec<Arc<Task>> = draft.state.attachments().filter(|task| has_ended(task)).cloned().collect();
    for task in ended {
        draft.delete(ObjectRef::Task(task.id.clone()));
    }
}

fn remove_ended(draft: &mut Draft<'_>, service: &ServiceId) {
    let done: Vec<Arc<Task>> = draft
        .state
        .tasks_of_service(service)
        .filter(|task| task.desired_state == TaskState::Remove && has_ended(task))
        .cloned()
        .collect();
    for task in done {
        draft.delete(ObjectRef::Task(task.id.clone()));
    }
}

/// Whether a task is only kept to be looked at.
fn is_history(task: &Task) -> bool {
    has_ended(task) && task.desired_state > TaskState::Complete
}

fn has_ended(task: &Task) -> bool {
    task.status.state.is_terminal() || (!is_placed(task) && task.desired_state > TaskState::Complete)
}
