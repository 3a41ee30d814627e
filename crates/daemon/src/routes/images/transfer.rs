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
use gantry_images::client::fetch;
use gantry_images::oci::IndexPlatform;
use gantry_images::{LayerStatus, Progress, ProgressSink, PullOptions, RegistryAuth, Store};
use gantry_model::container::ContainerConfig;
use gantry_model::platform::Platform;
use gantry_model::reference::Reference;
use http::StatusCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

/// `POST /images/create`: a pull, or with `fromSrc` an import.
pub(super) async fn create(daemon: Shared, call: Call, request: Request) -> Reply {
    match (call.query.text("fromImage"), call.query.text("fromSrc")) {
        (Some(image), _) => pull(&daemon, image, &call).await,
        (None, Some("-")) => import(&daemon, &call, request.into_body()).await,
        (None, Some(address)) => import_from(&daemon, &call, address).await,
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

/// The platform that a request about an image that is here means: JSON since 1.48, as in OCI indexes.
pub(super) fn meant_platform(call: &Call) -> Result<Option<Platform>, ApiError> {
    let Some(text) = call.query.text("platform").filter(|text| text.starts_with('{')) else {
        return platform(call);
    };
    let parsed: IndexPlatform = serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("invalid platform {text:?}: {error}")))?;
    Ok(Some(parsed.normal()))
}

/// Refuses an image that is not for the platform which the request means.
pub(super) async fn check_platform(daemon: &Daemon, name: &str, call: &Call) -> Result<(), ApiError> {
    let Some(wanted) = meant_platform(call)? else { return Ok(()) };
    let name = name.to_owned();
    blocking(daemon, move |images| images.require_platform(&name, &wanted)).await
}

fn auth(call: &Call) -> Result<Option<RegistryAuth>, ApiError> {
    Ok(call.auth()?.map(registry_auth))
}

fn parse(text: &str) -> Result<Reference, ApiError> {
    Reference::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))
}

async fn pull(daemon: &Arc<Daemon>, image: &str, call: &Call) -> Reply {
    let tag = call.query.text("tag").filter(|tag| !tag.is_empty());
    let reference = match tag {
        // Clients put a digest into the tag.
        Some(tag) if tag.contains(':') => parse(&format!("{image}@{tag}"))?,
        Some(tag) => parse(&format!("{image}:{tag}")).or_else(|_| target(image, Some(tag)))?,
        None => parse(image)?,
    };
    let all = reference.tag().is_none() && reference.digest().is_none();
    let options = PullOptions {
        platform: platform(call)?,
        auth: auth(call)?,
        registries: Arc::clone(daemon.puller.registries()),
    };
    let daemon = Arc::clone(daemon);
    progress::run(move |reports| async move {
        let lines = Lines::sink(&reports);
        if all {
            daemon.images.pull_all(&reference, &options, lines).await?;
        } else {
            daemon.images.pull(&reference, &options, lines).await?;
        }
        publish(&daemon, "pull", &reference.familiar(), &reference.familiar_name());
        Ok(())
    })
    .await
}

/// What `docker import` says of the image to be made.
struct Import {
    name: Option<Reference>,
    changes: Vec<String>,
    message: String,
    platform: Option<Platform>,
}

impl Import {
    fn of(call: &Call) -> Result<Import, ApiError> {
        Ok(Import {
            name: call.query.text("repo").map(|repo| target(repo, call.query.text("tag"))).transpose()?,
            changes: call.query.all("changes").map(str::to_owned).collect(),
            message: call.query.text("message").unwrap_or("").to_owned(),
            platform: platform(call)?,
        })
    }

    async fn run(
        self,
        daemon: &Daemon,
        archive: impl AsyncRead + Send + Unpin + 'static,
        reports: &Reports,
    ) -> Result<(), ApiError> {
        let reader = SyncIoBridge::new(archive);
        let Import { name, changes, message, platform } = self;
        let wanted = name.clone();
        let import =
            move |images: &Arc<Store>| images.import(Box::new(reader), &changes, &message, platform, wanted);
        let id = blocking(daemon, import).await?;
        let shown = name.map_or_else(|| id.to_string(), |name| name.familiar());
        publish(daemon, "import", &id.to_string(), &shown);
        let _ = reports.send(JsonMessage::status(id.to_string()));
        Ok(())
    }
}

async fn import(daemon: &Arc<Daemon>, call: &Call, body: Body) -> Reply {
    let import = Import::of(call)?;
    let daemon = Arc::clone(daemon);
    progress::run(move |reports| async move { import.run(&daemon, body::reader(body), &reports).await }).await
}

/// An import of what an address leads to.
async fn import_from(daemon: &Arc<Daemon>, call: &Call, address: &str) -> Reply {
    let import = Import::of(call)?;
    let (daemon, address) = (Arc::clone(daemon), address.to_owned());
    progress::run(move |reports| async move {
        let opened = fetch(&address, daemon.puller.registries()).await;
        let archive = opened.map_err(gantry_images::Error::from)?;
        let _ = reports.send(JsonMessage::status(format!("Downloading from {address}")));
        import.run(&daemon, archive, &reports).await
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
    for reference in &references {
        check_platform(daemon, &reference.familiar(), call).await?;
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

pub(super) async fn load(daemon: Shared, call: Call, request: Request) -> Reply {
    let platform = meant_platform(&call)?;
    let daemon = Arc::clone(&daemon);
    progress::run(move |reports| async move {
        let reader = SyncIoBridge::new(body::reader(request.into_body()));
        let loaded = blocking(&daemon, move |images| images.load(reader, platform.as_ref())).await?;
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

pub(super) async fn save(daemon: &Arc<Daemon>, names: Vec<String>, call: &Call) -> Reply {
    for name in &names {
        check_platform(daemon, name, call).await?;
    }
    let pieces = daemon.images.save_stream(&names)?;
    Ok(stream::chunks("application/x-tar", tokio_stream::wrappers::ReceiverStream::new(pieces)))
}

/// `POST /commit`.
pub(super) async fn commit(daemon: Shared, call: Call, Json(config): Json<ContainerConfig>) -> Reply {
    let query = &call.query;
    let container = query.required("container")?.to_owned();
    let reference = query.text("repo").map(|repo| target(repo, query.text("tag"))).transpose()?;
    let named = reference.as_ref().map(Reference::familiar);
    let request = CommitRequest {
        reference: reference.map(|reference| reference.familiar()),
        comment: query.text("comment").unwrap_or("").to_owned(),
        author: query.text("author").unwrap_or("").to_owned(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
        config: (config != ContainerConfig::default()).then_some(config),
    };
    let id = daemon.engine.commit(&container, request).await?;
    if let Some(name) = named {
        publish(&daemon, "tag", &id, &name);
    }
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
