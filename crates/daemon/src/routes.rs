//! The table of endpoints: which handler answers which path. The version prefix is gone by then.

mod configs;
mod containers;
mod exec;
mod images;
mod networks;
mod nodes;
mod secrets;
mod services;
mod swarm;
mod system;
mod tasks;
mod unsupported;
mod volumes;

use crate::daemon::Daemon;
use crate::http::ApiError;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use std::sync::Arc;

/// All endpoints over one daemon.
pub fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .merge(system::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(networks::routes())
        .merge(volumes::routes())
        .merge(swarm::routes())
        .merge(nodes::routes())
        .merge(services::routes())
        .merge(tasks::routes())
        .merge(secrets::routes())
        .merge(configs::routes())
        .merge(unsupported::routes())
        .fallback(no_page)
        .method_not_allowed_fallback(no_page)
        // Each handler has its own limit: JSON bodies a small one, archives none.
        .layer(DefaultBodyLimit::disable())
        .with_state(daemon)
}

async fn no_page() -> ApiError {
    ApiError::not_found("page not found")
}
