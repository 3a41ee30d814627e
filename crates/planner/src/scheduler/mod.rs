//! The scheduler chooses a node for each task that waits for one, and says why when there is none.
//!
//! Tasks of the same template are placed together. A node must pass every filter ([`filter`]); among those that pass,
//! tasks are spread over the values of the preferred labels ([`spread`]), then to where the service has the fewest,
//! then to where there are the fewest at all.

mod field;
mod filter;
mod order;
mod spread;
mod tree;

pub use filter::runs_platform;

use crate::allocator::Joining;
use crate::draft::Draft;
use crate::table::Handle;
use field::Field;
use filter::{Failures, Filter, Requirements, Seen};
use gantry_model::id::ServiceId;
use gantry_model::node::{Availability, Node, NodeState};
use gantry_model::task::{NetworkAttachment, Task, TaskState};
use spread::Picker;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a task's status says once it has its node.
const ASSIGNED: &str = "scheduler assigned task to node";

/// Whether a node takes new tasks.
fn is_open(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

/// The tasks of one template that wait.
#[derive(Default)]
struct Group {
    /// Those that can only run on one node: of global services, and attachments.
    bound: Vec<Handle>,
    free: Vec<Handle>,
}

/// Chooses nodes for all tasks that wait for one.
pub fn schedule(draft: &mut Draft<'_>) {
    let groups = groups(draft);
    if groups.is_empty() {
        return;
    }
    let mut field = Field::new(draft);
    for ((service, _), group) in groups {
        if service.is_empty() {
            // Attachments have each a template of their own.
            for task in group.bound {
                place_bound(draft, &mut field, &service, vec![task]);
            }
            continue;
        }
        place_bound(draft, &mut field, &service, group.bound);
        place_free(draft, &mut field, &service, group.free);
    }
}

fn groups(draft: &Draft<'_>) -> BTreeMap<(ServiceId, u64), Group> {
    let mut groups: BTreeMap<(ServiceId, u64), Group> = BTreeMap::new();
    let (mut last, mut run) = ((ServiceId::default(), 0), Group::default());
    for handle in draft.state.indexes.unplaced.iter() {
        let Some(task) = draft.state.tasks.at(handle) else { continue };
        // Tasks that were made together have handles in a row, so groups are looked up seldom.
        if (&task.service_id, task.spec_version) != (&last.0, last.1) {
            add(&mut groups, last, std::mem::take(&mut run));
            last = (task.service_id.clone(), task.spec_version);
        }
        if task.node_id.is_empty() { run.free.push(handle) } else { run.bound.push(handle) }
    }
    add(&mut groups, last, run);
    groups
}

fn add(groups: &mut BTreeMap<(ServiceId, u64), Group>, key: (ServiceId, u64), run: Group) {
    if !run.bound.is_empty() || !run.free.is_empty() {
        let group = groups.entry(key).or_default();
        group.bound.extend(run.bound);
        group.free.extend(run.free);
    }
}

/// How the tasks of a group get their addresses; `Err` says what they have to wait for.
fn joining(draft: &Draft<'_>, service: &ServiceId, first: &Task) -> Result<Joining, String> {
    match draft.blocked(service) {
        Some(why) => Err(why.clone()),
        None => Joining::of(&draft.state, draft.state.service(service).map(Arc::as_ref), first),
    }
}

/// The addresses that a task gets, none if it has some; when it cannot have them yet, it says why.
fn addressed(
    draft: &mut Draft<'_>,
    joining: &Result<Joining, String>,
    handle: Handle,
) -> Option<Vec<NetworkAttachment>> {
    let task = draft.state.tasks.at(handle)?;
    if !task.networks_attachments.is_empty() {
        return Some(Vec::new());
    }
    match joining.as_ref().map_err(Clone::clone).and_then(|joining| joining.addresses(&draft.state)) {
        Ok(attachments) => Some(attachments),
        Err(why) => {
            let message = "pending address allocation";
            wait(draft, handle, Waiting { state: TaskState::New, message, why: &why }, Vec::new());
            None
        }
    }
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

/// Notes what a task waits for, and keeps the addresses that it got. What is known already is not written again.
fn wait(draft: &mut Draft<'_>, task: Handle, waiting: Waiting<'_>, attachments: Vec<NetworkAttachment>) {
    let Some(task) = draft.state.tasks.at(task) else { return };
    let state = waiting.state.max(task.status.state);
    let status = &task.status;
    let same = status.state == state && status.err == waiting.why && status.message == waiting.message;
    if same && attachments.is_empty() {
        return;
    }
    let mut task = Task::clone(task);
    if !attachments.is_empty() {
        task.networks_attachments = attachments;
    }
    task.status.state = state;
    task.status.timestamp = draft.now_text();
    task.status.message = waiting.message.to_owned();
    task.status.err = waiting.why.to_owned();
    draft.put_task(task);
}

/// Places tasks that can only run on one node each: those of a global service, or an attachment.
fn place_bound(draft: &mut Draft<'_>, field: &mut Field, service: &ServiceId, tasks: Vec<Handle>) {
    let Some(first) = tasks.first().and_then(|first| draft.state.tasks.at(*first)).cloned() else { return };
    let (needs, joining) = (Requirements::of(&first), joining(draft, service, &first));
    drop(first);
    for handle in tasks {
        let Some(attachments) = addressed(draft, &joining, handle) else { continue };
        let Some(task) = draft.state.tasks.at(handle) else { continue };
        let Some(node) = draft.state.node(&task.node_id).cloned() else { continue };
        let seen = Seen::new(&draft.state, &node);
        let failed = Filter::ALL.into_iter().find(|filter| !filter.passes(&needs, seen));
        // The container of an attachment runs already.
        if let Some(filter) = failed.filter(|_| !service.is_empty()) {
            let mut failures = Failures::default();
            failures.count(filter);
            wait(draft, handle, Waiting::for_node(&failures.explain()), attachments);
            continue;
        }
        draft.place(handle, &node.id, attachments, ASSIGNED);
        if let Some(place) = field.place_of(&node.id) {
            let before = field.spare[place].active;
            field.take(place, &needs);
            field.reorder(place, before);
        }
    }
}

/// Places tasks of one template, in the order of their slots.
fn place_free(draft: &mut Draft<'_>, field: &mut Field, service: &ServiceId, mut tasks: Vec<Handle>) {
    in_order(draft, &mut tasks);
    let Some(first) = tasks.first().and_then(|first| draft.state.tasks.at(*first)).cloned() else { return };
    let (needs, joining) = (Requirements::of(&first), joining(draft, service, &first));
    let placement = first.spec.placement.clone();
    drop(first);
    let mut picker = match field.is_hopeless(&needs) {
        true => None,
        false => Some(Picker::new(draft, field, service, &placement, &needs)),
    };
    let mut explanation: Option<String> = None;
    for handle in tasks {
        let Some(attachments) = addressed(draft, &joining, handle) else { continue };
        let choice = match &mut picker {
            Some(picker) if explanation.is_none() => picker.next(draft, field),
            _ => None,
        };
        match (choice, &mut picker) {
            (Some(place), Some(picker)) => {
                draft.place(handle, &field.nodes[place].id, attachments, ASSIGNED);
                picker.placed(field, place);
            }
            _ => {
                let why = explanation.get_or_insert_with(|| field.explain(draft, &needs));
                wait(draft, handle, Waiting::for_node(why), attachments);
            }
        }
    }
    if let Some(picker) = picker {
        picker.finish(field);
    }
}

/// Sorts tasks by slot, then by age.
fn in_order(draft: &Draft<'_>, tasks: &mut [Handle]) {
    let slot = |handle: Handle| draft.state.tasks.at(handle).map(|task| task.slot);
    let age = |handle: Handle| draft.state.tasks.at(handle).map(|task| (&task.created_at, &task.id));
    let is_before = |a: Handle, b: Handle| slot(a).cmp(&slot(b)).then_with(|| age(a).cmp(&age(b)));
    if !tasks.is_sorted_by(|a, b| is_before(*a, *b).is_lt()) {
        tasks.sort_unstable_by(|a, b| is_before(*a, *b));
    }
}

/// Why no node is left: for each filter, how many nodes it turned away.
fn explain(draft: &Draft<'_>, needs: &Requirements) -> String {
    let mut failures = Failures::default();
    for node in draft.state.nodes().iter() {
        let seen = Seen::new(&draft.state, node);
        if let Some(filter) = Filter::ALL.into_iter().find(|filter| !filter.passes(needs, seen)) {
            failures.count(filter);
        }
    }
    failures.explain()
}
