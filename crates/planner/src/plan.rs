//! A plan is what the leader proposes next: changes that follow from a snapshot and a time.

use crate::allocator::{allocate_endpoint, allocate_networks, number_nodes};
use crate::change::Change;
use crate::draft::Draft;
use crate::ids::Ids;
use crate::index::TaskGroup;
use crate::orchestrator::{bury_orphans, open_gates, orchestrate, reap_attachments, reap_removed_service};
use crate::scheduler::schedule;
use crate::state::State;
use crate::table::{Keyed, Table};
use gantry_model::id::{NodeId, ServiceId};
use gantry_model::node::Node;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

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
    memory: Option<Memory>,
    rest: Option<Rest>,
}

/// At this index there was nothing to do.
#[derive(Debug, Clone)]
struct Rest {
    index: u64,
    now: Timestamp,
    wake_at: Option<Timestamp>,
}

/// What there was when the services were looked at last. A later state shares with it whatever did not change, so what did is
/// found without looking at the rest.
#[derive(Debug, Clone)]
struct Memory {
    groups: Table<TaskGroup>,
    nodes: Table<Node>,
    networks_touched: u64,
    /// Services that wait for something, or at which something was to do: the plan may have been refused.
    unfinished: BTreeSet<ServiceId>,
    /// When services have to be looked at even if nothing changes.
    wakes: Wakes,
}

/// Times by service, and the other way round.
#[derive(Debug, Clone, Default)]
struct Wakes {
    of: BTreeMap<ServiceId, Timestamp>,
    queue: BTreeSet<(Timestamp, ServiceId)>,
}

impl Wakes {
    fn set(&mut self, service: &ServiceId, at: Option<Timestamp>) {
        let old = match at {
            Some(at) => self.of.insert(service.clone(), at),
            None => self.of.remove(service),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.queue.remove(&(old, service.clone()));
        }
        if let Some(at) = at {
            self.queue.insert((at, service.clone()));
        }
    }

    fn until(&self, now: Timestamp) -> impl Iterator<Item = &ServiceId> {
        self.queue.iter().take_while(move |(at, _)| *at <= now).map(|(_, service)| service)
    }
}

impl Planner {
    /// What the leader shall do next.
    pub fn plan(&mut self, state: &State, now: Timestamp, ids: &mut Ids) -> Plan {
        if state.cluster().is_none() {
            return Plan::default();
        }
        if let Some(rest) = self.rest.as_ref().filter(|rest| rest.holds(state, now)) {
            return Plan { changes: Vec::new(), wake_at: rest.wake_at };
        }
        let mut draft = Draft::new(state, now, ids);
        number_nodes(&mut draft);
        allocate_networks(&mut draft);
        bury_orphans(&mut draft);
        self.services(state, &mut draft);
        reap_attachments(&mut draft);
        open_gates(&mut draft);
        schedule(&mut draft);
        let plan = draft.finish();
        let rest = Rest { index: state.index(), now, wake_at: plan.wake_at };
        self.rest = plan.changes.is_empty().then_some(rest);
        plan
    }

    fn services(&mut self, base: &State, draft: &mut Draft<'_>) {
        let others_wake = draft.take_wake();
        let due = match &self.memory {
            Some(memory) => memory.due(draft),
            None => all(&draft.state),
        };
        let memory = self.memory.get_or_insert_with(|| Memory::of(base));
        for id in due {
            let before = draft.edits();
            one_service(draft, &id);
            let wake_at = draft.take_wake();
            let idle = draft.edits() == before && draft.blocked(&id).is_none();
            if draft.state.indexes.by_service.contains(id.as_str()) {
                memory.note(&id, idle && draft.state.service(&id).is_some(), wake_at);
            } else {
                memory.note(&id, true, None);
            }
        }
        memory.groups = base.indexes.by_service.clone();
        memory.nodes = base.nodes.clone();
        memory.networks_touched = base.indexes.networks_touched;
        let services_wake = memory.wakes.queue.first().map(|(at, _)| *at);
        for at in [others_wake, services_wake].into_iter().flatten() {
            draft.wake(at);
        }
    }
}

impl Rest {
    /// Whether there still is nothing to do.
    fn holds(&self, state: &State, now: Timestamp) -> bool {
        self.index == state.index() && self.now <= now && self.wake_at.is_none_or(|at| at > now)
    }
}

impl Memory {
    fn of(base: &State) -> Self {
        Self {
            groups: base.indexes.by_service.clone(),
            nodes: base.nodes.clone(),
            networks_touched: base.indexes.networks_touched,
            unfinished: BTreeSet::new(),
            wakes: Wakes::default(),
        }
    }

    fn note(&mut self, service: &ServiceId, finished: bool, wake_at: Option<Timestamp>) {
        if finished {
            self.unfinished.remove(service);
        } else {
            self.unfinished.insert(service.clone());
        }
        self.wakes.set(service, wake_at);
    }

    /// The services that have to be looked at.
    fn due(&self, draft: &Draft<'_>) -> BTreeSet<ServiceId> {
        let state = &draft.state;
        if state.indexes.networks_touched != self.networks_touched {
            // A gone service is looked at once more, so that it is forgotten here.
            return all(state).into_iter().chain(self.unfinished.iter().cloned()).collect();
        }
        let mut due = self.unfinished.clone();
        due.extend(self.wakes.until(draft.now).cloned());
        state.indexes.by_service.differences(&self.groups, &mut |_, old, new| {
            let keys = [old, new].into_iter().flatten();
            due.extend(keys.filter_map(|group| ServiceId::parse(group.key()).ok()));
        });
        let mut nodes: Vec<&NodeId> = Vec::new();
        state.nodes.differences(&self.nodes, &mut |_, old, new| {
            nodes.extend([old, new].into_iter().flatten().map(|node| &node.id));
        });
        if !nodes.is_empty() {
            due.extend(everywhere(state));
        }
        for task in nodes.into_iter().flat_map(|node| state.tasks_of_node(node)) {
            if !task.service_id.is_empty() && !due.contains(&task.service_id) {
                due.insert(task.service_id.clone());
            }
        }
        due
    }
}

/// All services, and those that are gone and still have tasks.
fn all(state: &State) -> BTreeSet<ServiceId> {
    state.indexes.by_service.iter().filter_map(|group| ServiceId::parse(group.key()).ok()).collect()
}

/// The services whose tasks are wherever a node is.
fn everywhere(state: &State) -> impl Iterator<Item = ServiceId> {
    let global = state
        .services()
        .iter()
        .filter(|service| service.spec.mode.global.is_some() || service.spec.mode.global_job.is_some());
    global.map(|service| service.id.clone())
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
