//! Start, stop, kill, pause, wait, remove: the steps of a container's life.

use crate::daemon::Shared;
use crate::http::{ApiError, Call, Reply, stream};
use axum::extract::Path;
use bytes::Bytes;
use futures_util::stream::once;
use gantry_api::container::{WaitError, WaitResponse};
use gantry_engine::{ErrorKind, RemoveOptions, StopTimeout, WaitCondition};
use http::StatusCode;
use std::time::Duration;

pub(super) async fn start(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    if call.query.text("checkpoint").is_some() {
        return Err(ApiError::not_implemented("checkpoints are not supported"));
    }
    daemon.engine.start(&id).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

pub(super) async fn stop(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    daemon.engine.stop(&id, call.query.text("signal"), timeout(&call)?).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

pub(super) async fn restart(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    daemon.engine.restart(&id, call.query.text("signal"), timeout(&call)?).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

/// `t`: seconds; negative means for ever.
fn timeout(call: &Call) -> Result<StopTimeout, ApiError> {
    Ok(match call.query.number::<i64>("t")? {
        None => StopTimeout::Default,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) => StopTimeout::After(Duration::from_secs(seconds)),
            Err(_) => StopTimeout::Never,
        },
    })
}

pub(super) async fn kill(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    daemon.engine.kill(&id, call.query.text("signal")).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(daemon: Shared, Path(id): Path<String>) -> Reply {
    daemon.engine.pause(&id).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

pub(super) async fn unpause(daemon: Shared, Path(id): Path<String>) -> Reply {
    daemon.engine.unpause(&id).await?;
    stream::empty(StatusCode::NO_CONTENT)
}

pub(super) async fn resize(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let (rows, columns) = size(&call)?;
    daemon.engine.resize(&id, rows, columns).await?;
    stream::empty(StatusCode::OK)
}

/// `h` and `w`: rows and columns.
pub(crate) fn size(call: &Call) -> Result<(u16, u16), ApiError> {
    let side = |name: &str| -> Result<u16, ApiError> {
        let missing = || ApiError::bad_request(format!("parameter {name} is missing"));
        call.query.number(name)?.ok_or_else(missing)
    };
    Ok((side("h")?, side("w")?))
}

pub(super) async fn remove(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let options = RemoveOptions {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
        link: call.query.flag("link"),
    };
    let found = daemon.engine.get(&id)?;
    match daemon.engine.remove(found.id.as_str(), options).await {
        // It was here a moment ago: killed by this request, and removed by its own auto-remove first.
        Err(error) if options.force && error.kind() == ErrorKind::NotFound => {}
        result => result?,
    }
    stream::empty(StatusCode::NO_CONTENT)
}

/// Answers its head at once, so that a client knows that nothing is missed from here on, and the body at the end.
pub(super) async fn wait(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let condition = match call.query.text("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::bad_request(format!("invalid condition: {other:?}"))),
    };
    let wait = daemon.engine.wait(&id, condition)?;
    let answer = async move {
        let response = match wait.done().await {
            // Why a start failed is told by the start request; here it would be printed a second time.
            Ok(exit) => WaitResponse { status_code: i64::from(exit.code), error: None },
            Err(error) => WaitResponse { status_code: -1, error: Some(WaitError { message: error.whole() }) },
        };
        let mut line = serde_json::to_vec(&response).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok(Bytes::from(line))
    };
    Ok(stream::chunks("application/json", once(answer)))
}
