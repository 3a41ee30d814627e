//! Connections: TCP, through a proxy where one is configured, with TLS above.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::proxy::Proxy;
use super::registries::{Endpoint, Registries, Security};
use super::trust::{Trust, TrustError};

/// The longest head of a proxy's answer.
const MAX_PROXY_HEAD: usize = 16 * 1024;

/// A connection that did not come about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No host in the address, or one that can't be in a certificate.
    #[error("{0:?} is no address of a host")]
    Address(String),
    /// The system's refusal: no such name, refused, no route.
    #[error(transparent)]
    Reach(Arc<io::Error>),
    /// The proxy is not there.
    #[error("reach proxy {proxy}")]
    Proxy {
        /// The proxy, without password.
        proxy: String,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// The proxy does not connect to there.
    #[error("proxy {proxy} refused a tunnel to {target}: {answer}")]
    Tunnel {
        /// The proxy, without password.
        proxy: String,
        /// Where to.
        target: String,
        /// The first line of its answer.
        answer: String,
    },
    /// Nothing came in time.
    #[error("{step} with {host}: no answer within {seconds} s")]
    Silent {
        /// What was tried.
        step: &'static str,
        /// With whom.
        host: String,
        /// How long.
        seconds: u64,
    },
    /// The server is no TLS server.
    #[error(
        "{host} gave an answer that is not TLS; a registry without TLS must be among the insecure registries of the daemon (--insecure-registry {host})"
    )]
    NotTls {
        /// The server.
        host: String,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// The authority is not known here.
    #[error(
        "the certificate of {host} can't be trusted: certificate signed by unknown authority (put the authority's certificate into /etc/gantry/certs.d/{host}/ca.crt)"
    )]
    Authority {
        /// The server.
        host: String,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// Any other failure of the handshake: wrong name, expired, refused.
    #[error("TLS handshake with {host}")]
    Handshake {
        /// The server.
        host: String,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// Certificates in the registry's folder.
    #[error("set up TLS for {host}")]
    Trust {
        /// The registry.
        host: String,
        /// The cause.
        #[source]
        source: Arc<TrustError>,
    },
}

impl ConnectError {
    /// A connection that broke or timed out may succeed the next time; a refused one, a bad certificate or name will
    /// not, and the user is better told at once.
    pub(super) fn worth_a_retry(&self) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, TimedOut};
        match self {
            ConnectError::Reach(source) | ConnectError::Handshake { source, .. } => {
                matches!(source.kind(), ConnectionAborted | ConnectionReset | TimedOut)
            }
            _ => false,
        }
    }

    fn handshake(host: &str, error: io::Error) -> ConnectError {
        let host = host.to_owned();
        let cause = tls_cause(&error).cloned();
        let source = Arc::new(error);
        match cause {
            // An authority of the same name with another key makes a bad signature.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => ConnectError::Authority { host, source },
            Some(rustls::Error::InvalidMessage(_)) => ConnectError::NotTls { host, source },
            _ => ConnectError::Handshake { host, source },
        }
    }
}

/// What TLS itself says, as opposed to the connection below it.
fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|cause| cause.downcast_ref())
}

type Result<T> = std::result::Result<T, ConnectError>;

/// Opens connections for the client of one registry.
pub(super) struct Connector {
    registries: Arc<Registries>,
    endpoint: Endpoint,
    /// For the registry itself.
    own: OnceLock<Arc<ClientConfig>>,
    /// For token servers and storage that the registry names: without this node's certificate.
    others: OnceLock<Arc<ClientConfig>>,
    /// For others that are insecure registries too.
    insecure: OnceLock<Arc<ClientConfig>>,
    /// What a server last said against a connection that seemed to stand.
    late: LateRefusal,
}

/// In TLS 1.3 a client's handshake ends before the server has looked at its certificate: a refusal arrives on the open connection, where the
/// HTTP client knows only that it is gone.
type LateRefusal = Arc<Mutex<Option<ConnectError>>>;

