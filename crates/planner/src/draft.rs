//! A draft is the state as it will be once the plan so far is applied.
//!
//! The modules of the planner read and write it one after the other. What is proposed in the end is the difference to
//! the state that the plan began with: a task that is created, given addresses and a node in one plan is one change.

use crate::change::Change;
use crate::ids::Ids;
use crate::object::{ClusterNetwork, Object, ObjectRef};
use crate::plan::Plan;
use crate::state::State;
use crate::time;
use gantry_model::id::{ServiceId, TaskId};
use gantry_model::node::Node;
use gantry_model::service::Service;
use gantry_model::task::{Task, TaskState, TaskStatus};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The state as it will be.
pub struct Draft<'p> {
    base: &'p State,
    /// The state with all changes so far.
    pub state: State,
    /// The time of the plan.
    pub now: Timestamp,
    now_text: String,
    /// Ids for what is created.
    pub ids: &'p mut Ids,
    touched: Vec<ObjectRef>,
    known: HashSet<ObjectRef>,
    wake_at: Option<Timestamp>,
    edits: usize,
    blocked: HashMap<ServiceId, String>,
}

impl<'p> Draft<'p> {
    /// A draft without changes.
    pub fn new(base: &'p State, now: Timestamp, ids: &'p mut Ids) -> Self {
        Self {
            base,
            state: base.clone(),
            now,
            now_text: time::text(now),
            ids,
            touched: Vec::new(),
            known: HashSet::new(),
            wake_at: None,
            edits: 0,
            blocked: HashMap::new(),
        }
    }

    /// The time of the plan, as text.
    pub fn now_text(&self) -> String {
        self.now_text.clone()
    }

    /// Index of the state that the plan began with.
    pub fn base_index(&self) -> u64 {
        self.base.index()
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

    /// Creates a task or changes one that has no node yet.
    pub fn put_task(&mut self, task: Task) {
        self.touch(ObjectRef::Task(task.id.clone()));
        self.state.insert(self.base.index() + 1, Object::Task(Box::new(task)));
    }

    /// Raises the wanted state of a task. A task without a node that is not wanted any more is deleted: nobody knows it.
    pub fn desire(&mut self, task: &Task, state: TaskState) {
        let unplaced = task.status.state < TaskState::Assigned;
        if unplaced && state > TaskState::Complete {
            self.delete(ObjectRef::Task(task.id.clone()));
        } else if task.desired_state < state {
            self.touch(ObjectRef::Task(task.id.clone()));
            self.state.desire(self.base.index() + 1, self.now, &task.id, state);
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
        self.touch(ObjectRef::Task(task.clone()));
        self.state.observe(self.base.index() + 1, self.now, task, &status);
    }

    /// Changes a service.
    pub fn put_service(&mut self, service: Service) {
        self.touch(ObjectRef::Service(service.id.clone()));
        self.state.insert(self.base.index() + 1, Object::Service(Box::new(service)));
    }

    /// Changes a network.
    pub fn put_network(&mut self, network: ClusterNetwork) {
        self.touch(ObjectRef::Network(network.id()));
        self.state.insert(self.base.index() + 1, Object::Network(Box::new(network)));
    }

    /// Changes a node.
    pub fn put_node(&mut self, node: Node) {
        self.touch(ObjectRef::Node(node.id.clone()));
        self.state.insert(self.base.index() + 1, Object::Node(Box::new(node)));
    }

    /// Deletes an object.
    pub fn delete(&mut self, object: ObjectRef) {
        self.state.delete(self.base.index() + 1, &object);
        self.touch(object);
    }

    fn touch(&mut self, object: ObjectRef) {
        self.edits += 1;
        if !self.known.contains(&object) {
            self.known.insert(object.clone());
            self.touched.push(object);
        }
    }

    /// Takes a task without a node out, to put it back changed: cheaper than a copy when nobody else holds it.
    pub fn take_task(&mut self, id: &TaskId) -> Option<Task> {
        self.state.take_task(self.base.index() + 1, id)
    }

    /// The difference to the state that the plan began with.
    pub fn finish(self) -> Plan {
        let mut changes = Vec::with_capacity(self.touched.len());
        let mut created = Vec::new();
        for object in self.touched {
            match object {
                ObjectRef::Task(id) => match (self.base.task(&id), self.state.task(&id)) {
                    (None, Some(new)) => created.push(Arc::clone(new)),
                    (old, new) => task_changes(&mut changes, old, new, id),
                },
                ObjectRef::Service(id) => {
                    let (old, new) = (self.base.service(&id), self.state.service(&id));
                    if let Some(new) = new.filter(|new| old != Some(new)) {
                        changes.push(Change::replace(Object::Service(Box::new(new.as_ref().clone()))));
                    }
                }
                ObjectRef::Network(id) => {
                    let (old, new) = (self.base.network(&id), self.state.network(&id));
                    if let Some(new) = new.filter(|new| old != Some(new)) {
                        changes.push(Change::replace(Object::Network(Box::new(new.as_ref().clone()))));
                    }
                }
                ObjectRef::Node(id) => {
                    let (old, new) = (self.base.node(&id), self.state.node(&id));
                    if let Some(new) = new.filter(|new| old != Some(new)) {
                        changes.push(Change::replace(Object::Node(Box::new(new.as_ref().clone()))));
                    }
                }
                ObjectRef::Cluster | ObjectRef::Secret(_) | ObjectRef::Config(_) => {}
            }
        }
        // What goes makes room for what comes.
        changes.sort_by_key(|change| !matches!(change, Change::Delete { .. }));
        // With the draft gone the new tasks are held here alone, and need not be copied.
        drop(self.state);
        changes.extend(
            created
                .into_iter()
                .map(|task| Change::create(Object::Task(Box::new(Arc::unwrap_or_clone(task))))),
        );
        Plan { changes, wake_at: self.wake_at }
    }
}

/// The changes of one task that was there before. What has a node belongs to its agent as well, so only the fields that
/// are the managers' own are sent; what has none is the leader's alone.
fn task_changes(changes: &mut Vec<Change>, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>, id: TaskId) {
    match (old, new) {
        (Some(_), None) => changes.push(Change::delete(ObjectRef::Task(id))),
        (Some(old), Some(new)) if old.status.state < TaskState::Assigned => {
            if old != new {
                let new = Task { version: old.version, ..new.as_ref().clone() };
                changes.push(Change::replace(Object::Task(Box::new(new))));
            }
        }
        (Some(old), Some(new)) => {
            if old.desired_state != new.desired_state {
                changes.push(Change::Desire { task: id.clone(), state: new.desired_state });
            }
            if old.status != new.status {
                changes.push(Change::Status { task: id, status: new.status.clone() });
            }
        }
        (None, _) => {}
    }
}
