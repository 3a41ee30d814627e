//! Requests and answers of the distribution specification.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use gantry_images::oci::{Index, MAX_MANIFEST, OCI_INDEX};
use gantry_model::digest::Digest;
use http::header::{
    ACCEPT_RANGES, ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LINK, LOCATION, RANGE,
};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::Registry;
use crate::access::{Access, DELETE, PULL, PUSH, Scope, Wanted};
use crate::manifest::Selector;
use crate::problem::Problem;
use crate::repository::Name;
use crate::upload::{Open, run_blocking};

type Result<T> = std::result::Result<T, Problem>;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The most names of one list; greater wishes get this many and a link to the rest.
const MAX_PAGE: usize = 1000;

pub(crate) fn router(registry: Arc<Registry>, access: Arc<Access>) -> axum::Router {
    axum::Router::new().fallback(handle).with_state((registry, access))
}

async fn handle(
    State((registry, access)): State<(Arc<Registry>, Arc<Access>)>,
    request: Request,
) -> Response {
    let answer = guarded(registry, &access, request).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Resource {
    Base,
    Catalog,
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, String),
    Manifest(Name, Selector),
    Tags(Name),
    Referrers(Name, Digest),
}

impl Resource {
    /// Repository names contain slashes, so paths are read from their end.
    fn parse(path: &str) -> Result<Resource> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| Problem::NameInvalid)?;
        let rest = path.strip_prefix("/v2").ok_or(Problem::NotFound)?;
        match rest {
            "" | "/" => return Ok(Resource::Base),
            "/_catalog" => return Ok(Resource::Catalog),
            _ => {}
        }
        let rest = rest.strip_prefix('/').ok_or(Problem::NotFound)?;
        let digest =
            |text: &str| Digest::parse(text).map_err(|error| Problem::DigestInvalid(error.to_string()));
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Resource::Uploads(Name::parse(name)?));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Resource::Tags(Name::parse(name)?));
        }
        let (head, last) = rest.rsplit_once('/').ok_or(Problem::NotFound)?;
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            return Ok(Resource::Upload(Name::parse(name)?, last.to_owned()));
        }
        if let Some(name) = head.strip_suffix("/blobs") {
            return Ok(Resource::Blob(Name::parse(name)?, digest(last)?));
        }
        if let Some(name) = head.strip_suffix("/manifests") {
            return Ok(Resource::Manifest(Name::parse(name)?, Selector::parse(last)?));
        }
        if let Some(name) = head.strip_suffix("/referrers") {
            return Ok(Resource::Referrers(Name::parse(name)?, digest(last)?));
        }
        Err(Problem::NotFound)
    }
}

impl Resource {
    /// What a request with this method wants to do.
    fn wanted(&self, method: &Method, uri: &Uri) -> Wanted {
        let name = match self {
            Resource::Base => return Wanted::Base,
            Resource::Catalog => return Wanted::Catalog,
            Resource::Blob(name, _)
            | Resource::Uploads(name)
            | Resource::Upload(name, _)
            | Resource::Manifest(name, _)
            | Resource::Tags(name)
            | Resource::Referrers(name, _) => name,
        };
        let upload = matches!(self, Resource::Uploads(_) | Resource::Upload(..));
        let actions = match *method {
            Method::GET | Method::HEAD if !upload => PULL,
            Method::DELETE if !upload => DELETE,
            _ => PUSH,
        };
        let mut scopes = vec![Scope { repository: name.as_str().to_owned(), actions }];
        let source = query(uri, "from").filter(|_| matches!(self, Resource::Uploads(_)));
        // A blob that is mounted is read from there.
        if let Some(source) = source.and_then(|source| Name::parse(&source).ok()) {
            scopes.push(Scope { repository: source.as_str().to_owned(), actions: PULL });
        }
        Wanted::Repositories(scopes)
    }
}

async fn guarded(registry: Arc<Registry>, access: &Access, request: Request) -> Result<Response> {
    let resource = Resource::parse(request.uri().path())?;
    let wanted = resource.wanted(request.method(), request.uri());
    access.check(&wanted, request.headers().get(AUTHORIZATION)).await?;
    route(registry, resource, request).await
}

