//! List filters of the API, as `docker service ls --filter …` sends them.
//!
//! Values of one key are alternatives, different keys must all hold; labels must all hold. Objects come in the order of
//! their creation.

use crate::assignment::task_name;
use crate::find;
use crate::object::ClusterNetwork;
use crate::state::State;
use crate::table::{Keyed, Table};
use crate::validate::Invalid;
use gantry_model::node::Node;
use gantry_model::secret::{Config, Secret};
use gantry_model::service::{Service, ServiceStatus};
use gantry_model::task::{Task, TaskState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The filters of a request: key to values.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Services: `id`, `name`, `label`, `mode`, `runtime`.
pub fn services(state: &State, filters: &Filters) -> Result<Vec<Arc<Service>>, Invalid> {
    check(filters, &["id", "name", "label", "mode", "runtime"])?;
    for mode in values(filters, "mode") {
        if !matches!(mode.as_str(), "replicated" | "global" | "replicated-job" | "global-job") {
            return Err(Invalid::Spec(format!("invalid filter 'mode={mode}'")));
        }
    }
    Ok(list(
        state.services(),
        |service| &service.created_at,
        |service| {
            any(filters, "id", |id| service.id.as_str().starts_with(id))
                && any(filters, "name", |name| service.spec.name.starts_with(name))
                && any(filters, "mode", |mode| mode == mode_name(service))
                && any(filters, "runtime", |runtime| runtime == "container")
                && labelled(filters, "label", &service.spec.labels)
        },
    ))
}

/// The word for a service's mode.
pub fn mode_name(service: &Service) -> &'static str {
    let mode = &service.spec.mode;
    match () {
        () if mode.global.is_some() => "global",
        () if mode.replicated_job.is_some() => "replicated-job",
        () if mode.global_job.is_some() => "global-job",
        () => "replicated",
    }
}

/// Counts of a service's tasks, as `docker service ls` shows them.
pub fn service_status(state: &State, service: &Service) -> ServiceStatus {
    let mode = &service.spec.mode;
    let mut status = ServiceStatus::default();
    for task in state.tasks_of_service(&service.id) {
        let this_version = task.spec_version == service.spec_version;
        let wanted = task.desired_state <= TaskState::Complete;
        let done = task.status.state == TaskState::Complete;
        status.running_tasks += u64::from(task.status.state == TaskState::Running && wanted);
        status.completed_tasks += u64::from(done && this_version);
        // A global service is meant to have as many tasks as it was given.
        status.desired_tasks += u64::from(wanted && !task.status.state.is_terminal());
    }
    if let Some(replicated) = &mode.replicated {
        status.desired_tasks = replicated.replicas.unwrap_or(1);
    }
    if let Some(job) = &mode.replicated_job {
        let concurrent = job.max_concurrent.unwrap_or(1);
        let left = job.total_completions.unwrap_or(concurrent).saturating_sub(status.completed_tasks);
        status.desired_tasks = concurrent.min(left);
    }
    if mode.replicated_job.is_none() && mode.global_job.is_none() {
        status.completed_tasks = 0;
    }
    status
}

/// Tasks: `id`, `name`, `service`, `node`, `label`, `desired-state`, `runtime`. Attachments only when asked for.
pub fn tasks(state: &State, filters: &Filters) -> Result<Vec<Arc<Task>>, Invalid> {
    check(filters, &["id", "name", "service", "node", "label", "desired-state", "runtime", "_up-to-date"])?;
    for wanted in values(filters, "desired-state") {
        if !matches!(wanted.as_str(), "running" | "shutdown" | "accepted") {
            return Err(Invalid::Spec(format!("invalid filter 'desired-state={wanted}'")));
        }
    }
    // Names are looked up once; what does not exist is matched by no task.
    let services: Vec<String> = values(filters, "service")
        .iter()
        .map(|name| find::service(state, name).map_or(name.clone(), |s| s.id.to_string()))
        .collect();
    let nodes: Vec<String> = values(filters, "node")
        .iter()
        .map(|name| find::node(state, name).map_or(name.clone(), |n| n.id.to_string()))
        .collect();
    let runtimes = values(filters, "runtime");
    Ok(list(
        state.tasks(),
        |task| &task.created_at,
        |task| {
            let runtime = if task.service_id.is_empty() { "attachment" } else { "container" };
            any(filters, "id", |id| task.id.as_str().starts_with(id))
                && any(filters, "name", |name| {
                    task_name(task).starts_with(name) || task.service_name.starts_with(name)
                })
                && (services.is_empty() || services.iter().any(|id| id == task.service_id.as_str()))
                && (nodes.is_empty() || nodes.iter().any(|id| id == task.node_id.as_str()))
                && any(filters, "desired-state", |wanted| wanted == desired_word(task))
                && (runtimes.iter().any(|wanted| wanted == runtime)
                    || (runtimes.is_empty() && runtime == "container"))
                && any(filters, "_up-to-date", |wanted| {
                    let service = state.service(&task.service_id);
                    let current = service.is_none_or(|service| is_up_to_date(service, task));
                    wanted == if current { "true" } else { "false" }
                })
                && labelled(filters, "label", &task.labels)
        },
    ))
}

