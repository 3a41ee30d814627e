//! The scheduler chooses a node for each task that waits for one, and says why when there is none.
//!
//! Tasks of the same template are placed together. A node must pass every filter ([`filter`]); among those that pass,
//! tasks are spread over the values of the preferred labels ([`spread`]), then to where the service has the fewest,
//! then to where there are the fewest at all.

mod filter;
mod spread;

pub use filter::runs_platform;

use crate::allocator::attachments;
use crate::draft::Draft;
use filter::{Failures, Filter, Requirements};
use gantry_model::id::{NodeId, ServiceId, TaskId};
use gantry_model::node::{Availability, Node, NodeState};
use gantry_model::task::{NetworkAttachment, Task, TaskState};
use spread::Picker;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Nodes as the scheduler sees them during one plan: those that take tasks, what they have left, and their order by
/// how many tasks they have. A copy of what the state's indexes say, without looking each up by its id.
pub struct Field {
    nodes: Vec<Arc<Node>>,
    spare: Vec<Spare>,
    place_of: HashMap<NodeId, usize>,
    by_total: BTreeSet<(u32, usize)>,
}

/// What a node has left.
#[derive(Debug, Clone, Copy)]
struct Spare {
    nano_cpus: i64,
    memory_bytes: i64,
    active: u32,
}

impl Field {
    fn new(draft: &Draft<'_>) -> Self {
        let mut nodes: Vec<Arc<Node>> =
            draft.state.nodes().iter().filter(|node| is_open(node)).cloned().collect();
        nodes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let spare: Vec<Spare> = nodes.iter().map(|node| Spare::of(draft, node)).collect();
        let place_of = nodes.iter().enumerate().map(|(place, node)| (node.id.clone(), place)).collect();
        let by_total = spare.iter().enumerate().map(|(place, spare)| (spare.active, place)).collect();
        Self { nodes, spare, place_of, by_total }
    }

    /// Notes that a task was put on a node. The order by totals is brought up by [`Field::reorder`].
    fn take(&mut self, place: usize, needs: &Requirements) {
        let spare = &mut self.spare[place];
        spare.nano_cpus = spare.nano_cpus.saturating_sub(needs.nano_cpus);
        spare.memory_bytes = spare.memory_bytes.saturating_sub(needs.memory_bytes);
        spare.active += 1;
    }

    fn reorder(&mut self, place: usize, total_before: u32) {
        self.by_total.remove(&(total_before, place));
        self.by_total.insert((self.spare[place].active, place));
    }
}

impl Spare {
    fn of(draft: &Draft<'_>, node: &Node) -> Self {
        let has = &node.description.resources;
        let load = draft.state.load_of(&node.id);
        let (cpus, memory, active) =
            load.map_or((0, 0, 0), |load| (load.nano_cpus, load.memory_bytes, load.active));
        Self {
            nano_cpus: has.nano_cpus.saturating_sub(cpus),
            memory_bytes: has.memory_bytes.saturating_sub(memory),
            active,
        }
    }
}

/// Whether a node takes new tasks.
fn is_open(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

/// Chooses nodes for all tasks that wait for one.
pub fn schedule(draft: &mut Draft<'_>) {
    if draft.state.unplaced().is_empty() {
        return;
    }
    let mut groups: BTreeMap<(ServiceId, u64), Vec<Arc<Task>>> = BTreeMap::new();
    for task in draft.state.unplaced().iter() {
        groups.entry((task.service_id.clone(), task.spec_version)).or_default().push(Arc::clone(task));
    }
    let mut field = Field::new(draft);
    for ((service, _), mut tasks) in groups {
        tasks.sort_unstable_by(|a, b| (a.slot, &a.created_at, &a.id).cmp(&(b.slot, &b.created_at, &b.id)));
        let (bound, free): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| !task.node_id.is_empty());
        for task in &bound {
            place_bound(draft, &mut field, task);
        }
        place_group(draft, &mut field, &service, free);
    }
}

/// The task's addresses; when it cannot have them yet, the task says why.
fn addressed(draft: &mut Draft<'_>, task: &Task) -> Option<Vec<NetworkAttachment>> {
    let service = draft.state.service(&task.service_id).map(Arc::as_ref);
    let found = match draft.blocked(&task.service_id) {
        Some(why) => Err(why.clone()),
        None => attachments(&draft.state, service, task),
    };
    match found {
        Ok(attachments) => Some(attachments),
        Err(why) => {
            wait(
                draft,
                task,
                Waiting { state: TaskState::New, message: "pending address allocation", why: &why },
                Vec::new(),
            );
            None
        }
    }
}