async fn route(registry: Arc<Registry>, resource: Resource, request: Request) -> Result<Response> {
    let method = request.method().clone();
    let head = method == Method::HEAD;
    match (resource, method) {
        (Resource::Base, Method::GET | Method::HEAD) => Ok(axum::Json(json!({})).into_response()),
        (Resource::Catalog, Method::GET) => catalog(registry, request.uri().clone()).await,
        (Resource::Blob(name, digest), Method::GET | Method::HEAD) => {
            get_blob(&registry, &name, &digest, request.headers(), head).await
        }
        (Resource::Blob(name, digest), Method::DELETE) => delete_blob(registry, name, digest).await,
        (Resource::Uploads(name), Method::POST) => start_upload(registry, name, request).await,
        (Resource::Upload(name, id), method) => upload(registry, name, id, method, request).await,
        (Resource::Manifest(name, selector), Method::GET | Method::HEAD) => {
            get_manifest(registry, name, selector, head).await
        }
        (Resource::Manifest(name, selector), Method::PUT) => {
            put_manifest(registry, name, selector, request).await
        }
        (Resource::Manifest(name, selector), Method::DELETE) => {
            run_blocking(move || registry.delete_manifest(&name, &selector)).await?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        (Resource::Tags(name), Method::GET) => tags(registry, name, request.uri().clone()).await,
        (Resource::Referrers(name, digest), Method::GET) => {
            referrers(registry, name, digest, request.uri().clone()).await
        }
        _ => {
            let mut response = Problem::Unsupported.into_response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            Ok(response)
        }
    }
}

/// The value of a query parameter, decoded.
fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&');
    let found = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
    percent_decode_str(&found.1.replace('+', " ")).decode_utf8().ok().map(|text| text.into_owned())
}

fn value(text: &str) -> HeaderValue {
    // Digests, ids, validated names and numbers only.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn digest_of(text: Option<String>) -> Result<Digest> {
    let text = text.ok_or_else(|| Problem::DigestInvalid("the digest is missing".to_owned()))?;
    Digest::parse(&text).map_err(|error| Problem::DigestInvalid(error.to_string()))
}

async fn get_blob(
    registry: &Registry,
    name: &Name,
    digest: &Digest,
    headers: &HeaderMap,
    head: bool,
) -> Result<Response> {
    if !registry.repositories.has_blob(name, digest) {
        return Err(Problem::BlobUnknown(digest.to_string()));
    }
    let size = registry.content.size(digest)?;
    if head {
        // A client that is told "it is here" will not send it: from now on the collector spares it for a while.
        registry.content.touch(digest)?;
    }
    let range =
        headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| byte_range(text, size));
    let (status, start, length) = match range {
        None => (StatusCode::OK, 0, size),
        Some(None) => {
            let mut response = Problem::Range(size).into_response();
            response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes */{size}")));
            return Ok(response);
        }
        Some(Some((start, length))) => (StatusCode::PARTIAL_CONTENT, start, length),
    };
    let body = if head {
        Body::empty()
    } else {
        let mut file = tokio::fs::File::from_std(registry.content.open_blob(digest)?);
        file.set_max_buf_size(512 * 1024);
        let moved = file.seek(SeekFrom::Start(start)).await;
        moved.map_err(|error| Problem::Storage(Box::new(error)))?;
        Body::from_stream(ReaderStream::with_capacity(file.take(length), 512 * 1024))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(DIGEST, value(&digest.to_string()));
    headers.insert(ETAG, value(&format!("\"{digest}\"")));
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(CONTENT_RANGE, value(&format!("bytes {start}-{}/{size}", start + length - 1)));
    }
    Ok(response)
}

/// One range of RFC 9110: start and length. `None` is to be ignored (several, or not understood); `Some(None)` can't be
/// satisfied.
fn byte_range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    if start.is_empty() {
        let count: u64 = end.parse().ok()?;
        let length = count.min(size);
        return Some((length > 0).then(|| (size - length, length)));
    }
    let start: u64 = start.parse().ok()?;
    let end = if end.is_empty() { u64::MAX } else { end.parse().ok()? };
    if start > end {
        return None;
    }
    if start >= size {
        return Some(None);
    }
    Some(Some((start, end.min(size - 1) - start + 1)))
}

async fn delete_blob(registry: Arc<Registry>, name: Name, digest: Digest) -> Result<Response> {
    let removed =
        run_blocking(move || Ok((registry.repositories.unlink_blob(&name, &digest)?, digest))).await?;
    match removed {
        (true, _) => Ok(StatusCode::ACCEPTED.into_response()),
        (false, digest) => Err(Problem::BlobUnknown(digest.to_string())),
    }
}

