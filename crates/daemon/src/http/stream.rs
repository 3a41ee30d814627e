//! Answers that come bit by bit: JSON lines, log frames, tar archives.

use super::Reply;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};
use serde::Serialize;
use tokio::io::AsyncRead;

/// Content type of framed output.
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Content type of a terminal's output, and of framed output before API 1.42.
pub const RAW: &str = "application/vnd.docker.raw-stream";

/// An answer of chunks, whose head is sent at once.
pub fn chunks<S>(content_type: &'static str, stream: S) -> Response
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of JSON values, one a line.
pub fn json_lines<S, T>(stream: S) -> Response
where
    S: Stream<Item = T> + Send + 'static,
    T: Serialize,
{
    let lines = stream.map(|value| {
        let mut line = serde_json::to_vec(&value).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok(Bytes::from(line))
    });
    chunks("application/json", lines)
}

/// A tar archive.
pub fn tar(reader: impl AsyncRead + Send + 'static) -> Response {
    chunks("application/x-tar", tokio_util::io::ReaderStream::with_capacity(reader, 64 << 10))
}

/// A JSON value as the whole answer.
pub fn json<T: Serialize>(value: &T) -> Reply {
    with_status(http::StatusCode::OK, value)
}

/// A JSON value as the whole answer, with another status.
pub fn with_status<T: Serialize>(status: http::StatusCode, value: &T) -> Reply {
    let text = serde_json::to_vec(value)
        .map_err(|error| super::ApiError::internal(format!("write the answer as JSON: {error}")))?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An answer without content.
pub fn empty(status: http::StatusCode) -> Reply {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}
