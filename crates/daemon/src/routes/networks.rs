//! `/networks`: the local ones of this node and, on managers, those of the cluster.

use crate::daemon::{Daemon, Shared};
use crate::executor::LABEL_TASK_ID;
use crate::http::{ApiError, Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use gantry_api::container::ConnectBody;
use gantry_api::filters::Filters;
use gantry_api::network::{
    EndpointResource, NetworkCreateBody, NetworkCreateResponse, NetworkInspect, NetworksPruned,
};
use gantry_api::time::parse_bound;
use gantry_engine::Event;
use gantry_model::network::Network;
use gantry_network::{ErrorKind, Networks};
use http::StatusCode;
use jiff::Timestamp;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

/// Names of filters that lists of networks know.
const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

async fn list(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&FILTERS)?;
    let dangling = filters.flag("dangling")?;
    if let Some(kind) = filters.one("type")
        && !matches!(kind, "builtin" | "custom")
    {
        return Err(ApiError::bad_request(format!("invalid filter: 'type'='{kind}'")));
    }
    let mut found: Vec<Network> = all(&daemon).await;
    found.retain(|network| matches(&filters, network));
    if let Some(wanted) = dangling {
        let unused = |network: &Network| !predefined(network) && !used(&daemon, network);
        found.retain(|network| unused(network) == wanted);
    }
    let answer: Vec<NetworkInspect> =
        found.iter().map(|network| view(&daemon, network, Members::Without)).collect();
    stream::json(&answer)
}

/// Networks of this node and of the cluster, each once.
async fn all(daemon: &Daemon) -> Vec<Network> {
    let mut found = daemon.networks.list();
    for network in daemon.cluster_networks().await {
        if !found.iter().any(|known| known.id == network.id) {
            found.push(network);
        }
    }
    found
}

fn predefined(network: &Network) -> bool {
    matches!(network.spec.name.as_str(), "bridge" | "host" | "none")
}

/// Whether a container is or wants to be in it.
fn used(daemon: &Daemon, network: &Network) -> bool {
    let is = |reference: &str| reference == network.spec.name || reference == network.id;
    !daemon.networks.members(&network.id).is_empty()
        || daemon.engine.list().iter().any(|view| {
            view.network.networks.iter().any(|(name, endpoint)| is(name) || endpoint.network_id == network.id)
                || is(&view.host.network_mode)
        })
}