/// Where a connection leads.
struct Target<'a> {
    tls: bool,
    host: &'a str,
    port: u16,
    /// `host[:port]` as in the address.
    authority: &'a str,
}

impl<'a> Target<'a> {
    fn of(uri: &'a Uri) -> Result<Target<'a>> {
        let authority = uri.authority().ok_or_else(|| ConnectError::Address(uri.path().to_owned()))?;
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(ConnectError::Address(authority.to_string()));
        }
        let tls = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Target { tls, host, port, authority: authority.as_str() })
    }
}

impl Connector {
    pub fn new(endpoint: Endpoint, registries: Arc<Registries>) -> Connector {
        let (own, others, insecure, late) = Default::default();
        Connector { registries, endpoint, own, others, insecure, late }
    }

    /// What a server said against a connection after its handshake, once.
    pub fn late_refusal(&self) -> Option<ConnectError> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The proxy that plain requests to this address go through, and what it wants to see.
    pub fn plain_proxy(&self, uri: &Uri) -> Option<HeaderValue> {
        let target = Target::of(uri).ok().filter(|target| !target.tls)?;
        self.registries.proxies.choose(false, target.host, target.port)?.authorization.clone()
    }

    /// Opens a connection for requests to this address.
    pub async fn open(&self, uri: &Uri) -> Result<TokioIo<Stream>> {
        let target = Target::of(uri)?;
        let proxy = self.registries.proxies.choose(target.tls, target.host, target.port);
        let io = match proxy {
            None => Box::new(self.tcp(target.host, target.port).await?),
            Some(proxy) => self.through(proxy, &target).await?,
        };
        if !target.tls {
            return Ok(TokioIo::new(Stream { io, proxied: proxy.is_some(), refusal: None }));
        }
        let io = self.tls(io, target.host, target.authority, self.config_for(&target)?).await?;
        let refusal = Some((target.authority.to_owned(), Arc::clone(&self.late)));
        Ok(TokioIo::new(Stream { io, proxied: false, refusal }))
    }

