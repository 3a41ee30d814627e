//! Requests to registries over HTTP/1.1: sent, answered in time, and told what broke.

use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use super::connect::{ConnectError, Connector, Stream, cause_of, whole_seconds};
use super::registries::{Endpoint, Patience, Registries, Security};
use super::{Answer, ClientError, Result, shown};

/// A request's body, which can be sent again.
#[derive(Debug)]
pub(crate) enum Upload {
    Empty,
    Bytes(Bytes),
    File { path: PathBuf, size: u64, sent: watch::Sender<u64> },
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Upload {
    pub fn size(&self) -> u64 {
        match self {
            Upload::Empty => 0,
            Upload::Bytes(bytes) => bytes.len() as u64,
            Upload::File { size, .. } => *size,
        }
    }

    fn body(&self) -> io::Result<Body> {
        match self {
            Upload::Empty => Ok(Empty::new().map_err(|never| match never {}).boxed_unsync()),
            Upload::Bytes(bytes) => {
                Ok(Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync())
            }
            Upload::File { path, sent, .. } => {
                let file = tokio::fs::File::from_std(File::open(path)?);
                let sent = sent.clone();
                sent.send_replace(0);
                let stream = ReaderStream::with_capacity(file, 128 * 1024).map(move |piece| {
                    let piece = piece?;
                    sent.send_modify(|count| *count += piece.len() as u64);
                    Ok(Frame::data(piece))
                });
                Ok(StreamBody::new(stream).boxed_unsync())
            }
        }
    }
}

/// Sends requests; keeps connections open between them.
pub(crate) struct Transport {
    client: Client<tower::util::BoxCloneSyncService<Uri, TokioIo<Stream>, ConnectError>, Body>,
    connector: Arc<Connector>,
    endpoint: Endpoint,
    patience: Patience,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport for one registry, whose certificates are looked up by its name.
    pub fn new(endpoint: Endpoint, registries: &Arc<Registries>) -> Transport {
        let connector = Arc::new(Connector::new(endpoint.clone(), Arc::clone(registries)));
        let opener = Arc::clone(&connector);
        let service = tower::service_fn(move |uri: Uri| {
            let opener = Arc::clone(&opener);
            async move { opener.open(&uri).await }
        });
        let service = tower::util::BoxCloneSyncService::new(service);
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(service);
        Transport { client, connector, endpoint, patience: registries.patience }
    }

    /// How long an answer, or the next piece of it, may take.
    pub fn patience(&self) -> Duration {
        self.patience.answer
    }

    /// `http` or `https`; a registry that may do without TLS is tried.
    pub async fn scheme(&self) -> Result<&'static str> {
        let host = &self.endpoint.host;
        match self.endpoint.security {
            Security::Verified => Ok("https"),
            Security::Plain => Ok("http"),
            Security::Unverified => match self.connector.has_tls(host).await {
                Ok(tls) => Ok(if tls { "https" } else { "http" }),
                Err(source) => Err(ClientError::Connect { host: host.clone(), source }),
            },
        }
    }

    pub async fn send(
        &self,
        method: &Method,
        url: &str,
        headers: HeaderMap,
        body: &Upload,
    ) -> Result<Answer> {
        let broken = |source: Box<dyn StdError + Send + Sync>| ClientError::Broken {
            method: method.clone(),
            url: shown(url),
            source,
        };
        let uri: Uri = url.parse().map_err(|_| ClientError::Protocol {
            url: shown(url),
            what: "the address is not valid".to_owned(),
        })?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let proxy = self.connector.plain_proxy(&uri);
        let mut request = Request::new(body.body().map_err(|error| broken(error.into()))?);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("gantry"));
        if let Ok(value) = HeaderValue::from_str(&host) {
            request.headers_mut().insert(HOST, value);
        }
        if let Some(value) = proxy {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        let answer = self.client.request(request);
        let answer = match body {
            Upload::File { sent, .. } => while_moving(self.patience.upload, sent.subscribe(), answer).await,
            _ => tokio::time::timeout(self.patience.answer, answer).await.map_err(|_| self.patience.answer),
        };
        let silent = |limit| ClientError::Silent {
            method: method.clone(),
            url: shown(url),
            seconds: whole_seconds(limit),
        };
        answer.map_err(silent)?.map_err(|error| {
            match cause_of(&error).or_else(|| self.connector.late_refusal()) {
                Some(source) => ClientError::Connect { host, source },
                None => broken(error.into()),
            }
        })
    }
}

/// Awaits an answer as long as the upload moves on.
async fn while_moving<F: Future>(
    limit: Duration,
    mut sent: watch::Receiver<u64>,
    answer: F,
) -> std::result::Result<F::Output, Duration> {
    tokio::pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            moved = tokio::time::timeout(limit, sent.changed()) => {
                // The sender lives as long as the upload: only the time can run out.
                if moved.is_err() {
                    return Err(limit);
                }
            }
        }
    }
}
