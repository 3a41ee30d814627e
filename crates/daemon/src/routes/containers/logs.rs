//! Logs: lines of the log file, framed as attached output is.

use crate::daemon::Shared;
use crate::http::hijack::{frame_of, std_of};
use crate::http::{ApiError, Call, Reply, stream};
use axum::extract::Path;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use gantry_api::stdcopy::Stream as Std;
use gantry_api::time::parse_bound;
use gantry_engine::{LogLine, LogOptions};
use jiff::Timestamp;

pub(super) async fn logs(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let container = daemon.engine.get(&id)?;
    let options = options(&call)?;
    let shape = Shape {
        tty: container.config.tty,
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details").then(|| details(&container.config.labels)),
    };
    let lines = daemon.engine.logs(container.id.as_str(), options).await?;
    let content_type = if shape.tty || !call.since(42) { stream::RAW } else { stream::MULTIPLEXED };
    let chunks = lines.map(move |line| {
        Ok(match line {
            Ok(line) => shape.encode(&line),
            Err(error) => frame_of(Std::System, format!("{}\n", error.whole()).as_bytes()),
        })
    });
    Ok(stream::chunks(content_type, chunks))
}

fn options(call: &Call) -> Result<LogOptions, ApiError> {
    let query = &call.query;
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: parse_bound(query.get("since").unwrap_or(""), Timestamp::now())?,
        until: parse_bound(query.get("until").unwrap_or(""), Timestamp::now())?,
        tail: tail(query.get("tail").unwrap_or("")),
        follow: query.flag("follow"),
    };
    if options.stdout || options.stderr {
        Ok(options)
    } else {
        Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"))
    }
}

/// A number of lines; anything else (`all`, empty, negative) means all of them.
pub(crate) fn tail(text: &str) -> Option<usize> {
    text.parse().ok()
}

/// Labels as `--details` shows them.
fn details(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

struct Shape {
    tty: bool,
    timestamps: bool,
    details: Option<String>,
}

impl Shape {
    fn encode(&self, line: &LogLine) -> Bytes {
        let mut text = BytesMut::with_capacity(line.bytes.len() + 48);
        if self.timestamps {
            text.extend_from_slice(timestamp(line.time).as_bytes());
            text.extend_from_slice(b" ");
        }
        if let Some(details) = &self.details {
            text.extend_from_slice(details.as_bytes());
            text.extend_from_slice(b" ");
        }
        text.extend_from_slice(&line.bytes);
        frame_or_raw(self.tty, std_of(line.stream), text.freeze())
    }
}

/// Bytes as a client without or with a terminal takes them.
pub(crate) fn frame_or_raw(tty: bool, stream: Std, bytes: Bytes) -> Bytes {
    if tty { bytes } else { frame_of(stream, &bytes) }
}

/// A time with all nine digits, so that lines stand in columns.
pub(crate) fn timestamp(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_engine::StdStream;

    #[test]
    fn lines_have_their_dress() {
        let line = LogLine {
            stream: StdStream::Stderr,
            time: "2026-01-02T03:04:05.1Z".parse().unwrap(),
            bytes: Bytes::from_static(b"oh\n"),
        };
        let plain = Shape { tty: true, timestamps: true, details: None };
        assert_eq!(plain.encode(&line), "2026-01-02T03:04:05.100000000Z oh\n");
        let framed = Shape { tty: false, timestamps: false, details: Some("a=b".into()) };
        assert_eq!(&framed.encode(&line)[..], b"\x02\0\0\0\0\0\0\x07a=b oh\n");
    }

    #[test]
    fn tails_are_numbers_or_all() {
        assert_eq!(tail("5"), Some(5));
        assert_eq!(tail("all"), None);
        assert_eq!(tail("-1"), None);
    }
}
