//! A file that a user names by its address (`docker import http://…`).

use std::sync::Arc;

use futures_util::TryStreamExt;
use http::header::HeaderMap;
use http::{Method, Uri};
use http_body_util::BodyExt;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::registries::{Endpoint, Security};
use super::transport::{Transport, Upload};
use super::{ClientError, MAX_HOPS, Registries, Result, shown};

/// Opens the file at an address over http or https, through the node's proxies and with its authorities. Redirects are
/// followed, but not from https to http.
pub async fn fetch(
    address: &str,
    registries: &Arc<Registries>,
) -> Result<impl AsyncRead + Send + Unpin + use<>> {
    let mut url = address.to_owned();
    for _ in 0..MAX_HOPS {
        let wrong = |what: &str| ClientError::Protocol { url: shown(&url), what: what.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong("the address is not valid"))?;
        let host = uri.authority().ok_or_else(|| wrong("the address has no host"))?.as_str().to_owned();
        let security = match uri.scheme_str() {
            Some("http") => Security::Plain,
            Some("https") => registries.origin(&host).security,
            _ => return Err(wrong("only http and https are known")),
        };
        let transport = Transport::new(Endpoint { host, security }, registries);
        let answer = transport.send(&Method::GET, &url, HeaderMap::new(), &Upload::Empty).await?;
        let status = answer.status();
        if status.is_success() {
            let stream = answer.into_body().into_data_stream().map_err(std::io::Error::other);
            return Ok(StreamReader::new(Box::pin(stream)));
        }
        if !status.is_redirection() {
            let (method, message) = (Method::GET, "the file can't be fetched".to_owned());
            return Err(ClientError::Status { method, url: shown(&url), status, message, retry_after: None });
        }
        let next = answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
        let next = super::absolute(next.ok_or_else(|| wrong("no Location header"))?, &url)?;
        if url.starts_with("https://") && next.starts_with("http://") {
            return Err(wrong("redirect from https to http"));
        }
        url = next;
    }
    Err(ClientError::Protocol { url: shown(&url), what: "too many redirects".to_owned() })
}
