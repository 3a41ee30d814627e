//! The reaper: what has ended is forgotten, after a history that the cluster's specification limits.

use super::restart::history_needed;
use super::slot::{by_node, by_number, slots_of};
use crate::draft::Draft;
use crate::index::is_placed;
use crate::object::ObjectRef;
use crate::table::Keyed;
use gantry_model::id::{NodeId, ServiceId};
use gantry_model::node::{Node, NodeState};
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
    let silent = |node: &Node| matches!(node.status.state, NodeState::Down | NodeState::Disconnected);
    let mut suspects: Vec<(NodeId, Option<String>)> = Vec::new();
    for group in draft.state.indexes.by_node.iter() {
        let node = draft.state.nodes.get(group.key());
        if node.is_none_or(|node| silent(node))
            && let Ok(id) = NodeId::parse(group.key())
        {
            suspects.push((id, node.map(|node| node.status.since.clone())));
        }
    }
    suspects.sort_unstable();
    let mut gone = Vec::new();
    for (node, silent_since) in suspects {
        if silent_since.is_none_or(|since| draft.passed(&since, ORPHANED_AFTER)) {
            gone.push(node);
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
    if draft.state.tasks_of_service(&service.id).count() <= limit {
        return;
    }
    let slots = slots_of(draft, &service.id, if global { by_node } else { by_number });
    for slot in slots.values().filter(|slot| slot.tasks().len() > limit) {
        let mut surplus = slot.tasks().len() - limit;
        for task in slot.earlier() {
            if surplus > 0 && has_ended(task) && task.desired_state > TaskState::Complete {
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

fn has_ended(task: &Task) -> bool {
    task.status.state.is_terminal() || (!is_placed(task) && task.desired_state > TaskState::Complete)
}
