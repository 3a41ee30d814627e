//! A client of one repository at one registry, by the OCI distribution specification.
//!
//! It answers authentication challenges, follows redirects of downloads, and repeats what a network broke, with growing
//! pauses. Credentials go to the registry and to the token server that it names, and never along with a redirect.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::digest::Digest;
use gantry_model::reference::{DEFAULT_DOMAIN, Reference};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::error::ErrorKind;
use crate::oci::{DOCKER_INDEX, DOCKER_MANIFEST, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};

mod auth;
mod transport;

pub use auth::RegistryAuth;
pub use transport::InsecureRegistries;

use auth::{Authorizer, Challenge};
use transport::Transport;
pub(crate) use transport::Upload;

/// What a request may answer with before it counts as broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request is repeated after the first time.
pub(crate) const RETRIES: u32 = 5;

/// A registry that refused, failed or could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("connect to registry {host}")]
    Connect {
        /// The registry.
        host: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke, or no answer came in time.
    #[error("{method} {url}: the connection failed")]
    Broken {
        /// The request.
        method: Method,
        /// Its address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry wants (other) credentials.
    #[error(
        "{access} access denied for {repository}, repository does not exist or may require 'docker login': {message}"
    )]
    Denied {
        /// What was wanted: `pull` or `push`.
        access: &'static str,
        /// The repository as the user writes it.
        repository: String,
        /// What the registry said.
        message: String,
    },
    /// A login that was not accepted.
    #[error("login to {host} was refused: {message}")]
    Login {
        /// The registry.
        host: String,
        /// What it said.
        message: String,
    },
    /// There is no such manifest.
    #[error("manifest for {reference} not found: {message}")]
    NotFound {
        /// The reference as the user writes it.
        reference: String,
        /// What the registry said.
        message: String,
    },
    /// There is no such blob.
    #[error("blob {digest} not found in {repository}")]
    NoBlob {
        /// The blob.
        digest: Digest,
        /// The repository.
        repository: String,
    },
    /// Any other answer that is no success.
    #[error("{method} {url}: registry answered {status}: {message}")]
    Status {
        /// The request.
        method: Method,
        /// Its address.
        url: String,
        /// The answer.
        status: StatusCode,
        /// What the registry said.
        message: String,
    },
    /// The answer breaks the specification.
    #[error("{url}: registry answered against the specification: {what}")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The host's trust roots or a registry's certificates can't be used.
    #[error("set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// What kind of refusal it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::NotFound { .. } | ClientError::Denied { .. } | ClientError::NoBlob { .. } => {
                ErrorKind::NotFound
            }
            ClientError::Login { .. } => ErrorKind::Unauthorized,
            ClientError::Connect { .. } | ClientError::Broken { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ClientError::Broken { .. } => true,
            ClientError::Connect { source, .. } => transport::worth_a_retry(source.as_ref()),
            ClientError::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            _ => false,
        }
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// An answer with its body still to be read.
pub(crate) type Answer = http::Response<Incoming>;

/// A manifest as the registry has it.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub media_type: String,
    pub digest: Digest,
    pub content: Vec<u8>,
}

/// Whether a client will only read or write as well; decides the scope of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// A client of one repository.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    authorizer: Authorizer,
    base: String,
    reference: Reference,
}

struct Request<'a> {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: &'a Upload,
}

impl Client {
    pub fn new(
        reference: &Reference,
        access: Access,
        auth: Option<RegistryAuth>,
        insecure: &InsecureRegistries,
    ) -> Result<Client> {
        let domain = reference.domain();
        let plain = insecure.allows(domain);
        // Docker Hub's name in references is not its API's host.
        let host = if domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        let base = format!("{}://{host}", if plain { "http" } else { "https" });
        let actions = if access == Access::Push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", reference.path());
        let authorizer = Authorizer::new(auth, scope, access, !plain);
        Ok(Client { transport: Transport::new(host)?, authorizer, base, reference: reference.clone() })
    }

