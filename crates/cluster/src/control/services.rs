//! Services: create, update, roll back, remove.

use super::request::{RegistryAuthFrom, Reply, Rollback};
use super::{commit, random};
use crate::error::Result;
use crate::manager::Manager;
use gantry_model::id::ServiceId;
use gantry_model::service::{Service, ServiceSpec, Version};
use gantry_planner::{Change, Object, ObjectRef, edit, find, validate};
use jiff::Timestamp;

/// A new service.
pub async fn create(manager: &Manager, spec: ServiceSpec) -> Result<Reply> {
    let id = ServiceId::from_random(random()?);
    commit(manager, |state| {
        let spec = validate::service_spec(state, spec.clone(), None)?;
        let service = edit::service_created(id.clone(), spec);
        let reply = Reply::Service { id: id.clone(), warnings: Vec::new() };
        Ok((vec![Change::create(Object::Service(Box::new(service)))], reply))
    })
    .await
}

/// A new specification for a service, or the one before.
pub async fn update(
    manager: &Manager,
    id: &ServiceId,
    version: Version,
    spec: ServiceSpec,
    auth: RegistryAuthFrom,
    rollback: Rollback,
) -> Result<Reply> {
    commit(manager, |state| {
        let service = find::service(state, id.as_str())?;
        let now = Timestamp::now();
        let updated = match rollback {
            Rollback::Previous => {
                let back = edit::service_rolled_back(&service, version, now)?;
                validate::returned_spec(state, &back.spec, &service)?;
                back
            }
            Rollback::No => {
                let mut spec = validate::service_spec(state, spec.clone(), Some(&service))?;
                inherit_auth(&mut spec, &service, auth);
                edit::service_updated(&service, version, spec, now)?
            }
        };
        let reply = Reply::Service { id: service.id.clone(), warnings: Vec::new() };
        Ok((vec![Change::replace(Object::Service(Box::new(updated)))], reply))
    })
    .await
}

/// Clients do not see credentials, so they cannot send back the ones that are there.
fn inherit_auth(spec: &mut ServiceSpec, service: &Service, auth: RegistryAuthFrom) {
    let source = match auth {
        RegistryAuthFrom::Spec => Some(&service.spec),
        RegistryAuthFrom::PreviousSpec => service.previous_spec.as_ref(),
    };
    let old =
        source.and_then(|spec| spec.task_template.container_spec.as_ref()).and_then(|c| c.pull_auth.clone());
    if let Some(container) = &mut spec.task_template.container_spec
        && container.pull_auth.is_none()
    {
        container.pull_auth = old;
    }
}

/// Removes a service; the planner ends its tasks.
pub async fn remove(manager: &Manager, id: &ServiceId) -> Result<Reply> {
    commit(manager, |state| {
        let service = find::service(state, id.as_str())?;
        Ok((vec![Change::delete(ObjectRef::Service(service.id.clone()))], Reply::Done))
    })
    .await
}
