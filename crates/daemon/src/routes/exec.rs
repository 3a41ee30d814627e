//! `/exec` and `/containers/{id}/exec`: further processes in running containers.

use super::containers::lifecycle_size;
use crate::daemon::{Daemon, Shared};
use crate::http::{ApiError, Call, Hijack, InputEnd, Json, Reply, stream};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Path, Request};
use axum::routing::{get, post};
use gantry_api::container::IdResponse;
use gantry_api::exec::{ExecCreateBody, ExecInspect, ExecProcess, ExecStartBody};
use gantry_engine::{ExecSpec, ExecStart, ExecView};
use http::StatusCode;
use std::sync::Arc;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(daemon: Shared, Path(id): Path<String>, Json(body): Json<ExecCreateBody>) -> Reply {
    if body.cmd.is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    let spec = ExecSpec {
        cmd: body.cmd,
        env: body.env,
        working_dir: body.working_dir,
        user: body.user,
        privileged: body.privileged,
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: body.detach_keys,
        console_size: body.console_size.map(|[rows, columns]| (rows, columns)),
    };
    let id = daemon.engine.exec_create(&id, spec).await?;
    stream::with_status(StatusCode::CREATED, &IdResponse { id })
}

async fn start(
    daemon: Shared,
    Path(id): Path<String>,
    call: Call,
    hijack: Hijack,
    request: Request,
) -> Reply {
    let Json(body): Json<ExecStartBody> = Json::from_request(request, &()).await?;
    let how = if body.detach {
        ExecStart::Detached
    } else {
        let console_size =
            body.console_size.map(|[rows, columns]| (rows, columns)).filter(|size| *size != (0, 0));
        ExecStart::Attached { console_size }
    };
    match daemon.engine.exec_start(&id, how).await? {
        Some(attachment) => {
            let at_end = if attachment.tty { InputEnd::Detach } else { InputEnd::Close };
            hijack.respond(attachment, at_end, call.since(42))
        }
        None => Ok(axum::response::Response::new(Body::empty())),
    }
}

async fn resize(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let (rows, columns) = lifecycle_size(&call)?;
    daemon.engine.exec_resize(&id, rows, columns).await?;
    stream::empty(StatusCode::OK)
}

async fn inspect(daemon: Shared, Path(id): Path<String>) -> Reply {
    stream::json(&view(daemon.engine.exec_get(&id)?))
}

fn view(exec: ExecView) -> ExecInspect {
    let mut words = exec.spec.cmd.into_iter();
    ExecInspect {
        id: exec.id,
        running: exec.running,
        exit_code: exec.exit_code.map(i64::from),
        process_config: ExecProcess {
            tty: exec.spec.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: exec.spec.privileged,
            user: exec.spec.user,
        },
        open_stdin: exec.spec.attach_stdin,
        open_stderr: exec.spec.attach_stderr,
        open_stdout: exec.spec.attach_stdout,
        can_remove: exec.exit_code.is_some(),
        container_id: exec.container.to_string(),
        detach_keys: exec.spec.detach_keys,
        pid: i64::from(exec.pid),
    }
}