/// Whether a task is what its service now asks for. An update that changes nothing of the template keeps the tasks, which then
/// have an older version: clients that wait for an update by this filter would wait for ever without the comparison.
pub fn is_up_to_date(service: &Service, task: &Task) -> bool {
    service.spec_version == task.spec_version || task.spec == service.spec.task_template
}

fn desired_word(task: &Task) -> &'static str {
    match task.desired_state {
        TaskState::Running | TaskState::Complete => "running",
        state if state > TaskState::Running => "shutdown",
        _ => "accepted",
    }
}

/// Nodes: `id`, `name`, `label` (of the engine), `node.label`, `membership`, `role`.
pub fn nodes(state: &State, filters: &Filters) -> Result<Vec<Arc<Node>>, Invalid> {
    check(filters, &["id", "name", "label", "node.label", "membership", "role"])?;
    for (key, allowed) in [("membership", ["accepted", "pending"]), ("role", ["manager", "worker"])] {
        if let Some(bad) = values(filters, key).iter().find(|value| !allowed.contains(&value.as_str())) {
            return Err(Invalid::Spec(format!("invalid filter '{key}={bad}'")));
        }
    }
    Ok(list(
        state.nodes(),
        |node| &node.created_at,
        |node| {
            any(filters, "id", |id| node.id.as_str().starts_with(id))
            && any(filters, "name", |name| node.description.hostname.starts_with(name) || node.spec.name == name)
            // A node is in the store only once it has joined.
            && any(filters, "membership", |membership| membership == "accepted")
            && any(filters, "role", |role| role == node.spec.role.as_str())
            && labelled(filters, "label", &node.description.engine.labels)
            && labelled(filters, "node.label", &node.spec.labels)
        },
    ))
}

/// Networks of the cluster: `id`, `name`, `label`, `driver`, `scope`, `type`, `dangling`.
pub fn networks(state: &State, filters: &Filters) -> Result<Vec<Arc<ClusterNetwork>>, Invalid> {
    check(filters, &["id", "name", "label", "driver", "scope", "type", "dangling"])?;
    Ok(list(
        state.networks(),
        |network| &network.network.created,
        |network| {
            let spec = &network.network.spec;
            let used = || crate::validate::network_remove(state, network).is_err();
            any(filters, "id", |id| network.network.id.starts_with(id))
                && any(filters, "name", |name| spec.name.contains(name))
                && any(filters, "driver", |driver| spec.driver == driver)
                && any(filters, "scope", |scope| spec.scope == scope || scope == "global")
                && any(filters, "type", |kind| kind == "custom")
                && any(filters, "dangling", |wanted| matches!(wanted, "true" | "1") != used())
                && labelled(filters, "label", &spec.labels)
        },
    ))
}

/// Secrets: `id`, `name`, `label`.
pub fn secrets(state: &State, filters: &Filters) -> Result<Vec<Arc<Secret>>, Invalid> {
    check(filters, &["id", "name", "names", "label"])?;
    Ok(list(
        state.secrets(),
        |secret| &secret.created_at,
        |secret| {
            any(filters, "id", |id| secret.id.as_str().starts_with(id))
                && any(filters, "name", |name| secret.spec.name.starts_with(name))
                && any(filters, "names", |name| secret.spec.name == name)
                && labelled(filters, "label", &secret.spec.labels)
        },
    ))
}

/// Configs: `id`, `name`, `label`.
pub fn configs(state: &State, filters: &Filters) -> Result<Vec<Arc<Config>>, Invalid> {
    check(filters, &["id", "name", "names", "label"])?;
    Ok(list(
        state.configs(),
        |config| &config.created_at,
        |config| {
            any(filters, "id", |id| config.id.as_str().starts_with(id))
                && any(filters, "name", |name| config.spec.name.starts_with(name))
                && any(filters, "names", |name| config.spec.name == name)
                && labelled(filters, "label", &config.spec.labels)
        },
    ))
}

fn check(filters: &Filters, known: &[&str]) -> Result<(), Invalid> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Invalid::Spec(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

fn values<'f>(filters: &'f Filters, key: &str) -> &'f [String] {
    filters.get(key).map(Vec::as_slice).unwrap_or_default()
}

fn any(filters: &Filters, key: &str, holds: impl Fn(&str) -> bool) -> bool {
    let values = values(filters, key);
    values.is_empty() || values.iter().any(|value| holds(value))
}

fn labelled(filters: &Filters, key: &str, labels: &BTreeMap<String, String>) -> bool {
    values(filters, key).iter().all(|wanted| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|has| has == value),
        None => labels.contains_key(wanted),
    })
}

fn list<T: Keyed>(table: &Table<T>, created: fn(&T) -> &String, holds: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
    let mut found: Vec<Arc<T>> = table.iter().filter(|object| holds(object)).cloned().collect();
    found.sort_by(|a, b| (created(a), a.key()).cmp(&(created(b), b.key())));
    found
}
