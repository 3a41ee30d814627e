//! What Gantry does not do yet, said clearly instead of "page not found".

use crate::daemon::Daemon;
use crate::http::{ApiError, Reply, stream};
use axum::Router;
use axum::routing::{any, get, post};
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/build", post(build))
        .route("/build/cancel", post(build))
        .route("/build/prune", post(build_prune))
        .route("/session", any(build))
        .route("/grpc", any(build))
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", any(plugins))
        .route("/containers/{id}/checkpoints", any(checkpoints))
        .route("/containers/{id}/checkpoints/{name}", any(checkpoints))
}

async fn build() -> ApiError {
    ApiError::not_implemented(
        "building images is not supported yet: build elsewhere and use `docker load`, `docker import` or `docker push`",
    )
}

async fn build_prune() -> Reply {
    stream::json(&serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
}

async fn no_plugins() -> Reply {
    stream::json(&serde_json::json!([]))
}

async fn plugins() -> ApiError {
    ApiError::not_implemented("plug-ins are not supported yet")
}

async fn checkpoints() -> ApiError {
    ApiError::not_implemented("checkpoints are not supported")
}
