//! `/nodes`.

use super::swarm::version;
use crate::daemon::{Daemon, Shared};
use crate::http::{Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use gantry_api::filters::Filters;
use gantry_model::node::{Availability, Node, NodeSpec};
use http::StatusCode;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{id}", get(inspect).delete(remove))
        .route("/nodes/{id}/update", post(update))
}

/// Names of filters that lists of nodes know.
const FILTERS: [&str; 6] = ["id", "label", "membership", "name", "node.label", "role"];

async fn list(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&FILTERS)?;
    let found = daemon.cluster.nodes().await?;
    let wanted: Vec<Node> = found.into_iter().filter(|node| matches(&filters, node)).map(shown).collect();
    stream::json(&wanted)
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let labels = |name: &str, labels: &std::collections::BTreeMap<String, String>| {
        filters.values(name).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    };
    filters.prefix("id", node.id.as_str())
        && (filters.prefix("name", &node.description.hostname) || (!node.spec.name.is_empty() && filters.prefix("name", &node.spec.name)))
        && filters.exact("role", node.spec.role.as_str())
        // Nodes are taken into the cluster at once: there are no pending ones.
        && filters.exact("membership", "accepted")
        && labels("label", &node.description.engine.labels)
        && labels("node.label", &node.spec.labels)
}

/// Docker's client shows no field that it does not know, so broken paths are told in the message of the status as well.
fn shown(mut node: Node) -> Node {
    if node.status.message.is_empty() {
        let details: Vec<&str> = node.paths.iter().map(|path| path.detail.as_str()).collect();
        node.status.message = details.join("; ");
    }
    node
}

async fn inspect(daemon: Shared, Path(id): Path<String>) -> Reply {
    stream::json(&shown(daemon.cluster.node(&id).await?))
}

async fn update(daemon: Shared, Path(id): Path<String>, call: Call, Json(spec): Json<NodeSpec>) -> Reply {
    let drained = spec.availability == Availability::Drain;
    daemon.cluster.update_node(&id, version(&call)?, spec).await?;
    tracing::debug!(node = id, drained, "node was updated");
    stream::empty(StatusCode::OK)
}

async fn remove(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    daemon.cluster.remove_node(&id, call.query.flag("force")).await?;
    stream::empty(StatusCode::OK)
}
