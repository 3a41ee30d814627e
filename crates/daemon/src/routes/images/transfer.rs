//! Images on the move: pull, import, push, load, save, commit, and a look at a registry's manifest.

use super::{blocking, publish, target};
use crate::daemon::{Daemon, Shared};
use crate::http::progress::{self, Reports};
use crate::http::{ApiError, Call, Json, Reply, body, stream};
use crate::pull::registry_auth;
use axum::body::Body;
use axum::extract::{Path, Request};
use gantry_api::container::IdResponse;
use gantry_api::image::{Descriptor, DistributionInspect, DistributionPlatform};
use gantry_api::progress::JsonMessage;
use gantry_engine::CommitRequest;
use gantry_images::{LayerStatus, Progress, ProgressSink, PullOptions, RegistryAuth, Store};
use gantry_model::container::ContainerConfig;
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use http::StatusCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::io::SyncIoBridge;

/// `POST /images/create`: a pull, or with `fromSrc` an import.
pub(super) async fn create(daemon: Shared, call: Call, request: Request) -> Reply {
    match (call.query.text("fromImage"), call.query.text("fromSrc")) {
        (Some(image), _) => pull(&daemon, image, &call).await,
        (None, Some("-")) => import(&daemon, &call, request.into_body()).await,
        (None, Some(_)) => Err(ApiError::not_implemented(
            "importing from an address is not supported: download the archive and send it (docker import FILE)",
        )),
        (None, None) => Err(ApiError::bad_request("neither fromImage nor fromSrc given")),
    }
}

/// Turns the store's reports into Docker's lines. The first is held back until the second: it only says what is about to be
/// tried, and a registry's refusal can then still have its own status code.
struct Lines {
    reports: Reports,
    held: Mutex<Held>,
}

enum Held {
    Nothing,
    First(Box<JsonMessage>),
    Through,
}

impl Lines {
    fn sink(reports: &Reports) -> Arc<dyn ProgressSink> {
        Arc::new(Self { reports: reports.clone(), held: Mutex::new(Held::Nothing) })
    }
}

impl ProgressSink for Lines {
    fn report(&self, progress: Progress) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let message = line(progress);
        // A client that is gone ends the work by itself: nothing to do when nobody receives.
        match std::mem::replace(&mut *held, Held::Through) {
            Held::Nothing => *held = Held::First(Box::new(message)),
            Held::First(first) => {
                let _ = self.reports.send(*first);
                let _ = self.reports.send(message);
            }
            Held::Through => {
                let _ = self.reports.send(message);
            }
        }
    }
}

fn line(progress: Progress) -> JsonMessage {
    match progress {
        Progress::Message { id, text } => JsonMessage { id, ..JsonMessage::status(text) },
        Progress::Layer { id, status, current, total } => {
            let counted =
                matches!(status, LayerStatus::Downloading | LayerStatus::Extracting | LayerStatus::Pushing);
            if counted {
                JsonMessage::count(id, status.as_str(), current, (total > 0).then_some(total))
            } else {
                JsonMessage::about(id, status.as_str())
            }
        }
    }
}

fn platform(call: &Call) -> Result<Option<Platform>, ApiError> {
    let text = call.query.text("platform");
    text.map(|text| Platform::parse(text).map_err(|error| ApiError::bad_request(error.to_string())))
        .transpose()
}

fn auth(call: &Call) -> Result<Option<RegistryAuth>, ApiError> {
    Ok(call.auth()?.map(registry_auth))
}

fn parse(text: &str) -> Result<Reference, ApiError> {
    Reference::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))
}

async fn pull(daemon: &Arc<Daemon>, image: &str, call: &Call) -> Reply {
    let reference = match call.query.text("tag") {
        // Clients put a digest into the tag.
        Some(tag) if tag.contains(':') => parse(&format!("{image}@{tag}"))?,
        Some(tag) => parse(&format!("{image}:{tag}")).or_else(|_| target(image, Some(tag)))?,
        None => parse(image)?.with_default_tag(),
    };
    let options = PullOptions {
        platform: platform(call)?,
        auth: auth(call)?,
        registries: Arc::clone(daemon.puller.registries()),
    };
    let daemon = Arc::clone(daemon);
    progress::run(move |reports| async move {
        daemon.images.pull(&reference, &options, Lines::sink(&reports)).await?;
        publish(&daemon, "pull", &reference.familiar(), &reference.familiar_name());
        Ok(())
    })
    .await
}

async fn import(daemon: &Arc<Daemon>, call: &Call, body: Body) -> Reply {
    let name = call.query.text("repo").map(|repo| target(repo, call.query.text("tag"))).transpose()?;
    let changes: Vec<String> = call.query.all("changes").map(str::to_owned).collect();
    let message = call.query.text("message").unwrap_or("").to_owned();
    let platform = platform(call)?;
    let daemon = Arc::clone(daemon);
    progress::run(move |reports| async move {
        let reader = SyncIoBridge::new(body::reader(body));
        let wanted = name.clone();
        let import =
            move |images: &Arc<Store>| images.import(Box::new(reader), &changes, &message, platform, wanted);
        let id = blocking(&daemon, import).await?;
        let shown = name.map_or_else(|| id.to_string(), |name| name.familiar());
        publish(&daemon, "import", &id.to_string(), &shown);
        let _ = reports.send(JsonMessage::status(id.to_string()));
        Ok(())
    })
    .await
}

