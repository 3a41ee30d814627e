//! Connections to registries: HTTP/1.1 over TCP or TLS.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as LegacyError};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::io::ReaderStream;

use super::{ANSWER_TIMEOUT, Answer, ClientError, Result, shown};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Where an administrator puts the CA of a private registry, as for Docker.
const CERTIFICATES: [&str; 2] = ["/etc/gantry/certs.d", "/etc/docker/certs.d"];

/// Registries that are spoken to without TLS: those configured, and loopback always.
#[derive(Clone, Debug, Default)]
pub struct InsecureRegistries {
    hosts: HashSet<String>,
    networks: Vec<(IpAddr, u8)>,
}

impl InsecureRegistries {
    /// Takes entries of the form `host`, `host:port` or `address/prefix`, as in Docker's `insecure-registries`.
    pub fn new<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> InsecureRegistries {
        let mut registries = InsecureRegistries::default();
        for entry in entries {
            let entry = entry.as_ref();
            let network = entry.split_once('/').and_then(|(address, prefix)| {
                Some((address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?))
            });
            match network {
                Some(network) => registries.networks.push(network),
                None => drop(registries.hosts.insert(entry.to_ascii_lowercase())),
            }
        }
        registries
    }

    /// Whether this registry (`host[:port]`) is spoken to without TLS.
    pub fn allows(&self, domain: &str) -> bool {
        let (host, port) = split_port(domain);
        let domain = domain.to_ascii_lowercase();
        if self.hosts.contains(&domain) || (port.is_some() && self.hosts.contains(&host.to_ascii_lowercase()))
        {
            return true;
        }
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() else { return false };
        address.is_loopback()
            || self.networks.iter().any(|(network, prefix)| within(address, *network, *prefix))
    }

    /// The entries, sorted, as `docker info` shows them.
    pub fn entries(&self) -> Vec<String> {
        let networks = self.networks.iter().map(|(address, prefix)| format!("{address}/{prefix}"));
        let mut entries: Vec<String> = self.hosts.iter().cloned().chain(networks).collect();
        entries.sort();
        entries
    }
}

fn within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let width = if network.is_ipv4() { 32 } else { 128 };
    let shift = 128 - u32::from(prefix.min(width));
    let same = bits(address) ^ bits(network);
    address.is_ipv4() == network.is_ipv4() && (shift == 128 || same >> shift == 0)
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// A request's body, which can be sent again.
#[derive(Debug)]
pub(crate) enum Upload {
    Empty,
    Bytes(Bytes),
    File { path: PathBuf, size: u64, sent: tokio::sync::watch::Sender<u64> },
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
    client: Client<tower::util::BoxCloneSyncService<Uri, TokioIo<Stream>, io::Error>, Body>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

impl Transport {
    /// A transport for one registry, whose private CA is looked up by its name.
    pub fn new(host: &str) -> Result<Transport> {
        let config = tls_config(host)?;
        let connector = tower::service_fn(move |uri: Uri| connect(uri, Arc::clone(&config)));
        let connector = tower::util::BoxCloneSyncService::new(connector);
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Ok(Transport { client })
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
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::new(body.body().map_err(|error| broken(error.into()))?);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("gantry"));
        if let Ok(value) = HeaderValue::from_str(&host) {
            request.headers_mut().insert(HOST, value);
        }
        // A large upload takes its time; only what waits for an answer alone is bounded here.
        let answer = self.client.request(request);
        let answer = match body {
            Upload::File { .. } => answer.await,
            _ => match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(broken(Box::new(io::Error::from(io::ErrorKind::TimedOut)))),
            },
        };
        answer.map_err(|error| match error.is_connect() {
            true => ClientError::Connect { host, source: connect_cause(error) },
            false => broken(error.into()),
        })
    }
}

/// The connector's own error, without the client's "client error (Connect)" around it.
fn connect_cause(error: LegacyError) -> Box<dyn StdError + Send + Sync> {
    match error.source() {
        Some(cause) => {
            let kind = cause.downcast_ref::<io::Error>().map_or(io::ErrorKind::Other, io::Error::kind);
            Box::new(io::Error::new(kind, chain(cause)))
        }
        None => error.into(),
    }
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// A connection that broke or timed out may succeed the next time; a refused one, a bad certificate or name will not,
/// and the user is better told at once.
pub(super) fn worth_a_retry(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, TimedOut};
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ConnectionAborted | ConnectionReset | TimedOut))
}

async fn connect(uri: Uri, config: Arc<rustls::ClientConfig>) -> io::Result<TokioIo<Stream>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} in {uri}"));
    let host = uri.host().ok_or_else(|| invalid("no host"))?.trim_matches(['[', ']']).to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port)));
    let tcp = tcp.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tcp.set_nodelay(true)?;
    if !tls {
        return Ok(TokioIo::new(Stream::Plain(tcp)));
    }
    let name = ServerName::try_from(host).map_err(|_| invalid("no valid server name"))?;
    let session = tokio::time::timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(name, tcp));
    let session = session.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(TokioIo::new(Stream::Tls(Box::new(session))))
}

/// The host's trust roots are read once: it takes some milliseconds.
fn native_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::warn!(%error, "a trust root of the host can't be read");
        }
        found.certs
    })
}

fn tls_config(host: &str) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(native_roots().iter().cloned());
    for folder in CERTIFICATES {
        for certificate in private_roots(&Path::new(folder).join(host)) {
            roots.add(certificate).map_err(|error| ClientError::Tls(error.into()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn private_roots(folder: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "crt"));
    let mut found = Vec::new();
    for path in files {
        match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => found.extend(certificates.flatten()),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "certificate of a registry can't be read")
            }
        }
    }
    found
}

/// A connection with or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_configured_registries_need_no_tls() {
        let insecure = InsecureRegistries::new(["reg.example:5000", "plain.example", "10.0.0.0/8"]);
        for host in [
            "localhost:5000",
            "127.0.0.9",
            "[::1]:80",
            "reg.example:5000",
            "plain.example:1",
            "10.2.3.4:5000",
        ] {
            assert!(insecure.allows(host), "{host}");
        }
        for host in ["docker.io", "reg.example", "11.0.0.1:5000", "localhost.example"] {
            assert!(!insecure.allows(host), "{host}");
        }
    }
}
