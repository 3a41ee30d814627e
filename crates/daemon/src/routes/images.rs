//! `/images`: list, inspect, history, tag, delete, prune; transfers have a file of their own.
//!
//! Names of images contain slashes, so one route takes all that is behind `/images/` and looks at its end.

mod filter;
mod transfer;

use crate::daemon::{Daemon, Shared};
use crate::http::{ApiError, Call, Reply, stream};
use crate::routes::containers::STORAGE_DRIVER;
use axum::Router;
use axum::extract::{Path, Request};
use axum::routing::{get, post};
use gantry_api::container::GraphDriver;
use gantry_api::image::{
    HistoryEntry, ImageDeleted, ImageInspect, ImageMetadata, ImageSummary, ImagesPruned, RootFs,
};
use gantry_api::time::{self, parse_bound};
use gantry_engine::Event;
use gantry_images::{ContainerUse, Image, PruneOptions, Removed, Store};
use gantry_model::digest::ImageId;
use gantry_model::reference::Reference;
use http::{Method, StatusCode};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/search", get(search))
        .route("/images/create", post(transfer::create))
        .route("/images/load", post(transfer::load))
        .route("/images/get", get(transfer::save_many))
        .route("/images/prune", post(prune))
        .route("/images/{*rest}", axum::routing::any(by_name))
        .route("/distribution/{*rest}", get(transfer::distribution))
        .route("/commit", post(transfer::commit))
}

/// Sorts requests for one image by method and the last part of the path.
async fn by_name(daemon: Shared, Path(rest): Path<String>, call: Call, request: Request) -> Reply {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    match (request.method(), verb) {
        (&Method::GET, "json") => inspect(&daemon, name, &call).await,
        (&Method::GET, "history") => history(&daemon, name, &call).await,
        (&Method::GET, "get") => transfer::save(&daemon, vec![name.to_owned()], &call).await,
        (&Method::POST, "push") => transfer::push(&daemon, name, &call).await,
        (&Method::POST, "tag") => tag(&daemon, name, &call).await,
        (&Method::DELETE, _) => remove(&daemon, &rest, &call).await,
        _ => Err(ApiError::not_found("page not found")),
    }
}

/// Runs work on the image store on a thread that may block.
async fn blocking<T: Send + 'static>(
    daemon: &Daemon,
    act: impl FnOnce(&Arc<Store>) -> Result<T, gantry_images::Error> + Send + 'static,
) -> Result<T, ApiError> {
    let images = Arc::clone(&daemon.images);
    match tokio::task::spawn_blocking(move || act(&images)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(format!("work on the image store: {error}"))),
    }
}

async fn list(daemon: Shared, call: Call) -> Reply {
    let mut filters = call.query.filters()?;
    // Parameter of old clients.
    if let Some(pattern) = call.query.text("filter") {
        filters.add("reference", pattern);
    }
    let all = call.query.flag("all");
    let images = Arc::clone(&daemon.images);
    let mut found = blocking(&daemon, move |_| Ok(filter::select(&images, &filters))).await??;
    let parents: Vec<ImageId> = found.iter().filter_map(|image| image.parent).collect();
    // Steps between two images are shown only when asked for.
    found.retain(|image| all || !image.repo_tags.is_empty() || !parents.contains(&image.id));
    let count = call.query.flag("shared-size") || call.query.flag("containers");
    let answer: Vec<ImageSummary> = found.iter().map(|image| summary(&daemon, image, &call, count)).collect();
    stream::json(&answer)
}

/// An entry of a list.
fn summary(daemon: &Daemon, image: &gantry_images::Summary, call: &Call, count: bool) -> ImageSummary {
    let size = i64::try_from(image.size).unwrap_or(i64::MAX);
    let users = || i64::try_from(daemon.engine.users_of_image(&image.id.to_string()).len()).unwrap_or(-1);
    ImageSummary {
        containers: if count { users() } else { -1 },
        created: image.created,
        id: image.id.to_string(),
        labels: (!image.labels.is_empty()).then(|| image.labels.clone()),
        parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_digests: image.repo_digests.clone(),
        repo_tags: image.repo_tags.clone(),
        shared_size: -1,
        size,
        virtual_size: (!call.since(44)).then_some(size),
    }
}