pub(super) async fn push(daemon: &Arc<Daemon>, name: &str, call: &Call) -> Reply {
    let reference = parse(name)?;
    let references = match call.query.text("tag") {
        Some(tag) => vec![target(name, Some(tag))?],
        None if reference.tag().is_some() => vec![reference],
        None => tags_of(daemon, &reference),
    };
    if references.is_empty() {
        return Err(ApiError::not_found(format!("An image does not exist locally with the tag: {name}")));
    }
    let auth = auth(call)?;
    let daemon = Arc::clone(daemon);
    progress::run(move |reports| async move {
        for reference in &references {
            if daemon.images.get(&reference.familiar()).is_err() {
                let text =
                    format!("An image does not exist locally with the tag: {}", reference.familiar_name());
                return Err(ApiError::not_found(text));
            }
            let registries = daemon.puller.registries();
            let pushed =
                daemon.images.push(reference, auth.clone(), registries, Lines::sink(&reports)).await?;
            let tag = reference.tag().unwrap_or("latest");
            let aux =
                serde_json::json!({ "Tag": tag, "Digest": pushed.digest.to_string(), "Size": pushed.size });
            let _ = reports
                .send(JsonMessage { progress_detail: Some(Default::default()), ..JsonMessage::aux(aux) });
            publish(&daemon, "push", &reference.familiar(), &reference.familiar_name());
        }
        Ok(())
    })
    .await
}

/// All names of one repository.
fn tags_of(daemon: &Daemon, repository: &Reference) -> Vec<Reference> {
    let names = daemon.images.list().into_iter().flat_map(|image| image.repo_tags);
    let references = names.filter_map(|name| Reference::parse(&name).ok());
    references.filter(|reference| reference.name() == repository.name()).collect()
}

pub(super) async fn load(daemon: Shared, request: Request) -> Reply {
    let daemon = Arc::clone(&daemon);
    progress::run(move |reports| async move {
        let reader = SyncIoBridge::new(body::reader(request.into_body()));
        let loaded = blocking(&daemon, move |images| images.load(reader)).await?;
        for image in loaded {
            let id = image.image.to_string();
            publish(&daemon, "load", &id, image.names.first().unwrap_or(&id));
            if image.names.is_empty() {
                let _ = reports.send(JsonMessage::stream(format!("Loaded image ID: {id}\n")));
            }
            for name in image.names {
                let _ = reports.send(JsonMessage::stream(format!("Loaded image: {name}\n")));
            }
        }
        Ok(())
    })
    .await
}

pub(super) async fn save_many(daemon: Shared, call: Call) -> Reply {
    let names: Vec<String> =
        call.query.all("names").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(ApiError::bad_request("no images named: give names=NAME"));
    }
    save(&daemon, names, &call).await
}

pub(super) async fn save(daemon: &Arc<Daemon>, names: Vec<String>, _: &Call) -> Reply {
    let pieces = daemon.images.save_stream(&names)?;
    Ok(stream::chunks("application/x-tar", tokio_stream::wrappers::ReceiverStream::new(pieces)))
}

/// `POST /commit`.
pub(super) async fn commit(daemon: Shared, call: Call, Json(config): Json<ContainerConfig>) -> Reply {
    let query = &call.query;
    let container = query.required("container")?.to_owned();
    let reference = query.text("repo").map(|repo| target(repo, query.text("tag"))).transpose()?;
    let request = CommitRequest {
        reference: reference.map(|reference| reference.familiar()),
        comment: query.text("comment").unwrap_or("").to_owned(),
        author: query.text("author").unwrap_or("").to_owned(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
        config: (config != ContainerConfig::default()).then_some(config),
    };
    let id = daemon.engine.commit(&container, request).await?;
    stream::with_status(StatusCode::CREATED, &IdResponse { id })
}

/// `GET /distribution/{name}/json`: what a registry has under a name.
pub(super) async fn distribution(daemon: Shared, Path(rest): Path<String>, call: Call) -> Reply {
    let Some(name) = rest.strip_suffix("/json") else { return Err(ApiError::not_found("page not found")) };
    let reference = parse(name)?.with_default_tag();
    let remote = daemon.images.remote(&reference, auth(&call)?, daemon.puller.registries()).await?;
    let platforms = remote.platforms.iter().map(|platform| DistributionPlatform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    });
    stream::json(&DistributionInspect {
        descriptor: Descriptor {
            media_type: remote.media_type,
            digest: remote.digest.to_string(),
            size: i64::try_from(remote.size).unwrap_or(i64::MAX),
        },
        platforms: platforms.collect(),
    })
}