fn matches(filters: &Filters, network: &Network) -> bool {
    let spec = &network.spec;
    let scope = if spec.scope.is_empty() { "local" } else { &spec.scope };
    let kind = filters.one("type").is_none_or(|kind| (kind == "builtin") == predefined(network));
    kind && filters.exact("driver", &spec.driver)
        && filters.exact("scope", scope)
        && filters.prefix("id", &network.id)
        && filters.part("name", &spec.name)
        && filters.labels(&spec.labels)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Members {
    With,
    Without,
}

fn view(daemon: &Daemon, network: &Network, members: Members) -> NetworkInspect {
    let mut view = NetworkInspect::from_spec(&network.id, &network.created, &network.spec);
    if members == Members::Without {
        return view;
    }
    for member in daemon.networks.members(&network.id) {
        let endpoint = member.endpoint;
        let address = endpoint.address.map(|address| format!("{address}/{}", endpoint.prefix));
        let resource = EndpointResource {
            name: member.container_name,
            endpoint_id: endpoint.id,
            mac_address: endpoint.mac,
            ipv4_address: address.unwrap_or_default(),
            ipv6_address: String::new(),
        };
        view.containers.insert(member.container_id, resource);
    }
    view
}

async fn inspect(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let network = find(&daemon, &id, call.query.text("scope")).await?;
    let mut answer = view(&daemon, &network, Members::With);
    if answer.scope == "swarm" {
        (answer.peers, answer.services) =
            daemon.overlay_details(&network.id, call.query.flag("verbose")).await;
    }
    stream::json(&answer)
}

/// `host`, `none` and `bridge` as services name them: each task gets that of its own node, so the id is the name.
fn of_every_node(daemon: &Daemon, reference: &str) -> Result<Option<Network>, ApiError> {
    if !matches!(reference, "host" | "none" | "bridge") {
        return Ok(None);
    }
    let mut network = daemon.networks.inspect(reference)?;
    network.id = reference.to_owned();
    network.spec.scope = "swarm".to_owned();
    Ok(Some(network))
}

/// A network by id, name, or unique beginning of the id; the cluster's when this node has none such.
async fn find(daemon: &Daemon, reference: &str, scope: Option<&str>) -> Result<Network, ApiError> {
    if scope == Some("swarm")
        && let Some(network) = of_every_node(daemon, reference)?
    {
        return Ok(network);
    }
    let local = daemon.networks.inspect(reference);
    match (local, scope) {
        (Ok(network), None) => Ok(network),
        (Ok(network), Some(scope)) if network.spec.scope == scope => Ok(network),
        (Err(error), _) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        (other, _) => {
            if scope != Some("local")
                && let Some(network) = daemon.cluster_network(reference).await?
            {
                return Ok(network);
            }
            match other {
                Err(error) => Err(error.into()),
                Ok(_) => Err(ApiError::not_found(format!("network {reference} not found"))),
            }
        }
    }
}

async fn create(daemon: Shared, Json(body): Json<NetworkCreateBody>) -> Reply {
    let spec = body.spec;
    if spec.name.is_empty() {
        return Err(ApiError::bad_request("network name is missing"));
    }
    let id = if spec.driver == "overlay" || spec.scope == "swarm" {
        if daemon.networks.inspect(&spec.name).is_ok_and(|network| network.spec.name == spec.name) {
            return Err(ApiError::conflict(format!("network with name {} already exists", spec.name)));
        }
        daemon.create_cluster_network(spec).await?
    } else {
        if daemon.cluster_network(&spec.name).await?.is_some_and(|network| network.spec.name == spec.name) {
            return Err(ApiError::conflict(format!("network with name {} already exists", spec.name)));
        }
        let network = blocking(&daemon, move |networks| networks.create(spec)).await?;
        publish(&daemon, "create", &network);
        network.id
    };
    stream::with_status(StatusCode::CREATED, &NetworkCreateResponse { id, warning: String::new() })
}

async fn remove(daemon: Shared, Path(id): Path<String>) -> Reply {
    let network = find(&daemon, &id, None).await?;
    if network.spec.scope == "swarm" {
        // Containers of services that were told to stop do not hold a network, as with Docker: `docker stack rm` removes both at once.
        // Those that run are the managers' to see.
        let outside_services = |id: &str| {
            daemon.engine.get(id).is_ok_and(|view| !view.config.labels.contains_key(LABEL_TASK_ID))
        };
        let members = daemon.networks.members(&network.id);
        if let Some(user) = members.iter().find(|member| outside_services(&member.container_id)) {
            return Err(ApiError::forbidden(format!(
                "error while removing network: network {} has active endpoints (name:{:?} id:{:?})",
                network.spec.name,
                user.container_name,
                user.container_id.get(..12).unwrap_or_default()
            )));
        }
        daemon.remove_cluster_network(&network).await?;
    } else {
        let id = network.id.clone();
        let removed = blocking(&daemon, move |networks| networks.remove(&id)).await?;
        publish(&daemon, "destroy", &removed);
    }
    stream::empty(StatusCode::NO_CONTENT)
}

async fn connect(daemon: Shared, Path(id): Path<String>, Json(body): Json<ConnectBody>) -> Reply {
    let network = network_name(&daemon, &id).await?;
    let settings = body.endpoint_config.unwrap_or_default();
    daemon.engine.network_connect(&network, &body.container, settings).await?;
    stream::empty(StatusCode::OK)
}

async fn disconnect(daemon: Shared, Path(id): Path<String>, Json(body): Json<ConnectBody>) -> Reply {
    let network = network_name(&daemon, &id).await?;
    daemon.engine.network_disconnect(&network, &body.container, body.force).await?;
    stream::empty(StatusCode::OK)
}

/// The name under which the engine keeps a container's endpoint in the network.
async fn network_name(daemon: &Daemon, reference: &str) -> Result<String, ApiError> {
    Ok(find(daemon, reference, None).await?.spec.name)
}

async fn prune(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&["until", "label", "label!"])?;
    let until = parse_bound(filters.one("until").unwrap_or(""), Timestamp::now())?;
    let mut deleted = Vec::new();
    for network in daemon.networks.list() {
        let made: Option<Timestamp> = network.created.parse().ok();
        let old = until.is_none_or(|until| made.is_some_and(|made| made < until));
        let local = network.spec.scope != "swarm" && !predefined(&network);
        if !local || !old || !filters.labels(&network.spec.labels) || used(&daemon, &network) {
            continue;
        }
        let id = network.id.clone();
        // One that came into use meanwhile stays.
        if let Ok(removed) = blocking(&daemon, move |networks| networks.remove(&id)).await {
            publish(&daemon, "destroy", &removed);
            deleted.push(removed.spec.name);
        }
    }
    stream::json(&NetworksPruned { networks_deleted: (!deleted.is_empty()).then_some(deleted) })
}

/// Runs a network change on a thread that may block.
async fn blocking<T: Send + 'static>(
    daemon: &Daemon,
    act: impl FnOnce(&Networks) -> Result<T, gantry_network::NetworkError> + Send + 'static,
) -> Result<T, ApiError> {
    let networks = Arc::clone(&daemon.networks);
    match tokio::task::spawn_blocking(move || act(&networks)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(format!("change the networks of this node: {error}"))),
    }
}

fn publish(daemon: &Daemon, action: &str, network: &Network) {
    let event = Event::local("network", action, &network.id)
        .with("name", &network.spec.name)
        .with("type", &network.spec.driver);
    daemon.engine.publish(event);
}
