//! `/tasks`, and the logs of tasks and services.

use super::containers::logs::{frame_or_raw, tail, timestamp};
use crate::daemon::{Daemon, Shared};
use crate::http::hijack::frame_of;
use crate::http::{ApiError, Call, Reply, stream};
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use gantry_api::filters::Filters;
use gantry_api::stdcopy::Stream as Std;
use gantry_api::task::view;
use gantry_api::time::parse_bound;
use gantry_cluster::{LogMessage, LogMessages, LogOptions, LogSource};
use gantry_model::network::Network;
use gantry_model::node::Node;
use gantry_model::service::Service;
use gantry_model::task::{Task, TaskState};
use gantry_planner::filter::is_up_to_date;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(inspect))
        .route("/tasks/{id}/logs", get(logs))
}

/// Names of filters that lists of tasks know.
const FILTERS: [&str; 8] =
    ["desired-state", "id", "label", "name", "node", "runtime", "service", "_up-to-date"];

async fn list(daemon: Shared, call: Call) -> Reply {
    let mut filters = call.query.filters()?.only(&FILTERS)?;
    // Services and nodes may be named; tasks know them by id.
    if filters.has("service") {
        let services = daemon.cluster.services().await?;
        let known: Vec<&Service> = services.iter().map(|service| -> &Service { service }).collect();
        widen(
            &mut filters,
            "service",
            known.iter().map(|service| (service.id.as_str(), service.spec.name.as_str())),
        );
    }
    if filters.has("node") {
        let nodes = daemon.cluster.nodes().await?;
        let known: Vec<&Node> = nodes.iter().map(|node| -> &Node { node }).collect();
        let own = daemon.cluster.info().node_id.to_string();
        if filters.values("node").any(|name| name == "self") {
            filters.add("node", &own);
        }
        widen(
            &mut filters,
            "node",
            known.iter().map(|node| (node.id.as_str(), node.description.hostname.as_str())),
        );
    }
    let desired: Option<Vec<TaskState>> = filters
        .has("desired-state")
        .then(|| filters.values("desired-state").map(state).collect::<Result<_, _>>())
        .transpose()?;
    let up_to_date = filters.flag("_up-to-date")?.unwrap_or(false);
    let services =
        if up_to_date || filters.has("label") { daemon.cluster.services().await? } else { Vec::new() };
    // Labels are those of the task's service, as with SwarmKit: `docker stack ps` finds a stack's tasks by them.
    let labelled = |task: &Task| {
        let service = services.iter().find(|service| service.id == task.service_id);
        filters.labels(service.map_or(&task.labels, |service| &service.spec.labels))
    };
    let current = |task: &Task| {
        services.iter().any(|service| service.id == task.service_id && is_up_to_date(service, task))
    };
    let found = daemon.cluster.tasks().await?;
    // A container outside services that joined a cluster network is a task for the managers only: Docker's clients expect each task
    // to have an image, and die of one that has none.
    let has_container = |task: &Task| task.spec.container_spec.is_some();
    let wanted = found.iter().filter(|task| {
        has_container(task)
            && matches(&filters, task)
            && labelled(task)
            && desired.as_ref().is_none_or(|states| states.contains(&task.desired_state))
            && (!up_to_date || current(task))
    });
    let networks = daemon.cluster.networks().await?;
    stream::json(&wanted.map(|task| shown(task, &networks)).collect::<Result<Vec<_>, _>>()?)
}

fn shown(task: &Task, networks: &[Network]) -> Result<Value, ApiError> {
    view(task, networks).map_err(|error| ApiError::internal(format!("show task {}: {error}", task.id)))
}

/// Adds the ids that a filter's names mean.
fn widen<'a>(filters: &mut Filters, name: &str, known: impl Iterator<Item = (&'a str, &'a str)>) {
    let wanted: Vec<String> = filters.values(name).map(str::to_owned).collect();
    for (id, called) in known {
        if wanted.iter().any(|word| word == called || id.starts_with(word.as_str())) {
            filters.add(name, id);
        }
    }
}

fn state(word: &str) -> Result<TaskState, ApiError> {
    // Clients ask for what is wanted in three words.
    match word {
        "running" => Ok(TaskState::Running),
        "shutdown" => Ok(TaskState::Shutdown),
        "accepted" => Ok(TaskState::Accepted),
        "ready" => Ok(TaskState::Ready),
        "complete" => Ok(TaskState::Complete),
        "remove" => Ok(TaskState::Remove),
        other => Err(ApiError::bad_request(format!("invalid filter 'desired-state={other}'"))),
    }
}

fn matches(filters: &Filters, task: &Task) -> bool {
    let name = format!("{}.{}", task.service_name, task.slot);
    let full = format!("{name}.{}", task.id);
    filters.prefix("id", task.id.as_str())
        && filters.exact("service", task.service_id.as_str())
        && filters.exact("node", task.node_id.as_str())
        && (filters.prefix("name", &name)
            || filters.prefix("name", &full)
            || filters.exact("name", &task.name))
        && filters
            .exact("runtime", if task.spec.runtime.is_empty() { "container" } else { &task.spec.runtime })
}

async fn inspect(daemon: Shared, Path(id): Path<String>) -> Reply {
    let task = daemon.cluster.task(&id).await?;
    stream::json(&shown(&task, &daemon.cluster.networks().await?)?)
}

async fn logs(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let task = daemon.cluster.task(&id).await?;
    let tty = task.spec.container_spec.as_ref().is_some_and(|container| container.tty);
    let (options, shape) = log_stream(&call, tty)?;
    let messages = daemon.cluster.task_logs(task.id.as_str(), options).await?;
    Ok(shape.respond(messages, &call))
}

/// How the lines of a cluster log look.
pub(super) struct Shape {
    tty: bool,
    timestamps: bool,
    details: bool,
}

/// What a client asks of a cluster log.
pub(super) fn log_stream(call: &Call, tty: bool) -> Result<(LogOptions, Shape), ApiError> {
    let query = &call.query;
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        tail: tail(query.get("tail").unwrap_or("")).and_then(|lines| u64::try_from(lines).ok()),
        since: parse_bound(query.get("since").unwrap_or(""), Timestamp::now())?,
        until: parse_bound(query.get("until").unwrap_or(""), Timestamp::now())?,
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    Ok((options, Shape { tty, timestamps: query.flag("timestamps"), details: query.flag("details") }))
}

impl Shape {
    /// The answer.
    pub(super) fn respond(self, messages: LogMessages, call: &Call) -> Response {
        let content_type = if self.tty || !call.since(42) { stream::RAW } else { stream::MULTIPLEXED };
        let chunks = messages.map(move |message| {
            Ok(match message {
                Ok(message) => self.encode(&message),
                Err(error) => frame_of(Std::System, format!("{error}\n").as_bytes()),
            })
        });
        stream::chunks(content_type, chunks)
    }

    fn encode(&self, message: &LogMessage) -> Bytes {
        let mut text = BytesMut::with_capacity(message.data.len() + 200);
        if self.timestamps {
            text.extend_from_slice(timestamp(message.time).as_bytes());
            text.extend_from_slice(b" ");
        }
        if self.details {
            // Clients split these attributes off again to name the task in front of the line.
            let (node, service, task) = (&message.node_id, &message.service_id, &message.task_id);
            let details = format!(
                "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} "
            );
            text.extend_from_slice(details.as_bytes());
        }
        text.extend_from_slice(&message.data);
        let std = match message.source {
            LogSource::Stdout => Std::Stdout,
            LogSource::Stderr => Std::Stderr,
        };
        frame_or_raw(self.tty, std, text.freeze())
    }
}
