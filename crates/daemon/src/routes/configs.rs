//! `/configs`.

use super::swarm::version;
use crate::daemon::{Daemon, Shared};
use crate::http::{Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use gantry_api::filters::Filters;
use gantry_model::secret::{Config, DataSpec};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/configs", get(list))
        .route("/configs/create", post(create))
        .route("/configs/{id}", get(inspect).delete(remove))
        .route("/configs/{id}/update", post(update))
}

/// Names of filters that lists of configs know.
const FILTERS: [&str; 4] = ["id", "label", "name", "names"];

async fn list(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&FILTERS)?;
    let found = daemon.cluster.configs().await?;
    let wanted = found.iter().filter(|config| matches(&filters, config));
    stream::json(&wanted.map(public).collect::<Vec<_>>())
}

fn matches(filters: &Filters, config: &Config) -> bool {
    filters.prefix("id", config.id.as_str())
        && filters.prefix("name", &config.spec.name)
        && filters.exact("names", &config.spec.name)
        && filters.labels(&config.spec.labels)
}

/// A config as it is: its data is no secret.
fn public(config: &Config) -> Config {
    config.clone()
}

async fn inspect(daemon: Shared, Path(id): Path<String>) -> Reply {
    stream::json(&public(&daemon.cluster.config(&id).await?))
}

async fn create(daemon: Shared, Json(spec): Json<DataSpec>) -> Reply {
    let id = daemon.cluster.create_config(spec).await?;
    stream::with_status(StatusCode::CREATED, &json!({ "ID": id }))
}

async fn update(daemon: Shared, Path(id): Path<String>, call: Call, Json(spec): Json<DataSpec>) -> Reply {
    daemon.cluster.update_config(&id, version(&call)?, spec).await?;
    stream::empty(StatusCode::OK)
}

async fn remove(daemon: Shared, Path(id): Path<String>) -> Reply {
    daemon.cluster.remove_config(&id).await?;
    stream::empty(StatusCode::NO_CONTENT)
}
