//! `/containers`: list, inspect, create, and what has a file of its own below.

mod archive;
mod attach;
mod lifecycle;
pub(super) mod logs;
mod process;
mod view;

use crate::daemon::{Daemon, Shared};
use crate::http::{ApiError, Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{delete, get, post, put};
use gantry_api::container::{ContainersPruned, CreateBody, CreateResponse, WarningsResponse};
use gantry_engine::{CreateRequest, UpdateRequest};
use gantry_model::container::{Resources, RestartPolicy};
use http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

pub(super) use lifecycle::size as lifecycle_size;
pub(super) use view::{STORAGE_DRIVER, summary};

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(lifecycle::remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/start", post(lifecycle::start))
        .route("/containers/{id}/stop", post(lifecycle::stop))
        .route("/containers/{id}/restart", post(lifecycle::restart))
        .route("/containers/{id}/kill", post(lifecycle::kill))
        .route("/containers/{id}/pause", post(lifecycle::pause))
        .route("/containers/{id}/unpause", post(lifecycle::unpause))
        .route("/containers/{id}/wait", post(lifecycle::wait))
        .route("/containers/{id}/resize", post(lifecycle::resize))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(attach::websocket))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/top", get(process::top))
        .route("/containers/{id}/stats", get(process::stats))
        .route("/containers/{id}/changes", get(archive::changes))
        .route("/containers/{id}/export", get(archive::export))
        .route("/containers/{id}/archive", put(archive::put).get(archive::get).head(archive::head))
}

async fn list(daemon: Shared, call: Call) -> Reply {
    let mut filters = call.query.filters()?;
    // Parameters of old clients.
    for name in ["before", "since"] {
        if let Some(value) = call.query.text(name) {
            filters.add(name, value);
        }
    }
    let limit =
        call.query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|n| *n > 0);
    let all = call.query.flag("all") || limit.is_some();
    let found = daemon.engine.list_filtered(&filters.to_lists(), all, limit)?;
    let mut answer = Vec::with_capacity(found.len());
    for container in &found {
        let mut item = summary(&daemon, container);
        if call.query.flag("size") {
            let size = daemon.engine.size(container.id.as_str()).await?;
            (item.size_rw, item.size_root_fs) = (Some(size.rw), Some(size.root_fs));
        }
        answer.push(item);
    }
    stream::json(&answer)
}

async fn inspect(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let container = daemon.engine.get(&id)?;
    let mut answer = view::inspect(&container);
    if call.query.flag("size") {
        let size = daemon.engine.size(container.id.as_str()).await?;
        (answer.size_rw, answer.size_root_fs) = (Some(size.rw), Some(size.root_fs));
    }
    stream::json(&answer)
}

async fn create(daemon: Shared, call: Call, Json(body): Json<CreateBody>) -> Reply {
    if body.config == Default::default() {
        return Err(ApiError::bad_request("config cannot be empty in order to create a container"));
    }
    let request = CreateRequest {
        name: call.query.text("name").map(str::to_owned),
        platform: call.query.text("platform").map(str::to_owned),
        config: body.config,
        host: body.host_config,
        networking: body.networking_config,
        files: Vec::new(),
    };
    let created = daemon.engine.create(request).await?;
    let answer = CreateResponse { id: created.id.to_string(), warnings: created.warnings };
    stream::with_status(StatusCode::CREATED, &answer)
}

async fn rename(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let name = call
        .query
        .text("name")
        .ok_or_else(|| ApiError::bad_request("Neither old nor new names may be empty"))?;
    daemon.engine.rename(&id, name).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

/// Body of an update: the limits and, if it is to change, the restart policy.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UpdateBody {
    #[serde(flatten)]
    resources: Resources,
    #[serde(rename = "RestartPolicy")]
    restart_policy: Option<RestartPolicy>,
}

async fn update(daemon: Shared, Path(id): Path<String>, Json(body): Json<UpdateBody>) -> Reply {
    let restart_policy = body.restart_policy.filter(|policy| !policy.name.is_empty());
    let update = UpdateRequest { resources: body.resources, restart_policy };
    let warnings = daemon.engine.update(&id, update).await?;
    stream::json(&WarningsResponse { warnings })
}

async fn prune(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&["until", "label", "label!"])?;
    let pruned = daemon.engine.prune(&filters.to_lists()).await?;
    let containers_deleted = (!pruned.removed.is_empty()).then_some(pruned.removed);
    stream::json(&ContainersPruned { containers_deleted, space_reclaimed: pruned.space_reclaimed })
}
