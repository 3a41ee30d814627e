//! A client of the Docker Engine API: one connection for each request, version negotiated once.

pub mod connect;
pub mod frames;

use crate::error::{Error, Result};
use crate::host::Host;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;
use std::io;
use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

/// The newest API version this client speaks.
pub const API_VERSION: &str = "1.51";

/// The body of a request.
pub type Body = BoxBody<Bytes, io::Error>;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IMAGE: &AsciiSet = &SEGMENT.remove(b'/').remove(b':').remove(b'@');

/// Encodes an id or a name for one segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Encodes an image reference for a path: its slashes are part of the path.
pub fn image_path(text: &str) -> String {
    utf8_percent_encode(text, IMAGE).to_string()
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// An empty query.
    pub fn new() -> Query {
        Query::default()
    }

    /// Adds a value.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Query {
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds `key=1` when the switch is on.
    #[must_use]
    pub fn flag(self, key: &str, on: bool) -> Query {
        if on { self.set(key, 1) } else { self }
    }

    /// Adds a value when it is there.
    #[must_use]
    pub fn option(self, key: &str, value: Option<impl ToString>) -> Query {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// Adds `filters` from `--filter key=value` arguments.
    pub fn filters(self, filters: &[String]) -> Result<Query> {
        if filters.is_empty() {
            return Ok(self);
        }
        Ok(self.set("filters", filter_json(filters)?))
    }

    fn text(&self) -> String {
        let pairs: Vec<String> =
            self.0.iter().map(|(k, v)| format!("{}={}", segment(k), segment(v))).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }
}

/// The JSON form of `--filter` arguments: `{"key":{"value":true}}`.
pub fn filter_json(filters: &[String]) -> Result<String> {
    let mut map = serde_json::Map::new();
    for filter in filters {
        let Some((key, value)) = filter.split_once('=') else {
            return Err(Error::invalid(format!(
                "invalid argument {filter:?} for \"-f, --filter\": bad format of filter (expected name=value)"
            )));
        };
        let entry =
            map.entry(key.trim().to_lowercase()).or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(values) = entry {
            values.insert(value.trim().to_owned(), Value::Bool(true));
        }
    }
    Ok(Value::Object(map).to_string())
}

/// A request's path, query, headers and body.
pub struct Call {
    method: Method,
    path: String,
    query: Query,
    headers: Vec<(&'static str, String)>,
    body: Body,
    content_type: Option<&'static str>,
}

impl Call {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Call {
        let body = Empty::new().map_err(|never| match never {}).boxed();
        Call { method, path: path.into(), query: Query::new(), headers: Vec::new(), body, content_type: None }
    }

    /// `GET`.
    pub fn get(path: impl Into<String>) -> Call {
        Call::new(Method::GET, path)
    }

    /// `POST`.
    pub fn post(path: impl Into<String>) -> Call {
        Call::new(Method::POST, path)
    }

    /// `DELETE`.
    pub fn delete(path: impl Into<String>) -> Call {
        Call::new(Method::DELETE, path)
    }

    /// Sets the query.
    #[must_use]
    pub fn query(mut self, query: Query) -> Call {
        self.query = query;
        self
    }

    /// Adds a header; a value with control characters is refused when the request is sent.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a header when there is a value.
    #[must_use]
    pub fn header_option(self, name: &'static str, value: Option<String>) -> Call {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// Sets a JSON body. The types that are sent can always be written.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Call {
        let text = serde_json::to_vec(body).unwrap_or_default();
        self.body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
        self.content_type = Some("application/json");
        self
    }

    /// Sets a body that is read while it is sent.
    #[must_use]
    pub fn stream(
        mut self,
        reader: impl AsyncRead + Send + Sync + 'static,
        content_type: &'static str,
    ) -> Call {
        let frames = tokio_util::io::ReaderStream::with_capacity(reader, 64 * 1024).map_ok(Frame::data);
        self.body = StreamBody::new(frames).boxed();
        self.content_type = Some(content_type);
        self
    }
}

/// The raw connection that is left after an upgrade.
pub struct Hijacked {
    /// Both directions; shutting down the writing half tells the daemon that there is no more input.
    pub io: TokioIo<Upgraded>,
    /// Whether output comes in frames that tell stdout from stderr.
    pub multiplexed: Option<bool>,
}

/// A daemon at an address.
pub struct Client {
    host: Host,
    version: OnceCell<String>,
}

impl Client {
    /// A client of the daemon at `host`; nothing is sent yet.
    pub fn new(host: Host) -> Client {
        Client { host, version: OnceCell::new() }
    }

    /// The address.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The API version that both sides speak, asked for once.
    pub async fn version(&self) -> Result<&str> {
        let negotiate = async || {
            let wanted = std::env::var("DOCKER_API_VERSION").ok().filter(|v| !v.is_empty());
            if let Some(wanted) = wanted {
                return Ok(wanted);
            }
            let response = self.exchange(Call::get("/_ping"), "/_ping".to_owned(), false).await?;
            let server =
                response.headers().get("api-version").and_then(|v| v.to_str().ok()).unwrap_or("1.24");
            Ok(older(server, API_VERSION).to_owned())
        };
        self.version.get_or_try_init(negotiate).await.map(String::as_str)
    }

    /// Sends a request and returns the answer when its status is good.
    pub async fn send(&self, call: Call) -> Result<Response<Incoming>> {
        let target = format!("/v{}{}{}", self.version().await?, call.path, call.query.text());
        let act = format!("{} {}", call.method, call.path);
        let response = self.exchange(call, target, false).await?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(refusal(response, act).await)
    }

    /// Sends a request and reads the whole answer as JSON; an empty answer is null.
    pub async fn json(&self, call: Call) -> Result<Value> {
        let act = format!("{} {}", call.method, call.path);
        let response = self.send(call).await?;
        let body = response.into_body().collect().await;
        let body = body.map_err(|source| Error::Http { act: act.clone(), source })?.to_bytes();
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|source| Error::Answer { act, source })
    }

    /// `GET` of a JSON document.
    pub async fn get(&self, path: impl Into<String>) -> Result<Value> {
        self.json(Call::get(path)).await
    }

    /// `POST` without a body.
    pub async fn post(&self, path: impl Into<String>, query: Query) -> Result<Value> {
        self.json(Call::post(path).query(query)).await
    }

    /// Sends a request that turns the connection into a raw stream.
    pub async fn hijack(&self, call: Call) -> Result<Hijacked> {
        let target = format!("/v{}{}{}", self.version().await?, call.path, call.query.text());
        let act = format!("{} {}", call.method, call.path);
        let mut response = self.exchange(call, target, true).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if response.status().is_success() {
                return Err(Error::Stream(format!("{act}: the daemon did not hand over the connection")));
            }
            return Err(refusal(response, act).await);
        }
        let multiplexed = match response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) {
            Some("application/vnd.docker.multiplexed-stream") => Some(true),
            _ => None,
        };
        let upgraded =
            hyper::upgrade::on(&mut response).await.map_err(|source| Error::Http { act, source })?;
        Ok(Hijacked { io: TokioIo::new(upgraded), multiplexed })
    }

    async fn exchange(&self, call: Call, target: String, upgrade: bool) -> Result<Response<Incoming>> {
        let act = format!("{} {}", call.method, call.path);
        let stream = connect::connect(&self.host).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| Error::Http { act: act.clone(), source })?;
        // The connection ends by itself when the response was read or the upgraded stream is dropped.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(call.method)
            .uri(target)
            .header(HOST, "gantry")
            .header("User-Agent", concat!("Gantry-Client/", env!("CARGO_PKG_VERSION")));
        if let Some(kind) = call.content_type {
            request = request.header(CONTENT_TYPE, kind);
        }
        if upgrade {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(call.body)
            .map_err(|e| Error::invalid(format!("{act}: this is no HTTP request: {e}")))?;
        sender.send_request(request).await.map_err(|source| Error::Http { act, source })
    }
}

