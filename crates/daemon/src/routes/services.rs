//! `/services`.

use super::swarm::version;
use super::tasks::log_stream;
use crate::daemon::{Daemon, Shared};
use crate::http::{ApiError, Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use gantry_api::filters::Filters;
use gantry_cluster::{ErrorKind, RegistryAuthFrom, Rollback};
use gantry_model::service::{Service, ServiceSpec};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{id}", get(inspect).delete(remove))
        .route("/services/{id}/update", post(update))
        .route("/services/{id}/logs", get(logs))
}

/// How often a name is drawn for a service before the last refusal is the answer.
const NAME_ATTEMPTS: u32 = 200;
/// Names of filters that lists of services know.
const FILTERS: [&str; 5] = ["id", "label", "mode", "name", "runtime"];

async fn list(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&FILTERS)?;
    let mut found = daemon.cluster.services().await?;
    found.retain(|service| matches(&filters, service));
    if call.query.flag("status") {
        for service in &mut found {
            service.service_status = Some(daemon.cluster.service_status(&service.id).await?);
        }
    }
    stream::json(&found)
}

fn matches(filters: &Filters, service: &Service) -> bool {
    filters.prefix("id", service.id.as_str())
        && filters.prefix("name", &service.spec.name)
        && filters.exact("mode", mode(&service.spec))
        && filters.exact("runtime", "container")
        && filters.labels(&service.spec.labels)
}

fn mode(spec: &ServiceSpec) -> &'static str {
    let mode = &spec.mode;
    match (&mode.global, &mode.replicated_job, &mode.global_job) {
        (Some(_), ..) => "global",
        (_, Some(_), _) => "replicated-job",
        (.., Some(_)) => "global-job",
        _ => "replicated",
    }
}

async fn inspect(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let mut service = daemon.cluster.service(&id).await?;
    if call.query.flag("insertDefaults") {
        insert_defaults(&mut service.spec);
    }
    stream::json(&service)
}

/// The defaults that the managers use where the specification is silent.
fn insert_defaults(spec: &mut ServiceSpec) {
    use gantry_model::service::{TaskRestartPolicy, UpdateConfig};
    let update = || UpdateConfig {
        parallelism: 1,
        failure_action: "pause".to_owned(),
        monitor: 5_000_000_000,
        order: "stop-first".to_owned(),
        ..UpdateConfig::default()
    };
    if spec.mode.replicated.is_some() || spec.mode.global.is_some() {
        spec.update_config.get_or_insert_with(update);
        spec.rollback_config.get_or_insert_with(update);
    }
    spec.task_template.restart_policy.get_or_insert_with(|| TaskRestartPolicy {
        condition: "any".to_owned(),
        delay: Some(5_000_000_000),
        max_attempts: Some(0),
        ..TaskRestartPolicy::default()
    });
    if let Some(container) = &mut spec.task_template.container_spec {
        container.stop_grace_period.get_or_insert(10_000_000_000);
    }
}

/// Puts the client's registry credentials where the nodes find them.
fn take_auth(spec: &mut ServiceSpec, call: &Call) {
    if let (Some(container), Some(auth)) = (&mut spec.task_template.container_spec, call.raw_auth()) {
        container.pull_auth = Some(auth);
    }
}

async fn create(daemon: Shared, call: Call, Json(mut spec): Json<ServiceSpec>) -> Reply {
    clean(&mut spec);
    take_auth(&mut spec, &call);
    let named = !spec.name.is_empty();
    let mut attempt = 0;
    let (id, warnings) = loop {
        if !named {
            spec.name = made_up_name(attempt)?;
        }
        match daemon.cluster.create_service(spec.clone()).await {
            // Somebody has drawn the same name.
            Err(error) if !named && error.kind == ErrorKind::AlreadyExists && attempt < NAME_ATTEMPTS => {
                attempt += 1;
            }
            other => break other?,
        }
    };
    let warnings = (!warnings.is_empty()).then_some(warnings);
    stream::with_status(StatusCode::CREATED, &json!({ "ID": id, "Warnings": warnings }))
}

/// A name for a service that the client named not.
fn made_up_name(attempt: u32) -> Result<String, ApiError> {
    let mut random = [0u8; 2];
    getrandom::fill(&mut random)
        .map_err(|error| ApiError::internal(format!("draw a name for the service: {error}")))?;
    Ok(gantry_model::names::pick(random, attempt))
}

/// Takes away what only the managers may write.
fn clean(spec: &mut ServiceSpec) {
    if let Some(container) = &mut spec.task_template.container_spec {
        container.pull_auth = None;
    }
}

async fn update(
    daemon: Shared,
    Path(id): Path<String>,
    call: Call,
    Json(mut spec): Json<ServiceSpec>,
) -> Reply {
    clean(&mut spec);
    take_auth(&mut spec, &call);
    let from = match call.query.text("registryAuthFrom") {
        None | Some("spec") => RegistryAuthFrom::Spec,
        Some("previous-spec") => RegistryAuthFrom::PreviousSpec,
        Some(other) => {
            return Err(ApiError::bad_request(format!("unsupported registryAuthFrom value: {other}")));
        }
    };
    let rollback = match call.query.text("rollback") {
        None => Rollback::No,
        Some("previous") => Rollback::Previous,
        Some(other) => return Err(ApiError::bad_request(format!("unrecognized rollback option {other}"))),
    };
    let warnings = daemon.cluster.update_service(&id, version(&call)?, spec, from, rollback).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    stream::json(&json!({ "Warnings": warnings }))
}

async fn remove(daemon: Shared, Path(id): Path<String>) -> Reply {
    daemon.cluster.remove_service(&id).await?;
    stream::empty(StatusCode::OK)
}

async fn logs(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let service = daemon.cluster.service(&id).await?;
    let tty = service.spec.task_template.container_spec.as_ref().is_some_and(|container| container.tty);
    let (options, shape) = log_stream(&call, tty)?;
    let messages = daemon.cluster.service_logs(service.id.as_str(), options).await?;
    Ok(shape.respond(messages, &call))
}
