//! A plan is what the leader proposes next: changes that follow from a snapshot and a time.

use crate::allocator::{allocate_endpoint, allocate_networks, number_nodes};
use crate::change::Change;
use crate::draft::Draft;
use crate::ids::Ids;
use crate::orchestrator::{bury_orphans, open_gates, orchestrate, reap_attachments, reap_removed_service};
use crate::scheduler::schedule;
use crate::state::State;
use crate::table::Keyed;
use gantry_model::id::ServiceId;
use jiff::Timestamp;
use std::collections::HashMap;

/// What the leader shall do next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be proposed in one batch. Empty: all is as it shall be.
    pub changes: Vec<Change>,
    /// When to plan again even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// Decides, and remembers which services it need not look at again until something of them changes. The memory only
/// saves time: a new planner decides the same.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    seen: HashMap<ServiceId, Seen>,
}

/// A service at which there was nothing to do.
#[derive(Debug, Clone)]
struct Seen {
    /// The store's index when it was looked at.
    index: u64,
    /// When it has to be looked at again even if nothing changes.
    wake_at: Option<Timestamp>,
}

impl Planner {
    /// What the leader shall do next.
    pub fn plan(&mut self, state: &State, now: Timestamp, ids: &mut Ids) -> Plan {
        if state.cluster().is_none() {
            return Plan::default();
        }
        let mut draft = Draft::new(state, now, ids);
        number_nodes(&mut draft);
        allocate_networks(&mut draft);
        bury_orphans(&mut draft);
        self.services(&mut draft);
        reap_attachments(&mut draft);
        open_gates(&mut draft);
        schedule(&mut draft);
        draft.finish()
    }

    fn services(&mut self, draft: &mut Draft<'_>) {
        let others_wake = draft.take_wake();
        let mut wakes = vec![others_wake];
        let mut ids: Vec<ServiceId> = Vec::new();
        for group in draft.state.groups().iter() {
            let Ok(id) = ServiceId::parse(group.key()) else { continue };
            match self.seen.get(&id) {
                Some(seen) if seen.holds(draft, group.touched) => wakes.push(seen.wake_at),
                _ => ids.push(id),
            }
        }
        ids.sort_unstable();
        for id in ids {
            let before = draft.edits();
            one_service(draft, &id);
            let wake_at = draft.take_wake();
            let idle = draft.edits() == before && draft.blocked(&id).is_none();
            if idle && draft.state.service(&id).is_some() {
                self.seen.insert(id, Seen { index: draft.base_index(), wake_at });
            } else {
                self.seen.remove(&id);
            }
            wakes.push(wake_at);
        }
        for at in wakes.into_iter().flatten() {
            draft.wake(at);
        }
    }
}

impl Seen {
    /// Whether there still is nothing to do, when the service was last touched at the index `touched`.
    fn holds(&self, draft: &Draft<'_>, touched: u64) -> bool {
        let indexes = &draft.state.indexes;
        let last = touched.max(indexes.nodes_touched).max(indexes.networks_touched);
        last <= self.index && self.wake_at.is_none_or(|at| at > draft.now)
    }
}

fn one_service(draft: &mut Draft<'_>, id: &ServiceId) {
    let Some(service) = draft.state.service(id).cloned() else {
        reap_removed_service(draft, id);
        return;
    };
    if let Err(why) = allocate_endpoint(draft, &service) {
        draft.block(id, why);
    }
    if let Some(service) = draft.state.service(id).cloned() {
        orchestrate(draft, &service);
    }
}

/// What the leader shall do next, decided without memory.
pub fn plan(state: &State, now: Timestamp, ids: &mut Ids) -> Plan {
    Planner::default().plan(state, now, ids)
}
