//! Attach: the connection becomes the container's stdio.

use crate::daemon::Shared;
use crate::http::{ApiError, Call, Hijack, InputEnd, Reply};
use axum::extract::Path;
use gantry_engine::AttachOptions;

pub(super) async fn attach(daemon: Shared, Path(id): Path<String>, call: Call, hijack: Hijack) -> Reply {
    let options = options(&call)?;
    let config = daemon.engine.get(&id)?.config;
    let attachment = daemon.engine.attach(&id, options).await?;
    let at_end = if config.stdin_once && !config.tty { InputEnd::Close } else { InputEnd::Detach };
    hijack.respond(attachment, at_end, call.since(42))
}

pub(super) async fn websocket(daemon: Shared, Path(id): Path<String>) -> Reply {
    daemon.engine.get(&id)?;
    Err(ApiError::not_implemented(
        "attaching by websocket is not supported: use POST /containers/{id}/attach",
    ))
}

fn options(call: &Call) -> Result<AttachOptions, ApiError> {
    let query = &call.query;
    Ok(AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys").map(detach_keys).transpose()?,
    })
}

/// `ctrl-p,ctrl-q` or `a,b`: the bytes that end an attachment.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>, ApiError> {
    let bad = |part: &str| {
        ApiError::bad_request(format!("Invalid escape keys ({text}) provided: {part:?} is no key"))
    };
    text.split(',')
        .map(|part| match (part.as_bytes(), part.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([key], _) => Ok(*key),
            (_, Some([letter @ b'a'..=b'z'])) => Ok(letter - b'a' + 1),
            (_, Some(b"@")) => Ok(0),
            (_, Some(b"[")) => Ok(27),
            (_, Some(b"\\")) => Ok(28),
            (_, Some(b"]")) => Ok(29),
            (_, Some(b"^")) => Ok(30),
            (_, Some(b"_")) => Ok(31),
            _ => Err(bad(part)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_dockers() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(detach_keys("a,ctrl-[").unwrap(), [b'a', 27]);
        assert!(detach_keys("ctrl-p,").is_err());
        assert!(detach_keys("shift-x").is_err());
    }
}
