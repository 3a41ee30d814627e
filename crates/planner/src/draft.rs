//! A draft is the state as it will be once the plan so far is applied.
//!
//! The modules of the planner read and write it one after the other. What is proposed in the end is the difference to
//! the state that the plan began with: a task that is created, given addresses and a node in one plan is one change.

use crate::change::Change;
use crate::ids::Ids;
use crate::object::{ClusterNetwork, Object, ObjectRef};
use crate::plan::Plan;
use crate::state::{Moment, Placement, State};
use crate::table::{Handle, Keyed, Table};
use crate::time;
use gantry_model::id::{NodeId, ServiceId, TaskId};
use gantry_model::node::Node;
use gantry_model::service::{Service, TaskSpec};
use gantry_model::shared::Shared;
use gantry_model::task::{NetworkAttachment, Task, TaskState, TaskStatus};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The state as it will be.
pub struct Draft<'p> {
    base: &'p State,
    /// The state with all changes so far.
    pub state: State,
    /// The time of the plan.
    pub now: Timestamp,
    /// The time as text, and the index that the plan will have at the earliest.
    moment: Moment,
    /// Ids for what is created.
    pub ids: &'p mut Ids,
    wake_at: Option<Timestamp>,
    edits: usize,
    blocked: HashMap<ServiceId, String>,
    /// The service whose tasks were made last, and the template that they share.
    template: Option<(ServiceId, u64, Shared<TaskSpec>)>,
}

impl<'p> Draft<'p> {
    /// A draft without changes.
    pub fn new(base: &'p State, now: Timestamp, ids: &'p mut Ids) -> Self {
        Self {
            base,
            state: base.clone(),
            now,
            moment: Moment::new(base.index() + 1, now),
            ids,
            wake_at: None,
            edits: 0,
            blocked: HashMap::new(),
            template: None,
        }
    }

    /// The time of the plan, as text.
    pub fn now_text(&self) -> String {
        self.moment.text.clone()
    }

    /// Number of edits so far.
    pub fn edits(&self) -> usize {
        self.edits
    }

    /// Notes that the tasks of a service have to wait, and for what.
    pub fn block(&mut self, service: &ServiceId, why: String) {
        self.blocked.insert(service.clone(), why);
    }

    /// What the tasks of a service have to wait for.
    pub fn blocked(&self, service: &ServiceId) -> Option<&String> {
        self.blocked.get(service)
    }

    /// Plan again at this time, or earlier.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }

    /// Takes the wake-up time out, to find out what one module asks for.
    pub fn take_wake(&mut self) -> Option<Timestamp> {
        self.wake_at.take()
    }

    /// Whether a span since a time has passed; if not, the plan wakes when it has. A text that is no time has passed.
    pub fn passed(&mut self, since: &str, span: Duration) -> bool {
        let Some(since) = time::parse(since) else { return true };
        let end = time::after(since, span);
        if end > self.now {
            self.wake(end);
        }
        end <= self.now
    }

    /// The template of a service's new tasks, which they share.
    pub fn template(&mut self, service: &Service) -> Shared<TaskSpec> {
        if let Some((id, version, template)) = &self.template
            && (id, *version) == (&service.id, service.spec_version)
        {
            return template.clone();
        }
        let template = Shared::from(service.spec.task_template.clone());
        self.template = Some((service.id.clone(), service.spec_version, template.clone()));
        template
    }

    /// Creates a task or changes one that has no node yet.
    pub fn put_task(&mut self, task: Task) {
        self.put(Object::Task(Box::new(task)));
    }

    /// Gives a task that waits its node, and addresses if it had none.
    pub fn place(&mut self, task: Handle, node: &NodeId, attachments: Vec<NetworkAttachment>, message: &str) {
        self.edits += 1;
        let placement = Placement { node, attachments, now: &self.moment.text, message };
        self.state.place(self.moment.index, task, placement);
    }

