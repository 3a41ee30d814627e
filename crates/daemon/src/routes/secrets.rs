//! `/secrets`.

use super::swarm::version;
use crate::daemon::{Daemon, Shared};
use crate::http::{Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use gantry_api::filters::Filters;
use gantry_model::secret::{DataSpec, Secret};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/secrets", get(list))
        .route("/secrets/create", post(create))
        .route("/secrets/{id}", get(inspect).delete(remove))
        .route("/secrets/{id}/update", post(update))
}

/// Names of filters that lists of secrets know.
const FILTERS: [&str; 4] = ["id", "label", "name", "names"];

async fn list(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&FILTERS)?;
    let found = daemon.cluster.secrets().await?;
    let wanted = found.iter().filter(|secret| matches(&filters, secret));
    stream::json(&wanted.map(public).collect::<Vec<_>>())
}

fn matches(filters: &Filters, secret: &Secret) -> bool {
    filters.prefix("id", secret.id.as_str())
        && filters.prefix("name", &secret.spec.name)
        && filters.exact("names", &secret.spec.name)
        && filters.labels(&secret.spec.labels)
}

/// A secret without its data, which the API never shows.
fn public(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    secret.spec.data.clear();
    secret
}

async fn inspect(daemon: Shared, Path(id): Path<String>) -> Reply {
    stream::json(&public(&daemon.cluster.secret(&id).await?))
}

async fn create(daemon: Shared, Json(spec): Json<DataSpec>) -> Reply {
    let id = daemon.cluster.create_secret(spec).await?;
    stream::with_status(StatusCode::CREATED, &json!({ "ID": id }))
}

async fn update(daemon: Shared, Path(id): Path<String>, call: Call, Json(spec): Json<DataSpec>) -> Reply {
    daemon.cluster.update_secret(&id, version(&call)?, spec).await?;
    stream::empty(StatusCode::OK)
}

async fn remove(daemon: Shared, Path(id): Path<String>) -> Reply {
    daemon.cluster.remove_secret(&id).await?;
    stream::empty(StatusCode::NO_CONTENT)
}