async fn start_upload(registry: Arc<Registry>, name: Name, request: Request) -> Result<Response> {
    if let Some(mount) = query(request.uri(), "mount") {
        let digest = digest_of(Some(mount))?;
        let from = query(request.uri(), "from").map(|from| Name::parse(&from)).transpose()?;
        let (shared, target) = (Arc::clone(&registry), name.clone());
        if run_blocking(move || shared.mount(&target, &digest, from.as_ref())).await? {
            return Ok(created_blob(&name, &digest));
        }
    }
    let id = registry.start_upload(&name)?;
    if let Some(digest) = query(request.uri(), "digest") {
        // The whole blob in one request.
        let mut open = registry.open_upload(&name, &id)?;
        let digest = match digest_of(Some(digest)) {
            Ok(digest) => digest,
            Err(problem) => {
                registry.cancel_upload(open);
                return Err(problem);
            }
        };
        if let Err(problem) = registry.append(&mut open, request.into_body()).await {
            // The client was never told the upload's address, so nobody can go on with it.
            registry.cancel_upload(open);
            return Err(problem);
        }
        registry.finish_upload(&name, open, digest).await?;
        return Ok(created_blob(&name, &digest));
    }
    Ok(progress(&name, &id, 0, StatusCode::ACCEPTED))
}

async fn upload(
    registry: Arc<Registry>,
    name: Name,
    id: String,
    method: Method,
    request: Request,
) -> Result<Response> {
    let mut open = registry.open_upload(&name, &id)?;
    match method {
        Method::GET => Ok(progress(&name, &id, open.offset(), StatusCode::NO_CONTENT)),
        Method::DELETE => {
            registry.cancel_upload(open);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Method::PATCH => {
            check_chunk(&request, &open)?;
            registry.append(&mut open, request.into_body()).await?;
            Ok(progress(&name, &id, open.offset(), StatusCode::ACCEPTED))
        }
        Method::PUT => {
            check_chunk(&request, &open)?;
            let digest = digest_of(query(request.uri(), "digest"))?;
            registry.append(&mut open, request.into_body()).await?;
            registry.finish_upload(&name, open, digest).await?;
            Ok(created_blob(&name, &digest))
        }
        _ => Err(Problem::Unsupported),
    }
}

/// `Content-Range: <start>-<end>`, where it is given, must continue what is here and fit the length.
fn check_chunk(request: &Request, open: &Open) -> Result<()> {
    let Some(range) = request.headers().get(CONTENT_RANGE) else { return Ok(()) };
    let malformed = || Problem::UploadInvalid("malformed Content-Range".to_owned());
    let text = range.to_str().map_err(|_| malformed())?;
    let text = text.strip_prefix("bytes ").unwrap_or(text).split('/').next().unwrap_or_default();
    let (start, end) = text.split_once('-').ok_or_else(malformed)?;
    let start: u64 = start.trim().parse().map_err(|_| malformed())?;
    let end: u64 = end.trim().parse().map_err(|_| malformed())?;
    if start != open.offset() {
        return Err(Problem::OutOfOrder { start, offset: open.offset() });
    }
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if end.checked_sub(start).and_then(|span| span.checked_add(1)) != Some(length) => {
            Err(Problem::UploadInvalid("Content-Range does not match Content-Length".to_owned()))
        }
        _ => Ok(()),
    }
}

fn created_blob(name: &Name, digest: &Digest) -> Response {
    let location = format!("/v2/{}/blobs/{digest}", name.as_str());
    let headers = [(LOCATION, value(&location)), (DIGEST, value(&digest.to_string()))];
    (StatusCode::CREATED, headers).into_response()
}

fn progress(name: &Name, id: &str, offset: u64, status: StatusCode) -> Response {
    let location = format!("/v2/{}/blobs/uploads/{id}", name.as_str());
    // An empty upload is 0-0 as well; the specification has no way to say it.
    let range = format!("0-{}", offset.saturating_sub(1));
    let headers = [(LOCATION, value(&location)), (RANGE, value(&range)), (UPLOAD_ID, value(id))];
    (status, headers).into_response()
}

async fn get_manifest(
    registry: Arc<Registry>,
    name: Name,
    selector: Selector,
    head: bool,
) -> Result<Response> {
    let (served, content) = run_blocking(move || {
        let served = registry.find_manifest(&name, &selector)?;
        let content = if head { Vec::new() } else { registry.read_manifest(&served.digest)? };
        Ok((served, content))
    })
    .await?;
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, value(&served.media_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(served.size));
    headers.insert(DIGEST, value(&served.digest.to_string()));
    headers.insert(ETAG, value(&format!("\"{}\"", served.digest)));
    Ok(response)
}

