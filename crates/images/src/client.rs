//! A client of one repository at one registry, by the OCI distribution specification.
//!
//! It answers authentication challenges, follows redirects of downloads, and repeats what a network broke, with growing
//! pauses. Credentials go to the registry and to the token server that it names, and never along with a redirect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::digest::Digest;
use gantry_model::reference::Reference;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, LOCATION, RANGE,
    RETRY_AFTER,
};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::oci::{DOCKER_INDEX, DOCKER_MANIFEST, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};

mod auth;
mod challenge;
mod connect;
mod error;
mod fetch;
mod insecure;
mod login;
mod proxy;
mod registries;
mod token;
mod transport;
mod trust;

pub use auth::RegistryAuth;
pub use connect::ConnectError;
pub use error::ClientError;
pub use fetch::fetch;
pub use insecure::InsecureRegistries;
pub use login::login;
pub use proxy::{Proxies, ProxyError};
pub(crate) use registries::Endpoint;
pub use registries::{Mirror, MirrorError, Patience, Registries};
pub use trust::TrustError;

use challenge::Challenge;
use registries::Security;
use token::{Answered, Authorizer};
use transport::Transport;
pub(crate) use transport::Upload;

/// The most tags of one repository that are listed.
const MAX_TAGS: usize = 100_000;
/// How often a request is repeated after the first time.
pub(crate) const RETRIES: u32 = 5;
/// Reads may be redirected to storage; more hops than this are a loop.
const MAX_HOPS: usize = 10;

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

/// What a client is for; decides the scope of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
    Login,
}

/// A client of one repository.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    authorizer: Authorizer,
    /// `scheme://host[:port]`.
    base: String,
    security: Security,
    reference: Reference,
}

struct Request<'a> {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: &'a Upload,
}

impl Client {
    /// A client of the reference's own registry.
    pub async fn open(
        reference: &Reference,
        access: Access,
        auth: Option<RegistryAuth>,
        registries: &Arc<Registries>,
    ) -> Result<Client> {
        let origin = registries.origin(reference.domain());
        Client::at(origin, reference, access, auth, registries).await
    }

    /// A client of a mirror, which gets no credentials: they are for the registry behind it.
    pub async fn at_mirror(
        mirror: Endpoint,
        reference: &Reference,
        registries: &Arc<Registries>,
    ) -> Result<Client> {
        Client::at(mirror, reference, Access::Pull, None, registries).await
    }

