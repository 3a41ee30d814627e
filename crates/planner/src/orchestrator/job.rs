//! Jobs: tasks that end. The version of the service's specification counts the iterations: an update starts a new one.

use super::global::{Place, places, stop_elsewhere};
use super::restart::stopped_by_managers;
use super::slot::{Occupancy, Slot, SlotKey, Start, by_node, by_number, fill, slots_of, tend, wanted};
use crate::constraint::Constraints;
use crate::draft::Draft;
use crate::index::is_live;
use gantry_model::service::Service;
use gantry_model::task::{Task, TaskState};
use std::collections::BTreeMap;

/// Brings a replicated job nearer to its number of completions, with no more tasks at once than it allows.
pub fn replicated_job(draft: &mut Draft<'_>, service: &Service, constraints: &Constraints) {
    let mode = service.spec.mode.replicated_job.clone().unwrap_or_default();
    let concurrent = mode.max_concurrent.unwrap_or(1);
    let total = mode.total_completions.unwrap_or(concurrent);
    let slots = this_iteration(draft, service, by_number);
    let mut busy = 0u64;
    for (key, slot) in &slots {
        if slot.occupancy(service) == Occupancy::Live {
            busy += 1;
            tend(draft, service, constraints, key, slot);
        } else {
            finish(draft, slot);
        }
    }
    for number in 1..=total {
        if busy >= concurrent {
            return;
        }
        let key = SlotKey::Replica(number);
        let slot = slots.get(&key);
        if slot.is_none_or(|slot| slot.occupancy(service) == Occupancy::Vacant) {
            fill(
                draft,
                service,
                &key,
                slot,
                if slot.is_some_and(Slot::may_run) { Start::AfterOthers } else { Start::Now },
            );
            busy += 1;
        }
    }
}

/// Runs one task to its end on each node that fits.
pub fn global_job(draft: &mut Draft<'_>, service: &Service, constraints: &Constraints) {
    let slots = this_iteration(draft, service, by_node);
    let places = places(draft, service, constraints);
    stop_elsewhere(draft, &slots, &places);
    for (node, _) in places.iter().filter(|(_, place)| **place == Place::Open) {
        let key = SlotKey::Node(node.clone());
        match slots.get(&key) {
            Some(slot) if slot.occupancy(service) == Occupancy::Live => {
                tend(draft, service, constraints, &key, slot)
            }
            Some(slot) if slot.occupancy(service) == Occupancy::Done => finish(draft, slot),
            slot => fill(draft, service, &key, slot, Start::Now),
        }
    }
}

/// The slots with the tasks of this iteration only; those of earlier ones go.
fn this_iteration(
    draft: &mut Draft<'_>,
    service: &Service,
    key: fn(&Task) -> SlotKey,
) -> BTreeMap<SlotKey, Slot> {
    let old: Vec<_> = draft
        .state
        .tasks_of_service(&service.id)
        .filter(|task| task.spec_version != service.spec_version)
        .cloned()
        .collect();
    for task in old {
        draft.desire(&task, TaskState::Remove);
    }
    slots_of(draft, &service.id, key)
}

/// An ended task of a job is wanted no more: so its record shows.
fn finish(draft: &mut Draft<'_>, slot: &Slot) {
    if let Some(current) = slot.current()
        && wanted(current)
        && !is_live(current)
        && !stopped_by_managers(current)
        && current.status.state != TaskState::Complete
    {
        draft.desire(current, TaskState::Shutdown);
    }
}