/// The older of two versions.
fn older<'a>(a: &'a str, b: &'a str) -> &'a str {
    let number = |text: &str| -> (u32, u32) {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
    };
    if number(a) <= number(b) { a } else { b }
}

async fn refusal(response: Response<Incoming>, act: String) -> Error {
    let status = response.status();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(source) => return Error::Http { act, source },
    };
    let message = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|value| value.get("message").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&body).trim().chars().take(1000).collect::<String>();
            if text.is_empty() { format!("{act}: HTTP status {status}") } else { text }
        });
    Error::Daemon { status: status.as_u16(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(segment("../a b?c"), "..%2Fa%20b%3Fc");
        assert_eq!(image_path("localhost:5000/a@sha256:1?"), "localhost:5000/a@sha256:1%3F");
    }

    #[test]
    fn filters_of_one_key_are_joined() {
        let text = filter_json(&["label=a=b".into(), "Label=c".into(), "status=running".into()]).unwrap();
        assert_eq!(text, r#"{"label":{"a=b":true,"c":true},"status":{"running":true}}"#);
        assert!(filter_json(&["x".into()]).is_err());
    }

    #[test]
    fn the_older_version_is_spoken() {
        assert_eq!(older("1.9", "1.51"), "1.9");
        assert_eq!(older("1.99", "1.51"), "1.51");
    }
}