async fn put_manifest(
    registry: Arc<Registry>,
    name: Name,
    selector: Selector,
    request: Request,
) -> Result<Response> {
    let media_type =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    let limit = usize::try_from(MAX_MANIFEST).unwrap_or(usize::MAX);
    let body = Limited::new(request.into_body(), limit).collect().await;
    let content = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Problem::ManifestTooLarge(MAX_MANIFEST),
        None => Problem::Body(std::io::Error::other(error)),
    })?;
    let content = content.to_bytes();
    let (target, shown) = (name.clone(), selector.clone());
    let accepted =
        run_blocking(move || registry.put_manifest(&target, &selector, &media_type, &content)).await?;
    let last = match shown {
        Selector::Tag(tag) => tag,
        Selector::Digest(digest) => digest.to_string(),
    };
    let location = format!("/v2/{}/manifests/{last}", name.as_str());
    let headers = [(LOCATION, value(&location)), (DIGEST, value(&accepted.digest.to_string()))];
    let mut response = (StatusCode::CREATED, headers).into_response();
    if let Some(subject) = accepted.subject {
        response.headers_mut().insert(SUBJECT, value(&subject.to_string()));
    }
    Ok(response)
}

/// The part of a sorted list that was asked for, and where the next part starts.
fn page(uri: &Uri, all: Vec<String>) -> Result<(Vec<String>, Option<HeaderValue>)> {
    let wanted = match query(uri, "n") {
        None => usize::MAX,
        Some(text) => text.parse().map_err(|_| Problem::PageSize(text))?,
    };
    let last = query(uri, "last").unwrap_or_default();
    let mut rest: Vec<String> = all.into_iter().filter(|name| *name > last).collect();
    let count = if wanted == usize::MAX { rest.len() } else { wanted.min(MAX_PAGE) };
    if rest.len() <= count {
        return Ok((rest, None));
    }
    rest.truncate(count);
    let link = rest.last().map(|last| {
        let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
        value(&format!("<{}?n={count}&last={last}>; rel=\"next\"", uri.path()))
    });
    Ok((rest, link))
}

fn listing(body: serde_json::Value, link: Option<HeaderValue>) -> Response {
    let mut response = axum::Json(body).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    response
}

async fn catalog(registry: Arc<Registry>, uri: Uri) -> Result<Response> {
    let names = run_blocking(move || registry.repositories.names()).await?;
    let names = names.iter().map(|name| name.as_str().to_owned()).collect();
    let (names, link) = page(&uri, names)?;
    Ok(listing(json!({"repositories": names}), link))
}

async fn tags(registry: Arc<Registry>, name: Name, uri: Uri) -> Result<Response> {
    if !registry.repositories.exists(&name) {
        return Err(Problem::NameUnknown(name.as_str().to_owned()));
    }
    let shown = name.as_str().to_owned();
    let all = run_blocking(move || registry.repositories.tags(&name)).await?;
    let (tags, link) = page(&uri, all)?;
    Ok(listing(json!({"name": shown, "tags": tags}), link))
}

async fn referrers(registry: Arc<Registry>, name: Name, digest: Digest, uri: Uri) -> Result<Response> {
    let wanted = query(&uri, "artifactType");
    let mut list = run_blocking(move || registry.list_referrers(&name, &digest)).await?;
    if let Some(wanted) = &wanted {
        list.retain(|descriptor| descriptor.artifact_type.as_ref() == Some(wanted));
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: list,
        subject: None,
        annotations: None,
    };
    let mut response = axum::Json(index).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if wanted.is_some() {
        response.headers_mut().insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let name = |text: &str| Name::parse(text).expect("name");
        let digest = Digest::of(b"");
        let blob = Resource::parse(&format!("/v2/a/blobs/b/blobs/{digest}"));
        assert_eq!(blob.expect("blob"), Resource::Blob(name("a/blobs/b"), digest));
        let upload = Resource::parse("/v2/a/b/blobs/uploads/x-1").expect("upload");
        assert_eq!(upload, Resource::Upload(name("a/b"), "x-1".to_owned()));
        let manifest = Resource::parse("/v2/a/manifests/latest").expect("manifest");
        assert_eq!(manifest, Resource::Manifest(name("a"), Selector::Tag("latest".to_owned())));
        for bad in [
            "/v2/../etc/manifests/x",
            "/v2/A/tags/list",
            "/v2/a/manifests/..",
            "/v2/a/blobs/x",
            "/v2/_catalog/x",
        ] {
            assert!(Resource::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_follow_the_rfc() {
        assert_eq!(byte_range("bytes=0-", 10), Some(Some((0, 10))));
        assert_eq!(byte_range("bytes=2-3", 10), Some(Some((2, 2))));
        assert_eq!(byte_range("bytes=-3", 10), Some(Some((7, 3))));
        assert_eq!(byte_range("bytes=5-99", 10), Some(Some((5, 5))));
        assert_eq!(byte_range("bytes=10-", 10), Some(None));
        assert_eq!(byte_range("bytes=-0", 10), Some(None));
        assert_eq!(byte_range("bytes=3-2", 10), None);
        assert_eq!(byte_range("bytes=0-1,3-4", 10), None);
    }
}