    /// Raises the wanted state of a task. A task without a node that is not wanted any more is deleted: nobody knows it.
    pub fn desire(&mut self, task: &Task, state: TaskState) {
        let unplaced = task.status.state < TaskState::Assigned;
        if unplaced && state > TaskState::Complete {
            self.delete(ObjectRef::Task(task.id.clone()));
        } else if task.desired_state < state {
            self.edits += 1;
            self.state.desire(&self.moment, &task.id, state);
        }
    }

    /// Sets the observed status of a task whose node cannot.
    pub fn observe(&mut self, task: &TaskId, state: TaskState, message: &str, err: &str) {
        let status = TaskStatus {
            timestamp: self.now_text(),
            state,
            message: message.to_owned(),
            err: err.to_owned(),
            ..self.state.task(task).map(|task| task.status.clone()).unwrap_or_default()
        };
        self.edits += 1;
        self.state.observe(&self.moment, task, &status);
    }

    /// Changes a service.
    pub fn put_service(&mut self, service: Service) {
        self.put(Object::Service(Box::new(service)));
    }

    /// Changes a network.
    pub fn put_network(&mut self, network: ClusterNetwork) {
        self.put(Object::Network(Box::new(network)));
    }

    /// Changes a node.
    pub fn put_node(&mut self, node: Node) {
        self.put(Object::Node(Box::new(node)));
    }

    /// Deletes an object.
    pub fn delete(&mut self, object: ObjectRef) {
        self.edits += 1;
        self.state.delete(self.moment.index, &object);
    }

    fn put(&mut self, object: Object) {
        self.edits += 1;
        self.state.insert(self.moment.index, object);
    }

    /// The difference to the state that the plan began with: what goes first, as it makes room for what comes.
    pub fn finish(self) -> Plan {
        let (mut gone, mut changes, mut created) = (Vec::new(), Vec::new(), Vec::new());
        changed(&self.base.nodes, &self.state.nodes, &mut changes, Object::Node);
        changed(&self.base.networks, &self.state.networks, &mut changes, Object::Network);
        changed(&self.base.services, &self.state.services, &mut changes, Object::Service);
        self.state.tasks.differences(&self.base.tasks, &mut |_, old, new| {
            // A handle that became free may have been given to another task.
            let kept = new.filter(|new| old.is_some_and(|old| old.id == new.id));
            match (old, kept) {
                (Some(old), Some(new)) => task_changes(&mut changes, old, new),
                (Some(old), None) => gone.push(Change::delete(ObjectRef::Task(old.id.clone()))),
                (None, _) => {}
            }
            created.extend(new.filter(|_| kept.is_none()).cloned());
        });
        // With the draft gone the new tasks are held here alone, and need not be copied.
        drop(self.state);
        let created = created.into_iter().map(Arc::unwrap_or_clone);
        changes.extend(created.map(|task| Change::create(Object::Task(Box::new(task)))));
        if !gone.is_empty() {
            changes.splice(0..0, gone);
        }
        Plan { changes, wake_at: self.wake_at }
    }
}

/// The objects of a table that are not what they were. The planner makes and removes none but tasks.
fn changed<T: Keyed + Clone + PartialEq>(
    base: &Table<T>,
    table: &Table<T>,
    changes: &mut Vec<Change>,
    object: fn(Box<T>) -> Object,
) {
    table.differences(base, &mut |_, old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && old != new
        {
            changes.push(Change::replace(object(Box::new(new.as_ref().clone()))));
        }
    });
}

/// The changes of one task that was there before. What has a node belongs to its agent as well, so only the fields that
/// are the managers' own are sent; what has none is the leader's alone.
fn task_changes(changes: &mut Vec<Change>, old: &Arc<Task>, new: &Arc<Task>) {
    if old.status.state < TaskState::Assigned {
        if old != new {
            let new = Task { version: old.version, ..new.as_ref().clone() };
            changes.push(Change::replace(Object::Task(Box::new(new))));
        }
        return;
    }
    if old.desired_state != new.desired_state {
        changes.push(Change::Desire { task: new.id.clone(), state: new.desired_state });
    }
    if old.status != new.status {
        changes.push(Change::Status { task: new.id.clone(), status: new.status.clone() });
    }
}
