//! The scheduler chooses a node for each task that waits for one, and says why when there is none.
//!
//! Tasks of the same template are placed together. A node must pass every filter ([`filter`]); among those that pass,
//! tasks are spread over the values of the preferred labels ([`spread`]), then to where the service has the fewest,
//! then to where there are the fewest at all.

mod filter;
mod spread;

pub use filter::runs_platform;

use crate::allocator::attach;
use crate::draft::Draft;
use filter::{Failures, Filter, Requirements};
use gantry_model::id::{NodeId, ServiceId};
use gantry_model::node::{Availability, Node, NodeState};
use gantry_model::task::{Task, TaskState};
use spread::Picker;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nodes as the scheduler sees them during one plan: those that take tasks, by how many they have.
pub struct Field {
    nodes: Vec<Arc<Node>>,
    by_total: std::collections::BTreeSet<(u32, usize)>,
}

impl Field {
    fn new(draft: &Draft<'_>) -> Self {
        let mut nodes: Vec<Arc<Node>> =
            draft.state.nodes().iter().filter(|node| is_open(node)).cloned().collect();
        nodes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let by_total =
            nodes.iter().enumerate().map(|(place, node)| (active_on(draft, &node.id), place)).collect();
        Self { nodes, by_total }
    }

    fn moved(&mut self, place: usize, before: u32, now: u32) {
        self.by_total.remove(&(before, place));
        self.by_total.insert((now, place));
    }
}

/// Whether a node takes new tasks.
fn is_open(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

fn active_on(draft: &Draft<'_>, node: &NodeId) -> u32 {
    draft.state.load_of(node).map_or(0, |load| load.active)
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
        if !free.is_empty() {
            place_group(draft, &mut field, &service, &free);
        }
    }
}

/// Gives the task its addresses; if it cannot have them yet, says why and returns none.
fn addressed(draft: &mut Draft<'_>, task: &Arc<Task>) -> Option<Task> {
    let service = draft.state.service(&task.service_id).cloned();
    let mut addressed = task.as_ref().clone();
    let blocked = draft.blocked(&task.service_id).cloned();
    match blocked.map_or_else(|| attach(&draft.state, service.as_deref(), &mut addressed), Err) {
        Ok(()) => Some(addressed),
        Err(why) => {
            wait(draft, addressed, TaskState::New, "pending address allocation", &why);
            None
        }
    }
}

fn assign(draft: &mut Draft<'_>, mut task: Task, node: &NodeId) {
    task.node_id = node.clone();
    task.status.state = TaskState::Assigned;
    task.status.timestamp = draft.now_text();
    task.status.message = "scheduler assigned task to node".to_owned();
    task.status.err.clear();
    draft.put_task(task);
}

fn wait(draft: &mut Draft<'_>, mut task: Task, state: TaskState, message: &str, why: &str) {
    let known = draft.state.task(&task.id);
    let state = state.max(task.status.state);
    let same = known.is_some_and(|known| {
        known.status.state == state
            && known.status.err == why
            && known.status.message == message
            && known.networks_attachments == task.networks_attachments
    });
    if same {
        return;
    }
    task.status.state = state;
    task.status.timestamp = draft.now_text();
    task.status.message = message.to_owned();
    task.status.err = why.to_owned();
    draft.put_task(task);
}

/// Places a task that can only run on one node: that of a global service, or an attachment.
fn place_bound(draft: &mut Draft<'_>, field: &mut Field, task: &Arc<Task>) {
    let Some(task) = addressed(draft, task) else { return };
    let Some(node) = draft.state.node(&task.node_id).cloned() else { return };
    let failed = if task.service_id.is_empty() {
        None
    } else {
        let needs = Requirements::of(&task);
        Filter::ALL.into_iter().find(|filter| !filter.passes(&needs, &node, draft.state.load_of(&node.id)))
    };
    if let Some(filter) = failed {
        let mut failures = Failures::default();
        failures.count(filter);
        wait(draft, task, TaskState::Pending, "pending task scheduling", &failures.explain());
        return;
    }
    let before = active_on(draft, &node.id);
    assign(draft, task, &node.id);
    if let Ok(place) = field.nodes.binary_search_by(|other| other.id.cmp(&node.id)) {
        field.moved(place, before, active_on(draft, &node.id));
    }
}

fn place_group(draft: &mut Draft<'_>, field: &mut Field, service: &ServiceId, tasks: &[Arc<Task>]) {
    let Some(first) = tasks.first() else { return };
    let needs = Requirements::of(first);
    let mut picker = Picker::new(draft, field, service, &first.spec.placement, &needs);
    let mut explanation: Option<String> = None;
    for task in tasks {
        let Some(task) = addressed(draft, task) else { continue };
        let choice = if explanation.is_some() { None } else { picker.next(draft, field) };
        match choice {
            Some(place) => {
                let node = field.nodes[place].id.clone();
                assign(draft, task, &node);
                picker.placed(draft, field, place);
            }
            None => {
                let why = explanation.get_or_insert_with(|| explain(draft, &needs));
                wait(draft, task, TaskState::Pending, "pending task scheduling", why);
            }
        }
    }
    for (place, before) in picker.finish() {
        let now = active_on(draft, &field.nodes[place].id);
        field.moved(place, before, now);
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
