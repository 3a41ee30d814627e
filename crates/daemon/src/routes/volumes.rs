//! `/volumes`.

use crate::daemon::{Daemon, Shared};
use crate::http::{ApiError, Call, Json, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use gantry_api::volume::{VolumeCreateBody, VolumeInfo, VolumeList, VolumesPruned};
use gantry_engine::{VolumeRequest, VolumeView};
use http::StatusCode;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

async fn list(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&["dangling", "driver", "label", "name"])?;
    let found = daemon.engine.volume_list(&filters.to_lists())?;
    stream::json(&VolumeList { volumes: found.iter().map(info).collect(), warnings: None })
}

async fn create(daemon: Shared, Json(body): Json<VolumeCreateBody>) -> Reply {
    if body.cluster_volume_spec.is_some() {
        return Err(ApiError::not_implemented("cluster volumes are not supported"));
    }
    let request = VolumeRequest {
        name: Some(body.name).filter(|name| !name.is_empty()),
        driver: body.driver,
        options: body.driver_opts,
        labels: body.labels,
    };
    let made = daemon.engine.volume_create(request).await?;
    stream::with_status(StatusCode::CREATED, &info(&made))
}

async fn inspect(daemon: Shared, Path(name): Path<String>) -> Reply {
    stream::json(&info(&daemon.engine.volume_get(&name)?))
}

async fn remove(daemon: Shared, Path(name): Path<String>, call: Call) -> Reply {
    daemon.engine.volume_remove(&name, call.query.flag("force")).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

async fn prune(daemon: Shared, call: Call) -> Reply {
    let mut filters = call.query.filters()?.only(&["all", "label", "label!"])?;
    // Before API 1.42 named volumes went too.
    if !call.since(42) && !filters.has("all") {
        filters.add("all", "true");
    }
    let pruned = daemon.engine.volume_prune(&filters.to_lists()).await?;
    let volumes_deleted = (!pruned.removed.is_empty()).then_some(pruned.removed);
    stream::json(&VolumesPruned { volumes_deleted, space_reclaimed: pruned.space_reclaimed })
}

/// A volume as Docker shows it.
pub(super) fn info(volume: &VolumeView) -> VolumeInfo {
    let some = |map: &std::collections::BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let mut labels = some(&volume.labels);
    if volume.anonymous {
        labels.get_or_insert_default().insert("com.docker.volume.anonymous".to_owned(), String::new());
    }
    VolumeInfo {
        created_at: gantry_api::time::format(jiff_seconds(volume.created)),
        driver: volume.driver.clone(),
        labels,
        mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
        name: volume.name.clone(),
        options: some(&volume.options),
        scope: "local".to_owned(),
        usage_data: None,
    }
}

/// Docker shows whole seconds here.
fn jiff_seconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}
