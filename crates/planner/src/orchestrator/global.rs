//! Global services: one task on each node that fits.

use super::slot::{Occupancy, Slot, SlotKey, Start, by_node, fill, is_lost, slots_of, tend, wanted};
use super::update;
use crate::constraint::Constraints;
use crate::draft::Draft;
use crate::scheduler::runs_platform;
use gantry_model::id::NodeId;
use gantry_model::node::{Availability, Node, NodeState};
use gantry_model::service::Service;
use gantry_model::task::TaskState;
use std::collections::BTreeMap;

/// What a node is to a global service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Has or gets a task.
    Open,
    /// Keeps the task that it has: it is paused, or does not answer.
    Kept,
    /// Must not have one.
    Closed,
}

/// What a node is to a global service.
pub fn place(node: &Node, service: &Service, constraints: &Constraints) -> Place {
    let platforms = &service.spec.task_template.placement.platforms;
    if node.spec.availability == Availability::Drain
        || !constraints.met_by(node)
        || !runs_platform(node, platforms)
    {
        return Place::Closed;
    }
    let open = node.spec.availability == Availability::Active && node.status.state == NodeState::Ready;
    if open { Place::Open } else { Place::Kept }
}

/// The nodes and what each is to a global service.
pub fn places(draft: &Draft<'_>, service: &Service, constraints: &Constraints) -> BTreeMap<NodeId, Place> {
    draft.state.nodes().iter().map(|node| (node.id.clone(), place(node, service, constraints))).collect()
}

/// Brings a global service to one task on each node that fits.
pub fn global(draft: &mut Draft<'_>, service: &Service, constraints: &Constraints) {
    let before = draft.edits();
    let slots = slots_of(draft, &service.id, by_node);
    let places = places(draft, service, constraints);
    stop_elsewhere(draft, &slots, &places);
    for (node, place) in &places {
        if *place != Place::Open {
            continue;
        }
        let key = SlotKey::Node(node.clone());
        let slot = slots.get(&key);
        match slot.map(|slot| slot.occupancy(service)) {
            None | Some(Occupancy::Vacant) => {
                let start = if slot.is_some_and(Slot::may_run) { Start::AfterOthers } else { Start::Now };
                fill(draft, service, &key, slot, start);
            }
            Some(_) => {
                if let Some(slot) = slot {
                    tend(draft, service, constraints, &key, slot);
                }
            }
        }
    }
    let mut slots = if draft.edits() == before || !update::concerns(draft, service, &slots) {
        slots
    } else {
        slots_of(draft, &service.id, by_node)
    };
    // A node that does not answer cannot be updated, and must not hold up the others.
    slots.retain(|key, _| match key {
        SlotKey::Node(node) => matches!(places.get(node), Some(Place::Open)) && !is_lost(draft, node),
        SlotKey::Replica(_) => false,
    });
    update::advance(draft, service, &slots);
}

/// Stops the tasks on nodes that must not have one.
pub fn stop_elsewhere(
    draft: &mut Draft<'_>,
    slots: &BTreeMap<SlotKey, Slot>,
    places: &BTreeMap<NodeId, Place>,
) {
    for (key, slot) in slots {
        let closed = match key {
            SlotKey::Node(node) => !matches!(places.get(node), Some(Place::Open | Place::Kept)),
            SlotKey::Replica(_) => true,
        };
        if closed {
            for task in slot.tasks().iter().filter(|task| wanted(task)) {
                draft.desire(task, TaskState::Shutdown);
            }
        }
    }
}
