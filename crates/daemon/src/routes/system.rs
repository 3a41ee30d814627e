//! The daemon itself: `/_ping`, `/version`, `/info`, `/events`, `/system/df`, `/auth`.

mod info;
mod usage;

use crate::daemon::{Daemon, Shared};
use crate::http::error::chain;
use crate::http::{ApiError, Call, Json, Reply, stream};
use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt;
use gantry_api::auth::{AuthConfig, AuthResponse};
use gantry_api::event::{EventActor, EventMessage};
use gantry_api::system::{Component, PlatformName, VersionResponse};
use gantry_api::time::parse_bound;
use gantry_api::version::{MAX, MIN};
use http::{HeaderValue, header};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info::info))
        .route("/events", get(events))
        .route("/auth", post(login))
        .route("/system/df", get(usage::disk_usage))
}

async fn ping(daemon: Shared) -> Response {
    let mut response = Response::new(axum::body::Body::from("OK"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // The classic builder: clients then ask /build, which says that there is none.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static(daemon.swarm_word()));
    response
}

/// `docker login`: tries the credentials at the registry.
async fn login(daemon: Shared, Json(auth): Json<AuthConfig>) -> Reply {
    let server =
        if auth.serveraddress.is_empty() { "https://index.docker.io/v1/" } else { &auth.serveraddress };
    let server = server.to_owned();
    let auth = crate::pull::registry_auth(auth);
    match gantry_images::login(&server, &auth, daemon.puller.registries()).await {
        Ok(token) => stream::json(&AuthResponse {
            status: "Login Succeeded".to_owned(),
            identity_token: token.unwrap_or_default(),
        }),
        Err(error) => {
            let status = match error.kind() {
                gantry_images::ErrorKind::Unauthorized => http::StatusCode::UNAUTHORIZED,
                gantry_images::ErrorKind::Invalid => http::StatusCode::BAD_REQUEST,
                _ => http::StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err(ApiError::new(status, chain(&error)))
        }
    }
}

async fn version(daemon: Shared) -> Reply {
    let host = &daemon.host;
    let engine = BTreeMap::from([
        ("ApiVersion", MAX.to_string()),
        ("MinAPIVersion", MIN.to_string()),
        ("Os", "linux".to_owned()),
        ("Arch", host.go_arch().to_owned()),
        ("KernelVersion", host.kernel.clone()),
        ("Experimental", "false".to_owned()),
        ("GitCommit", COMMIT.to_owned()),
        ("GoVersion", COMPILER.to_owned()),
        ("BuildTime", String::new()),
    ]);
    let details = engine.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let own = |name: &str, details| Component { name: name.to_owned(), version: VERSION.to_owned(), details };
    stream::json(&VersionResponse {
        platform: PlatformName { name: "Gantry".to_owned() },
        components: vec![own("Engine", details), own("gantry-runtime", BTreeMap::new())],
        version: VERSION.to_owned(),
        api_version: MAX.to_string(),
        min_api_version: MIN.to_string(),
        git_commit: COMMIT.to_owned(),
        go_version: COMPILER.to_owned(),
        os: "linux".to_owned(),
        arch: host.go_arch().to_owned(),
        kernel_version: host.kernel.clone(),
        experimental: false,
        build_time: String::new(),
    })
}

/// Version of Gantry.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit, when the build names it.
const COMMIT: &str = match option_env!("GANTRY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// Clients show this as the compiler, whatever its key says.
const COMPILER: &str = "rust (no Go)";

async fn events(daemon: Shared, call: Call) -> Reply {
    let now = Timestamp::now();
    let since = parse_bound(call.query.get("since").unwrap_or(""), now)?;
    let until = parse_bound(call.query.get("until").unwrap_or(""), now)?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::bad_request(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    let filters = call.query.filters()?.only(&gantry_engine::events::FILTER_KEYS)?;
    let flow = daemon.engine.events(since, until, filters.to_lists())?;
    let listening = Listening::begin(&daemon.listeners);
    let lines = flow.filter_map(move |event| {
        let _alive = &listening;
        std::future::ready(event.ok().map(|event| message(&event)))
    });
    Ok(stream::json_lines(lines))
}

/// One client that follows events, counted while it does.
struct Listening(Arc<AtomicI64>);

impl Listening {
    fn begin(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn message(event: &gantry_engine::Event) -> EventMessage {
    let message = EventMessage {
        r#type: event.r#type.clone(),
        action: event.action.clone(),
        actor: EventActor { id: event.actor.id.clone(), attributes: event.actor.attributes.clone() },
        scope: event.scope.clone(),
        time: event.time.as_second(),
        time_nano: i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
        ..EventMessage::default()
    };
    message.with_legacy_keys()
}