    async fn at(
        endpoint: Endpoint,
        reference: &Reference,
        access: Access,
        auth: Option<RegistryAuth>,
        registries: &Arc<Registries>,
    ) -> Result<Client> {
        let scope = match access {
            Access::Pull => Some(format!("repository:{}:pull", reference.path())),
            Access::Push => Some(format!("repository:{}:pull,push", reference.path())),
            Access::Login => None,
        };
        let security = endpoint.security;
        let host = endpoint.host.clone();
        let transport = Transport::new(endpoint, registries);
        let base = format!("{}://{host}", transport.scheme().await?);
        let authorizer = Authorizer::new(auth, scope, access, security);
        Ok(Client { transport, authorizer, base, security, reference: reference.clone() })
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

    /// Whether an address is at the registry itself, and not at a storage that it names.
    fn is_own(&self, url: &str) -> bool {
        origin(url).is_some_and(|found| Some(found) == origin(&self.base))
    }

    /// Sends a request, answering one challenge. Redirects are not followed here. What is elsewhere sees no credentials
    /// and can't ask for any.
    async fn once(&self, request: &Request<'_>) -> Result<Answer> {
        if !self.is_own(&request.url) {
            return self.send(request, None).await;
        }
        let sent = self.authorizer.header(&self.transport).await?;
        let answer = self.send(request, sent.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges = Challenge::all(answer.headers());
        match self.authorizer.answer(&self.transport, &challenges, sent.as_ref()).await? {
            Answered::Anew => {}
            Answered::Nothing(None) => return Err(self.refusal(request, answer).await),
            Answered::Nothing(Some(reason)) => return Err(self.denied(reason.to_owned())),
        }
        let header = self.authorizer.header(&self.transport).await?;
        let answer = self.send(request, header).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => Err(self.refusal(request, answer).await),
            _ => Ok(answer),
        }
    }

    async fn send(&self, request: &Request<'_>, authorization: Option<HeaderValue>) -> Result<Answer> {
        let mut headers = request.headers.clone();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value);
        }
        self.transport.send(&request.method, &request.url, headers, request.body).await
    }

    fn denied(&self, message: String) -> ClientError {
        ClientError::Denied { access: self.authorizer.access(), repository: self.repository(), message }
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
                Err(error) if attempt < error.retries() => {
                    tracing::debug!(%error, attempt, "registry request is repeated");
                    pause_after(&error, attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn refusal(&self, request: &Request<'_>, answer: Answer) -> ClientError {
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let message = error_message(answer, &self.transport).await;
        // Answers to HEAD have no words of their own.
        let mut message = message.unwrap_or_else(|| match status {
            StatusCode::UNAUTHORIZED => "unauthorized: authentication required".to_owned(),
            StatusCode::FORBIDDEN => "denied: requested access to the resource is denied".to_owned(),
            _ => "it gave no reason".to_owned(),
        });
        if let Some(wait) = retry_after {
            message.push_str(&format!(" (it wants to be asked again in {} s)", wait.as_secs()));
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(message),
            StatusCode::NOT_FOUND if request.url.contains("/manifests/") => {
                ClientError::NotFound { reference: self.reference.familiar(), message }
            }
            _ => ClientError::Status {
                method: request.method.clone(),
                url: shown(&request.url),
                status,
                message,
                retry_after,
            },
        }
    }

    /// Fetches the manifest or index of a tag or digest, verified against the digest if it is one.
    pub async fn manifest(&self, selector: &str) -> Result<Fetched> {
        let mut headers = HeaderMap::new();
        let accept = format!("{OCI_INDEX}, {DOCKER_INDEX}, {OCI_MANIFEST}, {DOCKER_MANIFEST}");
        headers.insert(ACCEPT, header(&accept));
        let url = self.url(&format!("manifests/{selector}"));
        let answer = self.follow(&url, headers).await?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let content = read_limited(answer, MAX_MANIFEST, &url, &self.transport).await?;
        let digest = Digest::of(&content);
        if let Ok(wanted) = Digest::parse(selector)
            && wanted != digest
        {
            let what = format!("the manifest does not match its digest: expected {wanted}, got {digest}");
            return Err(ClientError::Protocol { url: shown(&url), what });
        }
        Ok(Fetched { media_type, digest, content })
    }

    /// All tags of the repository, in the registry's order.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut url = self.url("tags/list?n=1000");
        loop {
            let answer = self.follow(&url, HeaderMap::new()).await.map_err(|error| match error {
                ClientError::Status { status: StatusCode::NOT_FOUND, message, .. } => {
                    ClientError::NotFound { reference: self.repository(), message }
                }
                other => other,
            })?;
            let next = next_page(answer.headers()).map(|next| self.page(&next, &url)).transpose()?;
            let content = read_limited(answer, MAX_MANIFEST, &url, &self.transport).await?;
            let wrong = |what: String| ClientError::Protocol { url: shown(&url), what };
            let page: TagList = serde_json::from_slice(&content)
                .map_err(|error| wrong(format!("the list of tags is not valid: {error}")))?;
            // A page without tags that leads to another one could go on for ever.
            let empty = page.tags.is_empty();
            tags.extend(page.tags);
            match next {
                Some(next) if !empty && tags.len() < MAX_TAGS => url = next,
                Some(_) => {
                    return Err(wrong(format!("the list of tags has no end, or more than {MAX_TAGS}")));
                }
                None => return Ok(tags),
            }
        }
    }

    /// The address of the next page, which must be at the registry itself.
    fn page(&self, next: &str, base: &str) -> Result<String> {
        let url = self.absolute(next, base)?;
        match self.is_own(&url) {
            true => Ok(url),
            false => Err(ClientError::Protocol {
                url: shown(base),
                what: "the next page of the list is at another host".to_owned(),
            }),
        }
    }

    /// A read, through redirects; repeats what is transient.
    async fn follow(&self, url: &str, headers: HeaderMap) -> Result<Answer> {
        let mut url = url.to_owned();
        for _ in 0..MAX_HOPS {
            let headers = headers.clone();
            let request = Request { method: Method::GET, url: url.clone(), headers, body: &Upload::Empty };
            let answer = self.call(request).await?;
            match answer.status().is_redirection() {
                true => url = self.location(&answer, &url)?,
                false => return Ok(answer),
            }
        }
        Err(ClientError::Protocol { url: shown(&url), what: "too many redirects".to_owned() })
    }

    /// Asks for a blob from `offset` on. The answer's body starts there, or at 0 if the second value says so.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Answer, u64)> {
        let mut url = self.url(&format!("blobs/{digest}"));
        for _ in 0..MAX_HOPS {
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
                Ok((answer, _)) => read_limited(answer, limit, &url, &self.transport).await,
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
                Err(error) if attempt < error.retries() => pause_after(&error, attempt).await,
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
        self.absolute(text, base)
    }

    /// An address that an answer to a request at `base` named.
    fn absolute(&self, text: &str, base: &str) -> Result<String> {
        let url = absolute(text, base)?;
        if self.security == Security::Verified && url.starts_with("http://") {
            let what = "redirect from https to http".to_owned();
            return Err(ClientError::Protocol { url: shown(base), what });
        }
        Ok(url)
    }
}

/// The whole address of what may be written relative to `base`.
fn absolute(text: &str, base: &str) -> Result<String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(text.to_owned());
    }
    let wrong = || ClientError::Protocol { url: shown(base), what: "bad base address".to_owned() };
    let base: Uri = base.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (base.scheme_str(), base.authority()) else { return Err(wrong()) };
    let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    Ok(format!("{scheme}://{authority}{path}"))
}

