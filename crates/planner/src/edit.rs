//! Edits: the object that a client's request makes of another. What comes in was validated ([`crate::validate`]).

use crate::index::PublishMode;
use crate::time;
use crate::validate::Invalid;
use gantry_model::id::{NodeId, ServiceId, TaskId};
use gantry_model::service::{
    JobStatus, NetworkAttachmentConfig, NetworkAttachmentSpec, PortConfig, Service, ServiceSpec, TaskSpec,
    UpdateStatus, Version,
};
use gantry_model::task::{Task, TaskState, TaskStatus};
use jiff::Timestamp;

/// A new service.
pub fn service_created(id: ServiceId, spec: ServiceSpec) -> Service {
    let job_status = is_job(&spec).then(|| iteration(1, None));
    Service { id, spec, spec_version: 1, job_status, ..Service::default() }
}

/// Whether the tasks of a service are meant to end.
fn is_job(spec: &ServiceSpec) -> bool {
    spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some()
}

fn iteration(index: u64, began: Option<Timestamp>) -> JobStatus {
    JobStatus { job_iteration: Version { index }, last_execution: began.map(time::text) }
}

/// A service with a new specification. The client must have read the present one.
pub fn service_updated(
    service: &Service,
    read: Version,
    spec: ServiceSpec,
    now: Timestamp,
) -> Result<Service, Invalid> {
    if !service.was_read_at(read) {
        return Err(Invalid::OutOfSequence);
    }
    if mode_of(&spec) != mode_of(&service.spec) {
        return Err(Invalid::Spec("service mode change is not allowed".to_owned()));
    }
    let new_tasks = asks_for_new_tasks(&service.spec, &spec);
    let mut updated = service.clone();
    updated.previous_spec = Some(std::mem::replace(&mut updated.spec, spec));
    updated.update_status = None;
    if new_tasks {
        updated.spec_version += 1;
        if is_job(&updated.spec) {
            updated.job_status = Some(iteration(updated.spec_version, Some(now)));
        } else {
            updated.update_status = Some(started("updating", "update in progress", now));
        }
    }
    Ok(updated)
}

/// A service with the specification that it had before its last update.
pub fn service_rolled_back(service: &Service, read: Version, now: Timestamp) -> Result<Service, Invalid> {
    if !service.was_read_at(read) {
        return Err(Invalid::OutOfSequence);
    }
    let Some(previous) = service.previous_spec.clone() else {
        return Err(Invalid::Precondition(format!("service {} does not have a previous spec", service.id)));
    };
    let mut back = service.clone();
    back.previous_spec = Some(std::mem::replace(&mut back.spec, previous));
    back.spec_version += 1;
    if is_job(&back.spec) {
        back.job_status = Some(iteration(back.spec_version, Some(now)));
    } else {
        back.update_status = Some(started("rollback_started", "manually requested rollback", now));
    }
    Ok(back)
}

fn started(state: &str, message: &str, now: Timestamp) -> UpdateStatus {
    UpdateStatus {
        state: state.to_owned(),
        started_at: Some(time::text(now)),
        completed_at: None,
        message: message.to_owned(),
    }
}

fn mode_of(spec: &ServiceSpec) -> u8 {
    let mode = &spec.mode;
    match () {
        () if mode.global.is_some() => 1,
        () if mode.replicated_job.is_some() => 2,
        () if mode.global_job.is_some() => 3,
        () => 0,
    }
}

/// Whether the running tasks differ from those that the new specification makes. The number of tasks, labels, and how
/// an update proceeds do not concern them.
fn asks_for_new_tasks(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    old.task_template != new.task_template
        || old.networks != new.networks
        || task_ports(old) != task_ports(new)
}

/// What of the published ports a task is made with: its own host ports, and whether the mesh has to reach it.
fn task_ports(spec: &ServiceSpec) -> (Vec<&PortConfig>, bool) {
    let (host, ingress): (Vec<_>, Vec<_>) =
        spec.ports().iter().partition(|port| PublishMode::of(port) == PublishMode::Host);
    (host, !ingress.is_empty())
}

/// A container outside services that joins a cluster network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachmentRequest {
    /// Id of the network.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// Its name, and what else it answers to.
    pub names: Vec<String>,
    /// The address that it asks for; empty: any.
    pub address: String,
}

/// The task that stands for a container outside services on a cluster network. It is ended by its agent, as others are,
/// or by [`crate::Change::Desire`] with [`TaskState::Remove`]; the reaper deletes it once it has ended.
pub fn attachment(id: TaskId, node: NodeId, request: AttachmentRequest, now: Timestamp) -> Task {
    let network = NetworkAttachmentConfig {
        target: request.network,
        addresses: if request.address.is_empty() { Vec::new() } else { vec![request.address] },
        ..NetworkAttachmentConfig::default()
    };
    let spec = TaskSpec {
        network_attachment_spec: Some(NetworkAttachmentSpec {
            container_id: request.container_id,
            names: request.names.clone(),
        }),
        networks: vec![network],
        runtime: "attachment".to_owned(),
        ..TaskSpec::default()
    };
    Task {
        id,
        name: request.names.into_iter().next().unwrap_or_default(),
        spec: spec.into(),
        node_id: node,
        desired_state: TaskState::Running,
        created_at: time::text(now),
        status: TaskStatus {
            timestamp: time::text(now),
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        ..Task::default()
    }
}

/// The task of a container outside services that is found by other names from now on; `None`: it has these.
pub fn renamed_attachment(task: &Task, names: &[String]) -> Option<Task> {
    let spec = task.spec.network_attachment_spec.as_ref()?;
    if spec.names == names {
        return None;
    }
    let mut renamed = task.clone();
    renamed.name = names.first().cloned().unwrap_or_default();
    for attachment in &mut renamed.networks_attachments {
        attachment.aliases = names.to_vec();
    }
    renamed.spec.network_attachment_spec =
        Some(NetworkAttachmentSpec { names: names.to_vec(), ..spec.clone() });
    Some(renamed)
}