fn assign(draft: &mut Draft<'_>, id: &TaskId, attachments: Vec<NetworkAttachment>, node: &NodeId) {
    let Some(mut task) = draft.take_task(id) else { return };
    task.networks_attachments = attachments;
    task.node_id = node.clone();
    task.status.state = TaskState::Assigned;
    task.status.timestamp = draft.now_text();
    task.status.message = "scheduler assigned task to node".to_owned();
    task.status.err.clear();
    draft.put_task(task);
}

/// What a task waits for.
struct Waiting<'w> {
    state: TaskState,
    message: &'w str,
    why: &'w str,
}

impl<'w> Waiting<'w> {
    fn for_node(why: &'w str) -> Self {
        Self { state: TaskState::Pending, message: "pending task scheduling", why }
    }
}

/// Notes what a task waits for. What is known already is not written again.
fn wait(draft: &mut Draft<'_>, task: &Task, waiting: Waiting<'_>, attachments: Vec<NetworkAttachment>) {
    let state = waiting.state.max(task.status.state);
    let status = &task.status;
    let same = status.state == state && status.err == waiting.why && status.message == waiting.message;
    if same && task.networks_attachments == attachments {
        return;
    }
    let mut task = task.clone();
    task.networks_attachments = attachments;
    task.status.state = state;
    task.status.timestamp = draft.now_text();
    task.status.message = waiting.message.to_owned();
    task.status.err = waiting.why.to_owned();
    draft.put_task(task);
}

/// Places a task that can only run on one node: that of a global service, or an attachment.
fn place_bound(draft: &mut Draft<'_>, field: &mut Field, task: &Task) {
    let Some(attachments) = addressed(draft, task) else { return };
    let Some(node) = draft.state.node(&task.node_id).cloned() else { return };
    let needs = Requirements::of(task);
    let load = draft.state.load_of(&node.id);
    let failed = Filter::ALL.into_iter().find(|filter| !filter.passes(&needs, &node, load));
    // The container of an attachment runs already.
    if let Some(filter) = failed.filter(|_| !task.service_id.is_empty()) {
        let mut failures = Failures::default();
        failures.count(filter);
        wait(draft, task, Waiting::for_node(&failures.explain()), attachments);
        return;
    }
    assign(draft, &task.id, attachments, &node.id);
    if let Some(place) = field.place_of.get(&node.id).copied() {
        let before = field.spare[place].active;
        field.take(place, &needs);
        field.reorder(place, before);
    }
}

fn place_group(draft: &mut Draft<'_>, field: &mut Field, service: &ServiceId, tasks: Vec<Arc<Task>>) {
    let Some(first) = tasks.first() else { return };
    let (needs, placement) = (Requirements::of(first), first.spec.placement.clone());
    let mut picker = Picker::new(draft, field, service, &placement, &needs);
    let mut explanation: Option<String> = None;
    for task in tasks {
        let Some(attachments) = addressed(draft, &task) else { continue };
        let choice = if explanation.is_some() { None } else { picker.next(draft, field) };
        match choice {
            Some(place) => {
                let id = task.id.clone();
                // So that the draft alone holds the task, and need not copy it.
                drop(task);
                assign(draft, &id, attachments, &field.nodes[place].id);
                picker.placed(field, place);
            }
            None => {
                let why = explanation.get_or_insert_with(|| explain(draft, &needs));
                wait(draft, &task, Waiting::for_node(why), attachments);
            }
        }
    }
    for (place, before) in picker.finish() {
        field.reorder(place, before);
    }
}

/// Why no node is left: for each filter, how many nodes it turned away.
fn explain(draft: &Draft<'_>, needs: &Requirements) -> String {
    let mut failures = Failures::default();
    for node in draft.state.nodes().iter() {
        if let Some(filter) =
            Filter::ALL.into_iter().find(|filter| !filter.passes(needs, node, draft.state.load_of(&node.id)))
        {
            failures.count(filter);
        }
    }
    failures.explain()
}
