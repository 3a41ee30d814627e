//! `/swarm`: make, join, leave, inspect and change the cluster.

use crate::daemon::{Daemon, Shared};
use crate::http::{ApiError, Call, Json, Reply, stream};
use axum::Router;
use axum::routing::{get, post};
use gantry_cluster::{InitRequest, JoinRequest, Rotate};
use gantry_model::node::Availability;
use gantry_model::nullable;
use gantry_model::service::Version;
use gantry_model::swarm::{Cluster as ClusterObject, JoinTokens, SwarmSpec};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
        .route("/swarm/unlockkey", get(unlock_key))
        .route("/swarm/unlock", post(unlock))
}

/// Body of an init.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InitBody {
    #[serde(deserialize_with = "nullable")]
    listen_addr: String,
    #[serde(deserialize_with = "nullable")]
    advertise_addr: String,
    #[serde(deserialize_with = "nullable")]
    data_path_addr: String,
    #[serde(deserialize_with = "nullable")]
    data_path_port: u32,
    #[serde(deserialize_with = "nullable")]
    force_new_cluster: bool,
    #[serde(deserialize_with = "nullable")]
    spec: SwarmSpec,
    #[serde(deserialize_with = "nullable")]
    auto_lock_managers: bool,
    availability: Option<Word>,
    #[serde(deserialize_with = "nullable")]
    default_addr_pool: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    subnet_size: u32,
}

/// Body of a join.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct JoinBody {
    #[serde(deserialize_with = "nullable")]
    listen_addr: String,
    #[serde(deserialize_with = "nullable")]
    advertise_addr: String,
    #[serde(deserialize_with = "nullable")]
    data_path_addr: String,
    #[serde(deserialize_with = "nullable")]
    remote_addrs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    join_token: String,
    availability: Option<Word>,
}

/// An availability, which clients also send empty.
#[derive(Debug, Deserialize)]
struct Word(String);

fn availability(word: Option<Word>) -> Result<Availability, ApiError> {
    match word.as_ref().map_or("", |word| word.0.as_str()) {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(ApiError::bad_request(format!("invalid Availability: {other:?}"))),
    }
}

/// `eth0`, `eth0:2377` → that interface's address.
fn resolve(text: &str) -> Result<String, ApiError> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.contains(':') => (name, Some(port)),
        _ => (text, None),
    };
    if name.is_empty() || name.parse::<IpAddr>().is_ok() || text.starts_with('[') {
        return Ok(text.to_owned());
    }
    let address = crate::cluster::interface_address(name).ok_or_else(|| {
        ApiError::bad_request(format!("{text:?} is neither an IP address nor an interface with one"))
    })?;
    Ok(port.map_or_else(|| address.to_string(), |port| format!("{address}:{port}")))
}

async fn init(daemon: Shared, Json(body): Json<InitBody>) -> Reply {
    let mut advertise_addr = resolve(&body.advertise_addr)?;
    if advertise_addr.is_empty()
        && let Some(address) = daemon.settings.default_addr
    {
        advertise_addr = address.to_string();
    }
    let request = InitRequest {
        listen_addr: resolve(&body.listen_addr)?,
        advertise_addr,
        data_path_addr: resolve(&body.data_path_addr)?,
        default_addr_pool: if body.default_addr_pool.is_empty() {
            vec!["10.0.0.0/8".to_owned()]
        } else {
            body.default_addr_pool
        },
        subnet_size: if body.subnet_size == 0 { 24 } else { body.subnet_size },
        data_path_port: body.data_path_port,
        force_new_cluster: body.force_new_cluster,
        auto_lock_managers: body.auto_lock_managers || body.spec.encryption_config.auto_lock_managers,
        spec: with_defaults(body.spec),
        availability: availability(body.availability)?,
    };
    let node = daemon.cluster.init(request).await?;
    stream::json(&node)
}

/// Docker's defaults where a client is silent.
fn with_defaults(mut spec: SwarmSpec) -> SwarmSpec {
    fn set<T: PartialEq + Default>(field: &mut T, value: T) {
        if *field == T::default() {
            *field = value;
        }
    }
    set(&mut spec.name, "default".to_owned());
    spec.orchestration.task_history_retention_limit.get_or_insert(5);
    set(&mut spec.raft.snapshot_interval, 10_000);
    spec.raft.keep_old_snapshots.get_or_insert(0);
    set(&mut spec.raft.log_entries_for_slow_followers, 500);
    set(&mut spec.raft.election_tick, 10);
    set(&mut spec.raft.heartbeat_tick, 1);
    set(&mut spec.dispatcher.heartbeat_period, 5_000_000_000);
    // 90 days.
    set(&mut spec.ca_config.node_cert_expiry, 90 * 24 * 3_600_000_000_000);
    spec
}

async fn join(daemon: Shared, Json(body): Json<JoinBody>) -> Reply {
    let mut advertise_addr = resolve(&body.advertise_addr)?;
    if advertise_addr.is_empty()
        && let Some(address) = daemon.settings.default_addr
    {
        advertise_addr = address.to_string();
    }
    let request = JoinRequest {
        remote_addrs: body.remote_addrs,
        token: body.join_token,
        listen_addr: resolve(&body.listen_addr)?,
        advertise_addr,
        data_path_addr: resolve(&body.data_path_addr)?,
        availability: availability(body.availability)?,
    };
    daemon.cluster.join(request).await?;
    stream::empty(StatusCode::OK)
}

async fn leave(daemon: Shared, call: Call) -> Reply {
    daemon.cluster.leave(call.query.flag("force")).await?;
    stream::empty(StatusCode::OK)
}

/// The cluster with its tokens.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SwarmView {
    #[serde(flatten)]
    cluster: ClusterObject,
    join_tokens: JoinTokens,
}

async fn inspect(daemon: Shared) -> Reply {
    let info = daemon.cluster.swarm().await?;
    stream::json(&SwarmView { cluster: info.cluster, join_tokens: info.join_tokens })
}

async fn update(daemon: Shared, call: Call, Json(spec): Json<SwarmSpec>) -> Reply {
    let version = version(&call)?;
    let rotate = Rotate {
        worker_token: call.query.flag("rotateWorkerToken"),
        manager_token: call.query.flag("rotateManagerToken"),
        manager_unlock_key: call.query.flag("rotateManagerUnlockKey"),
    };
    daemon.cluster.update_swarm(version, spec, rotate).await?;
    stream::empty(StatusCode::OK)
}

/// `version`: the version that the client read.
pub(super) fn version(call: &Call) -> Result<Version, ApiError> {
    let text = call.query.get("version").unwrap_or("");
    let index =
        text.parse().map_err(|_| ApiError::bad_request(format!("invalid swarm object version '{text}'")))?;
    Ok(Version { index })
}

async fn unlock_key(daemon: Shared) -> Reply {
    let key = daemon.cluster.unlock_key().await?;
    stream::json(&serde_json::json!({ "UnlockKey": key }))
}

/// Body of an unlock.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UnlockBody {
    #[serde(deserialize_with = "nullable")]
    unlock_key: String,
}

async fn unlock(daemon: Shared, Json(body): Json<UnlockBody>) -> Reply {
    daemon.cluster.unlock(&body.unlock_key).await?;
    stream::empty(StatusCode::OK)
}
