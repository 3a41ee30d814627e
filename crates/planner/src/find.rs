//! Finding objects as clients name them: by id, by name, or by the beginning of an id that only one object has.

use crate::object::ClusterNetwork;
use crate::state::State;
use crate::table::{Keyed, Table};
use crate::validate::Invalid;
use gantry_model::node::Node;
use gantry_model::secret::{Config, Secret};
use gantry_model::service::Service;
use gantry_model::task::Task;
use std::sync::Arc;

/// A service.
pub fn service(state: &State, name: &str) -> Result<Arc<Service>, Invalid> {
    if let Some(service) = state.service_named(name).filter(|_| !state.services().contains(name)) {
        return Ok(Arc::clone(service));
    }
    find("service", state.services(), name, |_| false)
}

/// A node, also by its host name.
pub fn node(state: &State, name: &str) -> Result<Arc<Node>, Invalid> {
    find("node", state.nodes(), name, |node| node.spec.name == name || node.description.hostname == name)
}

/// A network of the cluster.
pub fn network(state: &State, name: &str) -> Result<Arc<ClusterNetwork>, Invalid> {
    find("network", state.networks(), name, |network| network.network.spec.name == name)
}

/// A secret.
pub fn secret(state: &State, name: &str) -> Result<Arc<Secret>, Invalid> {
    find("secret", state.secrets(), name, |secret| secret.spec.name == name)
}

/// A config.
pub fn config(state: &State, name: &str) -> Result<Arc<Config>, Invalid> {
    find("config", state.configs(), name, |config| config.spec.name == name)
}

/// A task, also by the name of its container.
pub fn task(state: &State, name: &str) -> Result<Arc<Task>, Invalid> {
    // The last part of a container's name is the task's id.
    let id = name.rsplit_once('.').map_or(name, |(_, id)| id);
    match state.tasks().get(id) {
        Some(task) if id == name || crate::assignment::task_name(task) == name => Ok(Arc::clone(task)),
        _ => find("task", state.tasks(), name, |_| false),
    }
}

fn find<T: Keyed>(
    kind: &'static str,
    table: &Table<T>,
    name: &str,
    is_named: impl Fn(&T) -> bool,
) -> Result<Arc<T>, Invalid> {
    let not_found = || Invalid::NotFound { kind, name: name.to_owned() };
    if name.is_empty() {
        return Err(not_found());
    }
    if let Some(object) = table.get(name) {
        return Ok(Arc::clone(object));
    }
    let mut found: Vec<&Arc<T>> = table.iter().filter(|object| is_named(object)).collect();
    if found.is_empty() {
        found = table.iter().filter(|object| object.key().starts_with(name)).collect();
    }
    match found.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(Arc::clone(one)),
        several => Err(Invalid::Ambiguous { kind, name: name.to_owned(), matches: several.len() }),
    }
}