/// A page of the tags of a repository.
#[derive(serde::Deserialize)]
struct TagList {
    #[serde(default, deserialize_with = "gantry_model::nullable")]
    tags: Vec<String>,
}

/// The address in `Link: <…>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(LINK)?.to_str().ok()?;
    let (address, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
    parameters.replace('"', "").contains("rel=next").then(|| address.to_owned())
}

/// Scheme, host and port of an address: what decides who sees credentials.
fn origin(url: &str) -> Option<(bool, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let tls = uri.scheme_str()? == "https";
    let authority = uri.authority()?;
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Some((tls, authority.host().to_ascii_lowercase(), port))
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

/// Waits before the repetition number `attempt`: 0.1 s, 0.2 s, … at most 5 s, with jitter; longer if the registry said so.
pub(crate) async fn pause_after(error: &ClientError, attempt: u32) {
    let mut byte = [0u8; 1];
    // Without entropy there is no jitter, which only matters when many clients fail at once.
    let _ = getrandom::fill(&mut byte);
    let base = Duration::from_millis(100 << attempt.min(6)).min(Duration::from_secs(5));
    let wait = base.max(error.retry_after().unwrap_or_default());
    tokio::time::sleep(wait + base * u32::from(byte[0]) / 512).await;
}

/// How long a registry wants not to be asked (RFC 9110, 10.2.3). Registries give seconds; a date is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn read_limited(answer: Answer, limit: u64, url: &str, transport: &Transport) -> Result<Vec<u8>> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken {
        method: Method::GET,
        url: shown(url),
        source,
    };
    let patience = transport.patience();
    let silent = |_| ClientError::Silent {
        method: Method::GET,
        url: shown(url),
        seconds: connect::whole_seconds(patience),
    };
    let mut body = answer.into_body();
    let mut content = Vec::new();
    while let Some(frame) = tokio::time::timeout(patience, body.frame()).await.map_err(silent)? {
        let frame = frame.map_err(|error| broken(error.into()))?;
        if let Ok(data) = frame.into_data() {
            content.extend_from_slice(&data);
        }
        if content.len() as u64 > limit {
            let what = format!("the document is larger than {limit} bytes");
            return Err(ClientError::Protocol { url: shown(url), what });
        }
    }
    Ok(content)
}

/// The registry's own words: the first error of the specification's JSON, as `code: message`; or what token servers write
/// in its place.
async fn error_message(answer: Answer, transport: &Transport) -> Option<String> {
    let body = read_limited(answer, 64 * 1024, "", transport).await.ok()?;
    let document: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let word = |value: &serde_json::Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
    let text = match document.get("errors").and_then(|errors| errors.get(0)) {
        Some(first) => {
            let code = word(first, "code").unwrap_or("unknown".to_owned()).to_lowercase().replace('_', " ");
            let message = word(first, "message").unwrap_or_else(|| code.clone());
            format!("{code}: {message}")
        }
        None => {
            let words = ["error_description", "details", "message", "error"];
            words.iter().find_map(|name| word(&document, name))?
        }
    };
    Some(text.chars().filter(|c| !c.is_control()).take(500).collect())
}

/// The shared TLS configuration and connections are per client; this only says that the type can cross threads.
const _: fn() = || {
    fn assert_shared<T: Send + Sync>() {}
    assert_shared::<Arc<Client>>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_by_their_link() {
        let link =
            |text: &'static str| next_page(&HeaderMap::from_iter([(LINK, HeaderValue::from_static(text))]));
        assert_eq!(
            link("</v2/a/tags/list?n=2&last=b>; rel=\"next\"").as_deref(),
            Some("/v2/a/tags/list?n=2&last=b")
        );
        assert_eq!(link("<x>; rel=next").as_deref(), Some("x"));
        assert_eq!(link("<x>; rel=\"prev\""), None);
        assert_eq!(link("x"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| origin(one).is_some() && origin(one) == origin(other);
        assert!(same("https://reg.example", "https://REG.example:443/v2/?x=y"));
        assert!(same("http://10.0.0.1:5000", "http://10.0.0.1:5000/v2/"));
        assert!(!same("http://10.0.0.1:5000", "http://10.0.0.1:50001/v2/"));
        assert!(!same("https://reg.example", "https://reg.example.evil/v2/"));
        assert!(!same("https://reg.example", "https://reg.example@evil/v2/"));
        assert!(!same("https://reg.example", "http://reg.example:443/v2/"));
        assert_eq!(origin("/v2/"), None);
    }
}