    /// Asks for read access to another repository too, from which blobs may be mounted.
    pub fn add_source(&self, repository: &str) {
        self.authorizer.add_scope(format!("repository:{repository}:pull"));
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.reference.path())
    }

    fn repository(&self) -> String {
        self.reference.familiar_name()
    }

    /// Sends a request, answering one challenge. Redirects are not followed here.
    async fn once(&self, request: &Request<'_>) -> Result<Answer> {
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenge = challenges.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let Some(challenge) = challenge else { return Err(self.refusal(request, answer).await) };
        if !self.authorizer.answer(&self.transport, &challenge).await? {
            return Err(self.refusal(request, answer).await);
        }
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => Err(self.refusal(request, answer).await),
            _ => Ok(answer),
        }
    }

    async fn send(&self, request: &Request<'_>) -> Result<Answer> {
        let mut headers = request.headers.clone();
        if let Some(value) = self.authorizer.header().filter(|_| request.url.starts_with(&self.base)) {
            headers.insert(AUTHORIZATION, value);
        }
        self.transport.send(&request.method, &request.url, headers, request.body).await
    }

    /// Sends a request and turns answers that are no success into errors; repeats what is transient.
    async fn call(&self, request: Request<'_>) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            let result = match self.once(&request).await {
                Ok(answer) if is_fine(answer.status()) => return Ok(answer),
                Ok(answer) => Err(self.refusal(&request, answer).await),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_transient() && attempt < RETRIES => {
                    tracing::debug!(%error, attempt, "registry request is repeated");
                    pause(attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn refusal(&self, request: &Request<'_>, answer: Answer) -> ClientError {
        let status = answer.status();
        let message = error_message(answer).await.unwrap_or_else(|| status.to_string());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ClientError::Denied {
                access: self.authorizer.access(),
                repository: self.repository(),
                message,
            },
            StatusCode::NOT_FOUND if request.url.contains("/manifests/") => {
                ClientError::NotFound { reference: self.reference.familiar(), message }
            }
            _ => ClientError::Status {
                method: request.method.clone(),
                url: shown(&request.url),
                status,
                message,
            },
        }
    }

    /// Fetches the manifest or index of a tag or digest, verified against the digest if it is one.
    pub async fn manifest(&self, selector: &str) -> Result<Fetched> {
        let mut headers = HeaderMap::new();
        let accept = format!("{OCI_INDEX}, {DOCKER_INDEX}, {OCI_MANIFEST}, {DOCKER_MANIFEST}");
        headers.insert(ACCEPT, header(&accept));
        let url = self.url(&format!("manifests/{selector}"));
        let request = Request { method: Method::GET, url: url.clone(), headers, body: &Upload::Empty };
        let answer = self.call(request).await?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let content = read_limited(answer, MAX_MANIFEST, &url).await?;
        let digest = Digest::of(&content);
        if let Ok(wanted) = Digest::parse(selector)
            && wanted != digest
        {
            let what = format!("the manifest does not match its digest: expected {wanted}, got {digest}");
            return Err(ClientError::Protocol { url: shown(&url), what });
        }
        Ok(Fetched { media_type, digest, content })
    }

    /// Asks for a blob from `offset` on. The answer's body starts there, or at 0 if the second value says so.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Answer, u64)> {
        let mut url = self.url(&format!("blobs/{digest}"));
        // Downloads may be redirected to storage; more hops than this are a loop.
        for _ in 0..10 {
            let mut headers = HeaderMap::new();
            if offset > 0 {
                headers.insert(RANGE, header(&format!("bytes={offset}-")));
            }
            let request = Request { method: Method::GET, url: url.clone(), headers, body: &Upload::Empty };
            let answer = self.once(&request).await?;
            match answer.status() {
                StatusCode::OK => return Ok((answer, 0)),
                StatusCode::PARTIAL_CONTENT if range_starts_at(&answer, offset) => {
                    return Ok((answer, offset));
                }
                StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                    let what = "the blob is shorter than what was downloaded already".to_owned();
                    return Err(ClientError::Protocol { url: shown(&url), what });
                }
                StatusCode::NOT_FOUND => {
                    return Err(ClientError::NoBlob { digest: *digest, repository: self.repository() });
                }
                status if status.is_redirection() => url = self.location(&answer, &url)?,
                _ => return Err(self.refusal(&request, answer).await),
            }
        }
        Err(ClientError::Protocol { url: shown(&url), what: "too many redirects".to_owned() })
    }

    /// Reads a whole small blob and verifies it.
    pub async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let url = self.url(&format!("blobs/{digest}"));
        let mut attempt = 0;
        loop {
            let result = match self.blob(digest, 0).await {
                Ok((answer, _)) => read_limited(answer, limit, &url).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(content) if Digest::of(&content) == *digest => return Ok(content),
                Ok(content) => {
                    let what = format!(
                        "the blob does not match its digest: expected {digest}, got {}",
                        Digest::of(&content)
                    );
                    return Err(ClientError::Protocol { url: shown(&url), what });
                }
                Err(error) if error.is_transient() && attempt < RETRIES => pause(attempt).await,
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Whether the repository has the blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let url = self.url(&format!("blobs/{digest}"));
        let request = Request { method: Method::HEAD, url, headers: HeaderMap::new(), body: &Upload::Empty };
        match self.call(request).await {
            Ok(_) => Ok(true),
            Err(ClientError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts an upload, or mounts the blob from another repository of the registry. `None` is: it is there now.
    pub async fn start_upload(&self, digest: &Digest, source: Option<&str>) -> Result<Option<String>> {
        let mut url = self.url("blobs/uploads/");
        if let Some(source) = source {
            url.push_str(&format!("?mount={digest}&from={source}"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let request = Request { method: Method::POST, url: url.clone(), headers, body: &Upload::Empty };
        let answer = self.call(request).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => self.location(&answer, &url).map(Some),
            status => Err(ClientError::Protocol {
                url: shown(&url),
                what: format!("{status} instead of 201 or 202"),
            }),
        }
    }

    /// Sends a whole blob to the address that [`Client::start_upload`] gave.
    pub async fn upload(&self, location: &str, digest: &Digest, body: &Upload) -> Result<()> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={digest}");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.size()));
        let request = Request { method: Method::PUT, url, headers, body };
        let answer = self.once(&request).await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(self.refusal(&request, answer).await),
        }
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn put_manifest(&self, selector: &str, media_type: &str, content: &[u8]) -> Result<()> {
        let body = Upload::Bytes(Bytes::copy_from_slice(content));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, header(media_type));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.size()));
        let url = self.url(&format!("manifests/{selector}"));
        self.call(Request { method: Method::PUT, url, headers, body: &body }).await.map(drop)
    }

    /// The address in a `Location` header, which may be relative.
    fn location(&self, answer: &Answer, base: &str) -> Result<String> {
        let wrong = |what: &str| ClientError::Protocol { url: shown(base), what: what.to_owned() };
        let value = answer.headers().get(LOCATION).ok_or_else(|| wrong("no Location header"))?;
        let text = value.to_str().map_err(|_| wrong("Location is not ASCII"))?;
        if text.starts_with("https://") || text.starts_with("http://") {
            if self.base.starts_with("https://") && text.starts_with("http://") {
                return Err(wrong("redirect from https to http"));
            }
            return Ok(text.to_owned());
        }
        let base: Uri = base.parse().map_err(|_| wrong("bad base address"))?;
        let (Some(scheme), Some(authority)) = (base.scheme_str(), base.authority()) else {
            return Err(wrong("bad base address"));
        };
        let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
        Ok(format!("{scheme}://{authority}{path}"))
    }
}

/// Checks credentials against a registry (`docker login`). Returns an identity token if the registry gave one.
pub async fn login(
    server: &str,
    auth: &RegistryAuth,
    insecure: &InsecureRegistries,
) -> Result<Option<String>> {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    let domain = if matches!(host, "" | "index.docker.io") { DEFAULT_DOMAIN } else { host };
    let refused = |message: &str| ClientError::Login { host: domain.to_owned(), message: message.to_owned() };
    let reference = Reference::parse(&format!("{domain}/login"))
        .map_err(|_| refused("the address of the registry is not valid"))?;
    let client = Client::new(&reference, Access::Pull, Some(auth.clone()), insecure)?;
    client.authorizer.clear_scopes();
    let url = format!("{}/v2/", client.base);
    let request = Request { method: Method::GET, url, headers: HeaderMap::new(), body: &Upload::Empty };
    match client.call(request).await {
        Ok(_) => Ok(client.authorizer.refresh_token()),
        Err(ClientError::Denied { message, .. }) => Err(refused(&message)),
        Err(error) => Err(error),
    }
}

fn is_fine(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

fn header(text: &str) -> HeaderValue {
    // Our own texts and validated references only; what is not a header value anyway is left out.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// An address without its query, which may carry a signature that is as good as a password.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

fn range_starts_at(answer: &Answer, offset: u64) -> bool {
    let range = answer.headers().get(http::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// Waits before the repetition number `attempt`: 0.1 s, 0.2 s, … at most 5 s, with jitter.
pub(crate) async fn pause(attempt: u32) {
    let mut byte = [0u8; 1];
    // Without entropy there is no jitter, which only matters when many clients fail at once.
    let _ = getrandom::fill(&mut byte);
    let base = Duration::from_millis(100 << attempt.min(6)).min(Duration::from_secs(5));
    tokio::time::sleep(base + base * u32::from(byte[0]) / 512).await;
}

async fn read_limited(answer: Answer, limit: u64, url: &str) -> Result<Vec<u8>> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken {
        method: Method::GET,
        url: shown(url),
        source,
    };
    let mut body = answer.into_body();
    let mut content = Vec::new();
    loop {
        let frame = tokio::time::timeout(ANSWER_TIMEOUT, body.frame()).await;
        let Some(frame) = frame.map_err(|_| broken(Box::new(io::Error::from(io::ErrorKind::TimedOut))))?
        else {
            return Ok(content);
        };
        let frame = frame.map_err(|error| broken(error.into()))?;
        if let Ok(data) = frame.into_data() {
            content.extend_from_slice(&data);
        }
        if content.len() as u64 > limit {
            let what = format!("the document is larger than {limit} bytes");
            return Err(ClientError::Protocol { url: shown(url), what });
        }
    }
}

/// The registry's own words: the first error of the specification's JSON, as `code: message`.
async fn error_message(answer: Answer) -> Option<String> {
    let body = read_limited(answer, 64 * 1024, "").await.ok()?;
    let document: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let first = document.get("errors")?.get(0)?;
    let code =
        first.get("code").and_then(|c| c.as_str()).unwrap_or("unknown").to_lowercase().replace('_', " ");
    let message = first.get("message").and_then(|m| m.as_str()).unwrap_or(&code);
    let text = format!("{code}: {message}");
    Some(text.chars().filter(|c| !c.is_control()).take(500).collect())
}

/// The shared TLS configuration and connections are per client; this only says that the type can cross threads.
const _: fn() = || {
    fn assert_shared<T: Send + Sync>() {}
    assert_shared::<Arc<Client>>();
};
