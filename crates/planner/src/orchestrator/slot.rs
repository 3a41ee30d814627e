//! A slot is the place of one task of a service: the n-th replica, or the one task of a node. Its tasks follow one
//! another; the newest is the *current* one, and older ones that still run are on their way out.

use super::restart::{self, Verdict};
use crate::constraint::Constraints;
use crate::draft::Draft;
use crate::index::{is_live, is_placed, protocol_of};
use crate::time;
use gantry_model::id::{NodeId, ServiceId};
use gantry_model::node::{Availability, NodeState};
use gantry_model::service::{PortConfig, Service};
use gantry_model::task::{Task, TaskState, TaskStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a task on a drained node keeps running while no other node can take its replacement.
const PATIENCE: Duration = Duration::from_secs(30);
/// Heartbeat when the cluster's specification names none; also how long a lost node's tasks are left alone.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Which slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotKey {
    /// The n-th replica.
    Replica(u64),
    /// The task of a node.
    Node(NodeId),
}

/// The tasks of a slot, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    tasks: Vec<Arc<Task>>,
}

/// Whether a slot needs a new task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupancy {
    /// A task runs in it, or is on the way to.
    Live,
    /// Its task ended, and no other is to follow.
    Done,
    /// Nothing in it counts any more.
    Vacant,
}

impl Slot {
    /// The newest task.
    pub fn current(&self) -> Option<&Arc<Task>> {
        self.tasks.last()
    }

    /// All tasks but the newest.
    pub fn earlier(&self) -> &[Arc<Task>] {
        self.tasks.split_last().map_or(&[], |(_, earlier)| earlier)
    }

    /// All tasks, the oldest first.
    pub fn tasks(&self) -> &[Arc<Task>] {
        &self.tasks
    }

    /// Whether a container of the slot may still run, also one that was told to stop.
    pub fn may_run(&self) -> bool {
        self.tasks.iter().any(|task| is_placed(task) && !task.status.state.is_terminal())
    }

    /// Whether the slot needs a new task.
    pub fn occupancy(&self, service: &Service) -> Occupancy {
        match self.current() {
            _ if self.tasks.iter().any(|task| is_live(task)) => Occupancy::Live,
            Some(current) if current.status.state.is_terminal() => match restart::verdict(service, self) {
                Verdict::Done => Occupancy::Done,
                // Ended, and its replacement is still to be made.
                Verdict::After(_) if wanted(current) => Occupancy::Live,
                Verdict::After(_) => Occupancy::Vacant,
            },
            _ => Occupancy::Vacant,
        }
    }
}

/// Whether the managers want the task to run (or to be ready).
pub fn wanted(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete
}

/// The slots of a service. Tasks that are to be removed are in none.
pub fn slots_of(
    draft: &Draft<'_>,
    service: &ServiceId,
    key: fn(&Task) -> SlotKey,
) -> BTreeMap<SlotKey, Slot> {
    let mut slots: BTreeMap<SlotKey, Slot> = BTreeMap::new();
    for task in draft.state.tasks_of_service(service).filter(|task| task.desired_state < TaskState::Remove) {
        slots.entry(key(task)).or_default().tasks.push(Arc::clone(task));
    }
    for slot in slots.values_mut() {
        slot.tasks.sort_unstable_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
    }
    slots
}

/// The slot of a replica.
pub fn by_number(task: &Task) -> SlotKey {
    SlotKey::Replica(task.slot)
}

/// The slot of a node's task.
pub fn by_node(task: &Task) -> SlotKey {
    SlotKey::Node(task.node_id.clone())
}

/// Whether a task's node is still right for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// It is, or the task has no node.
    Fit,
    /// The node does not answer, for longer than the grace.
    Lost,
    /// The node is there, but the task has to leave it.
    Unwanted,
}

/// Whether a node does not answer, for longer than the grace: one heartbeat more than it took to call it down. One that is dead
/// beyond doubt has none.
pub fn is_lost(draft: &mut Draft<'_>, node: &NodeId) -> bool {
    let Some(node) = draft.state.node(node).cloned() else { return true };
    match node.status.state {
        NodeState::Ready | NodeState::Unknown => false,
        NodeState::Disconnected => true,
        NodeState::Down if node.status.gone => true,
        NodeState::Down => {
            let period =
                draft.state.cluster().map_or(0, |record| record.cluster.spec.dispatcher.heartbeat_period);
            let grace = if period > 0 { time::nanos(period) } else { HEARTBEAT };
            draft.passed(&node.status.since, grace)
        }
    }
}

/// Whether a task's node is still right for it.
pub fn fitness(draft: &mut Draft<'_>, task: &Task, constraints: &Constraints) -> Fitness {
    if !is_placed(task) {
        return Fitness::Fit;
    }
    if is_lost(draft, &task.node_id) {
        return Fitness::Lost;
    }
    let Some(node) = draft.state.node(&task.node_id) else { return Fitness::Lost };
    if node.spec.availability == Availability::Drain || !constraints.met_by(node) {
        Fitness::Unwanted
    } else {
        Fitness::Fit
    }
}