/// All images and the bytes of their layers, for `/system/df`.
pub(super) async fn usage(daemon: &Daemon, call: &Call) -> Result<(Vec<ImageSummary>, i64), ApiError> {
    let (list, size) = blocking(daemon, |images| Ok((images.list(), images.layers_size()))).await?;
    let images = list.iter().map(|image| {
        let entry = summary(daemon, image, call, true);
        // Whether layers are shared is not counted yet: 0 keeps the sums of clients right.
        ImageSummary { shared_size: 0, ..entry }
    });
    Ok((images.collect(), i64::try_from(size).unwrap_or(i64::MAX)))
}

async fn inspect(daemon: &Daemon, name: &str, call: &Call) -> Reply {
    transfer::check_platform(daemon, name, call).await?;
    let name = name.to_owned();
    let image = blocking(daemon, move |images| images.get(&name)).await?;
    stream::json(&view(&image, call))
}

fn view(image: &Image, call: &Call) -> ImageInspect {
    // What the typed configuration does not know must still be shown: the document itself is quoted.
    let document: serde_json::Value = serde_json::from_slice(&image.config_raw).unwrap_or_default();
    let text = |key: &str| document.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let size = i64::try_from(image.size).unwrap_or(i64::MAX);
    let last =
        document.get("history").and_then(|history| history.as_array()?.last()?.get("comment")?.as_str());
    let lower: Vec<_> = image.layer_folders.iter().map(|path| path.to_string_lossy()).collect();
    let folders = BTreeMap::from([("LowerDir".to_owned(), lower.join(":"))]);
    let diff_ids = image.record.layers.iter().map(|layer| layer.diff_id.to_string());
    ImageInspect {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        parent: image.record.parent.map(|id| id.to_string()).unwrap_or_default(),
        comment: last.unwrap_or_default().to_owned(),
        created: image.config.created.clone(),
        docker_version: text("docker_version"),
        author: text("author"),
        config: whole_config(document.get("config"), call.since(50)),
        architecture: text("architecture"),
        variant: text("variant"),
        os: text("os"),
        size,
        virtual_size: (!call.since(44)).then_some(size),
        graph_driver: GraphDriver { data: Some(folders), name: STORAGE_DRIVER.to_owned() },
        root_fs: RootFs { r#type: "layers".to_owned(), layers: diff_ids.collect() },
        metadata: ImageMetadata { last_tag_time: time::format_or_never(image.record.tagged) },
    }
}

/// A run configuration with the fields that clients expect to be there, set or not; before API 1.50 all those of a container.
fn whole_config(config: Option<&serde_json::Value>, portable: bool) -> serde_json::Value {
    let mut config = config.and_then(|config| config.as_object()).cloned().unwrap_or_default();
    let mut fill = |keys: &[&str], value: serde_json::Value| {
        for key in keys {
            config.entry(*key).or_insert_with(|| value.clone());
        }
    };
    fill(&["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"], serde_json::Value::Null);
    fill(&["User", "WorkingDir"], "".into());
    if !portable {
        fill(&["Hostname", "Domainname", "Image"], "".into());
        let flags = ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"];
        fill(&flags, false.into());
    }
    config.into()
}

async fn history(daemon: &Daemon, name: &str, call: &Call) -> Reply {
    transfer::check_platform(daemon, name, call).await?;
    let name = name.to_owned();
    let steps = blocking(daemon, move |images| images.history(&name)).await?;
    let answer: Vec<HistoryEntry> = steps
        .into_iter()
        .map(|step| HistoryEntry {
            comment: step.comment,
            created: step.created,
            created_by: step.created_by,
            id: step.id,
            size: i64::try_from(step.size).unwrap_or(i64::MAX),
            tags: (!step.tags.is_empty()).then_some(step.tags),
        })
        .collect();
    stream::json(&answer)
}

async fn tag(daemon: &Daemon, name: &str, call: &Call) -> Reply {
    let target = target(call.query.required("repo")?, call.query.text("tag"))?;
    let (name, named) = (name.to_owned(), target.familiar());
    let id = blocking(daemon, move |images| images.tag(&name, &target)).await?;
    publish(daemon, "tag", &id.to_string(), &named);
    stream::empty(StatusCode::CREATED)
}

/// `repo` and `tag` of a query as a reference; the tag may be part of `repo`.
fn target(repo: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let bad = |error: gantry_model::reference::InvalidReference| ApiError::bad_request(error.to_string());
    let reference = Reference::parse(repo).map_err(bad)?;
    let reference = match tag {
        Some(tag) => reference.with_tag(tag).map_err(bad)?,
        None => reference,
    };
    Ok(reference.with_default_tag())
}

async fn remove(daemon: &Daemon, name: &str, call: &Call) -> Reply {
    let (name, force) = (name.to_owned(), call.query.flag("force"));
    let engine = daemon.engine.clone();
    let known = Known::now(daemon);
    let removed =
        blocking(daemon, move |images| images.remove(&name, force, &|id| users(&engine, id))).await?;
    known.publish(daemon, &removed);
    stream::json(&removed.into_iter().map(deleted).collect::<Vec<_>>())
}

/// Containers that use an image.
fn users(engine: &gantry_engine::Engine, id: &ImageId) -> Vec<ContainerUse> {
    let ids = engine.users_of_image(&id.to_string()).into_iter();
    ids.map(|id| {
        let running = engine.get(id.as_str()).is_ok_and(|view| view.state.alive());
        ContainerUse { id, running }
    })
    .collect()
}

fn deleted(removed: Removed) -> ImageDeleted {
    match removed {
        Removed::Untagged(name) => ImageDeleted { untagged: Some(name), deleted: None },
        Removed::Deleted(id) => ImageDeleted { untagged: None, deleted: Some(id) },
    }
}

async fn prune(daemon: Shared, call: Call) -> Reply {
    let filters = call.query.filters()?.only(&["dangling", "label", "label!", "until"])?;
    let dangling_only = filters.flag("dangling")?.unwrap_or(true);
    let until = parse_bound(filters.one("until").unwrap_or(""), Timestamp::now())?;
    let engine = daemon.engine.clone();
    let known = Known::now(&daemon);
    let pruned = blocking(&daemon, move |images| {
        let fits = |config: &gantry_images::oci::ImageConfig| filters.labels(&filter::labels(config));
        images.prune(PruneOptions { dangling_only, until, filter: &fits }, &|id| users(&engine, id))
    })
    .await?;
    known.publish(&daemon, &pruned.removed);
    let gone: Vec<ImageDeleted> = pruned.removed.into_iter().map(deleted).collect();
    stream::json(&ImagesPruned {
        images_deleted: (!gone.is_empty()).then_some(gone),
        space_reclaimed: pruned.reclaimed,
    })
}

async fn search() -> ApiError {
    ApiError::not_implemented("searching registries is not supported: look at the registry's own page")
}

/// The images before some were removed: events name an image by its id, and layers have none.
struct Known {
    ids: BTreeSet<String>,
    names: BTreeMap<String, String>,
}

impl Known {
    fn now(daemon: &Daemon) -> Self {
        let mut known = Self { ids: BTreeSet::new(), names: BTreeMap::new() };
        for image in daemon.images.list() {
            let id = image.id.to_string();
            let names = image.repo_tags.into_iter().chain(image.repo_digests);
            known.names.extend(names.map(|name| (name, id.clone())));
            known.ids.insert(id);
        }
        known
    }

    fn publish(&self, daemon: &Daemon, removed: &[Removed]) {
        for item in removed {
            match item {
                // Named since: its name says as much.
                Removed::Untagged(name) => {
                    publish(daemon, "untag", self.names.get(name).unwrap_or(name), name)
                }
                Removed::Deleted(id) if self.ids.contains(id) => publish(daemon, "delete", id, id),
                Removed::Deleted(_) => {}
            }
        }
    }
}

fn publish(daemon: &Daemon, action: &str, id: &str, name: &str) {
    daemon.engine.publish(Event::local("image", action, id).with("name", name));
}