    /// Whether a registry that may do without TLS has it.
    pub async fn has_tls(&self, host: &str) -> Result<bool> {
        let address = format!("https://{host}/");
        let uri: Uri = address.parse().map_err(|_| ConnectError::Address(host.to_owned()))?;
        match self.open(&uri).await {
            Ok(_) => Ok(true),
            Err(ConnectError::Handshake { source, .. }) => Ok(tls_cause(&source).is_some()),
            // Plain http answers in plain text, or waits for the rest of what it takes for a request.
            Err(ConnectError::NotTls { .. } | ConnectError::Silent { step: HANDSHAKE, .. }) => Ok(false),
            // Plain http may be at another port or go through another proxy; if not, it has the same to tell.
            Err(ConnectError::Reach(_) | ConnectError::Proxy { .. } | ConnectError::Tunnel { .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream> {
        let stream = TcpStream::connect((host, port));
        let stream = self.within("connection", host, stream).await?;
        let stream = stream.map_err(|error| ConnectError::Reach(Arc::new(error)))?;
        stream.set_nodelay(true).map_err(|error| ConnectError::Reach(Arc::new(error)))?;
        Ok(stream)
    }

    async fn within<F: Future>(&self, step: &'static str, host: &str, work: F) -> Result<F::Output> {
        let limit = self.registries.patience.connect;
        let silent = |_| ConnectError::Silent { step, host: host.to_owned(), seconds: whole_seconds(limit) };
        tokio::time::timeout(limit, work).await.map_err(silent)
    }

    async fn tls(
        &self,
        io: Box<dyn Io>,
        host: &str,
        shown: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Box<dyn Io>> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| ConnectError::Address(host.to_owned()))?;
        let session = TlsConnector::from(config).connect(name, io);
        let session = self.within(HANDSHAKE, shown, session).await?;
        Ok(Box::new(session.map_err(|error| ConnectError::handshake(shown, error))?))
    }

    /// A connection to the proxy; for TLS a tunnel through it.
    async fn through(&self, proxy: &Proxy, target: &Target<'_>) -> Result<Box<dyn Io>> {
        let failed = |source| ConnectError::Proxy { proxy: proxy.to_string(), source };
        let tcp = self.tcp(&proxy.host, proxy.port).await.map_err(|error| match error {
            ConnectError::Reach(source) => failed(source),
            other => other,
        })?;
        let mut io: Box<dyn Io> = Box::new(tcp);
        if proxy.tls {
            let config = self.config(&self.others, Trust::verified)?;
            io = self.tls(io, &proxy.host, &proxy.host, config).await?;
        }
        if target.tls {
            let answer = self.within("tunnel", &proxy.to_string(), tunnel(&mut io, proxy, target)).await?;
            let answer = answer.map_err(|error| failed(Arc::new(error)))?;
            // HTTP/1.1 200 Connection established
            if !answer.split(' ').nth(1).is_some_and(|status| status.len() == 3 && status.starts_with('2')) {
                let target = format!("{}:{}", target.host, target.port);
                return Err(ConnectError::Tunnel { proxy: proxy.to_string(), target, answer });
            }
        }
        Ok(io)
    }

    fn config_for(&self, target: &Target<'_>) -> Result<Arc<ClientConfig>> {
        let is_registry = target.authority.eq_ignore_ascii_case(&self.endpoint.host);
        match (is_registry, self.endpoint.security) {
            (true, Security::Unverified) => self.config(&self.own, |trust, _| trust.unverified(true)),
            (true, _) => self.config(&self.own, |trust, _| trust.verified(true)),
            (false, _) if self.registries.insecure.allows(target.authority) => {
                self.config(&self.insecure, Trust::unverified)
            }
            (false, _) => self.config(&self.others, Trust::verified),
        }
    }

    fn config(
        &self,
        place: &OnceLock<Arc<ClientConfig>>,
        make: impl FnOnce(&Trust, bool) -> std::result::Result<Arc<ClientConfig>, TrustError>,
    ) -> Result<Arc<ClientConfig>> {
        if let Some(config) = place.get() {
            return Ok(Arc::clone(config));
        }
        let host = &self.endpoint.host;
        let made = Trust::read(&self.registries.certificates, host).and_then(|trust| make(&trust, false));
        let made =
            made.map_err(|source| ConnectError::Trust { host: host.to_owned(), source: Arc::new(source) })?;
        Ok(Arc::clone(place.get_or_init(|| made)))
    }
}

const HANDSHAKE: &str = "TLS handshake";

pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().max(1)
}

/// Asks for a tunnel (RFC 9110, 9.3.6) and returns the first line of the answer.
async fn tunnel(io: &mut Box<dyn Io>, proxy: &Proxy, target: &Target<'_>) -> io::Result<String> {
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.to_owned() };
    let place = format!("{host}:{}", target.port);
    let mut head = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    io.write_all(&head).await?;
    io.flush().await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > MAX_PROXY_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of its answer does not end"));
        }
        answer.push(io.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    Ok(line.chars().filter(|c| !c.is_control()).take(200).collect())
}

/// What bytes go over.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection for requests.
pub(super) struct Stream {
    io: Box<dyn Io>,
    /// Whether requests are for a proxy, and so name their host.
    proxied: bool,
    /// The server, and where to note what it says against the connection.
    refusal: Option<(String, LateRefusal)>,
}

impl Stream {
    fn noted<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let (Poll::Ready(Err(error)), Some((host, late))) = (&done, &self.refusal)
            && let Some(cause) = tls_cause(error)
        {
            let source = io::Error::new(error.kind(), cause.clone());
            let refusal = ConnectError::handshake(host, source);
            *late.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        }
        done
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.noted(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The connector's own error behind the HTTP client's "client error (Connect)".
pub(super) fn cause_of(error: &(dyn StdError + 'static)) -> Option<ConnectError> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<ConnectError>() {
            return Some(found.clone());
        }
        next = cause.source();
    }
    None
}