/// What a service's tasks shall do in the end.
pub fn goal(service: &Service) -> TaskState {
    let mode = &service.spec.mode;
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        TaskState::Complete
    } else {
        TaskState::Running
    }
}

/// Puts a new task into a slot.
pub fn fill(draft: &mut Draft<'_>, service: &Service, key: &SlotKey, slot: Option<&Slot>, start: Start) {
    let newest = slot.and_then(Slot::current).and_then(|task| time::parse(&task.created_at));
    // The order of the tasks of a slot is that of their creation, even if the leader's clock went back.
    let created = match newest.filter(|newest| *newest >= draft.now) {
        Some(newest) => time::text(time::after(newest, Duration::from_nanos(1))),
        None => draft.now_text(),
    };
    let (slot_number, node_id) = match key {
        SlotKey::Replica(number) => (*number, NodeId::default()),
        SlotKey::Node(node) => (0, node.clone()),
    };
    let goal = goal(service);
    let (desired_state, start_after) = match start {
        Start::Now => (goal, String::new()),
        Start::AfterOthers => (TaskState::Ready, String::new()),
        Start::After(delay) => (TaskState::Ready, time::text(time::after(draft.now, delay))),
    };
    let spec = draft.template(service);
    let task = Task {
        id: draft.ids.task(),
        created_at: created,
        updated_at: draft.now_text(),
        spec,
        spec_version: service.spec_version,
        job_iteration: service.job_status.as_ref().map(|status| status.job_iteration),
        service_id: service.id.clone(),
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        slot: slot_number,
        node_id,
        status: TaskStatus {
            timestamp: draft.now_text(),
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        desired_state,
        host_ports: host_ports(service),
        start_after,
        ..Task::default()
    };
    draft.put_task(task);
}

/// When a new task may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, beside what runs in the slot.
    Now,
    /// As soon as nothing else runs in the slot.
    AfterOthers,
    /// The same, and not before this time has passed.
    After(Duration),
}

/// The ports that each task of a service publishes on its own node.
pub fn host_ports(service: &Service) -> Vec<PortConfig> {
    let spec = service.spec.endpoint_spec.as_ref();
    let mut ports: Vec<PortConfig> = spec
        .map(|spec| spec.ports.iter().filter(|port| port.publish_mode == "host").cloned().collect())
        .unwrap_or_default();
    ports.sort_by_key(|port| (port.target_port, port.published_port, protocol_of(port)));
    ports
}

/// Replaces what ended, and what sits on the wrong node; stops what a running replacement made superfluous.
pub fn tend(draft: &mut Draft<'_>, service: &Service, constraints: &Constraints, key: &SlotKey, slot: &Slot) {
    let Some(current) = slot.current() else { return };
    for outgoing in slot.earlier().iter().filter(|task| wanted(task)) {
        if is_superfluous(draft, outgoing, current) {
            draft.desire(outgoing, TaskState::Shutdown);
        }
    }
    if current.status.state.is_terminal() {
        after_end(draft, service, key, slot, current);
        return;
    }
    if !wanted(current) {
        return;
    }
    match fitness(draft, current, constraints) {
        Fitness::Fit => {}
        Fitness::Lost => {
            draft.desire(current, TaskState::Shutdown);
            fill(draft, service, key, Some(slot), Start::Now);
        }
        Fitness::Unwanted => {
            // A running task leaves only when its replacement runs; what does not run yet need not wait for anything.
            if current.status.state != TaskState::Running {
                draft.desire(current, TaskState::Shutdown);
            }
            fill(draft, service, key, Some(slot), Start::Now);
        }
    }
}

fn is_superfluous(draft: &mut Draft<'_>, outgoing: &Task, current: &Task) -> bool {
    if outgoing.status.state != TaskState::Running || current.status.state == TaskState::Running {
        return true;
    }
    if is_lost(draft, &outgoing.node_id) {
        return true;
    }
    let drained =
        draft.state.node(&outgoing.node_id).is_some_and(|node| node.spec.availability == Availability::Drain);
    let stuck = current.status.state == TaskState::Pending && !current.status.err.is_empty();
    drained && stuck && draft.passed(&current.created_at, PATIENCE)
}

fn after_end(draft: &mut Draft<'_>, service: &Service, key: &SlotKey, slot: &Slot, current: &Arc<Task>) {
    let was_wanted = wanted(current);
    match restart::verdict(service, slot) {
        Verdict::Done => draft.desire(current, TaskState::Shutdown),
        // It ended before it was to start (its image cannot be had, perhaps), in the pause after the one before: what follows has to
        // keep that pause too, or one mistake in a specification would make tasks as fast as they can fail.
        Verdict::After(_) if was_wanted && !draft.passed(&current.start_after, Duration::ZERO) => {}
        Verdict::After(delay) if was_wanted => {
            draft.desire(current, TaskState::Shutdown);
            let start = if delay.is_zero() { Start::AfterOthers } else { Start::After(delay) };
            // Beside an outgoing task that still serves, the replacement starts without waiting for its end.
            let serves = slot.earlier().iter().any(|task| is_live(task));
            fill(draft, service, key, Some(slot), if serves && delay.is_zero() { Start::Now } else { start });
        }
        Verdict::After(_) => {}
    }
}
