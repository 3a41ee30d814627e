//! Replicated services: a number of equal slots.

use super::slot::{Occupancy, Slot, SlotKey, Start, by_number, fill, slots_of, tend};
use super::update;
use crate::constraint::Constraints;
use crate::draft::Draft;
use gantry_model::id::NodeId;
use gantry_model::service::Service;
use gantry_model::task::TaskState;
use std::collections::{BTreeMap, HashMap};

/// Brings a replicated service to its number of tasks.
pub fn replicated(draft: &mut Draft<'_>, service: &Service, constraints: &Constraints) {
    let wanted = service.spec.mode.replicated.as_ref().and_then(|mode| mode.replicas).unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let before = draft.edits();
    let slots = slots_of(draft, &service.id, by_number);
    let (occupied, vacant): (Vec<_>, Vec<_>) =
        slots.iter().partition(|(_, slot)| slot.occupancy(service) != Occupancy::Vacant);
    if occupied.len() > wanted {
        remove_slots(draft, &occupied, occupied.len() - wanted);
    } else {
        for (key, slot) in &occupied {
            tend(draft, service, constraints, key, slot);
        }
        let vacant: BTreeMap<_, _> = vacant.into_iter().collect();
        add_slots(draft, service, &slots, &vacant, wanted - occupied.len());
    }
    // What was made just now has the new template: it leaves nothing to update where nothing was.
    if draft.edits() == before || !update::concerns(draft, service, &slots) {
        update::advance(draft, service, &slots);
    } else {
        let slots = slots_of(draft, &service.id, by_number);
        update::advance(draft, service, &slots);
    }
}

fn add_slots(
    draft: &mut Draft<'_>,
    service: &Service,
    slots: &BTreeMap<SlotKey, Slot>,
    vacant: &BTreeMap<&SlotKey, &Slot>,
    count: usize,
) {
    let mut numbers = 1u64..;
    for _ in 0..count {
        let free = numbers
            .by_ref()
            .map(SlotKey::Replica)
            .find(|key| vacant.contains_key(key) || !slots.contains_key(key));
        let Some(key) = free else { return };
        let slot = vacant.get(&key).copied();
        // What was told to stop in this slot may still run.
        let start = if slot.is_some_and(Slot::may_run) { Start::AfterOthers } else { Start::Now };
        fill(draft, service, &key, slot, start);
    }
}

/// Removes slots: first those that do not run, then those of the most crowded nodes, then the highest numbers.
fn remove_slots(draft: &mut Draft<'_>, occupied: &[(&SlotKey, &Slot)], count: usize) {
    let mut on_node: HashMap<&NodeId, usize> = HashMap::new();
    let mut ranked = Vec::with_capacity(occupied.len());
    for (key, slot) in occupied {
        let running = slot.tasks().iter().rfind(|task| task.status.state == TaskState::Running);
        let rank = running.map(|task| {
            let place = on_node.entry(&task.node_id).or_default();
            *place += 1;
            *place
        });
        ranked.push((rank, *key, *slot));
    }
    ranked.sort_unstable_by(|a, b| (b.0.is_none(), b.0, b.1).cmp(&(a.0.is_none(), a.0, a.1)));
    for (_, _, slot) in ranked.into_iter().take(count) {
        for task in slot.tasks() {
            draft.desire(task, TaskState::Remove);
        }
    }
}
