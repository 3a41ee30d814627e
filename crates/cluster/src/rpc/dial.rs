//! Opens connections to other nodes. The server's name in the certificate check is the role or the node that we want to reach.

use crate::identity::tls::Credentials;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gantry_model::id::NodeId;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made. Short, so that a path that has healed is found again within two seconds.
const CONNECT: Duration = Duration::from_secs(1);
/// A second SYN is sent so soon after the first, and so on: the kernel repeats a lost one only after one, three and seven seconds.
const AGAIN: Duration = Duration::from_millis(200);
/// A connection on which nothing is heard for this long, although we asked, is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Largest message: an assignment or a Raft entry with many secrets.
pub const LARGEST_MESSAGE: usize = 64 << 20;

/// Whom the certificate must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// Any manager of our cluster.
    Manager,
    /// One node.
    Node(NodeId),
}

impl Callee {
    fn name(&self) -> &str {
        match self {
            Self::Manager => "swarm-manager",
            Self::Node(id) => id.as_str(),
        }
    }
}

/// Opens connections with this node's certificate.
#[derive(Clone)]
pub struct Dialer {
    credentials: Credentials,
}

impl Dialer {
    /// A dialer that takes the current certificate for every new connection.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }

    /// A channel that connects when first used, and again when the connection broke.
    pub fn channel(&self, addr: &str, callee: &Callee) -> io::Result<Channel> {
        let credentials = self.credentials.clone();
        open(addr, callee, move || credentials.current().client.clone())
    }

    /// A connection that is made now.
    pub async fn connect(&self, addr: &str, callee: &Callee) -> io::Result<Channel> {
        let (endpoint, name) = target(addr, callee)?;
        let (config, target) = (self.credentials.current().client.clone(), addr.to_owned());
        let connector = tower::service_fn(move |_| {
            let (addr, name, config) = (target.clone(), name.clone(), config.clone());
            async move { connect(&addr, name, config).await.map(TokioIo::new) }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|e| io::Error::other(format!("connect to {addr}: {}", crate::error::chain(&e))))
    }
}

/// A channel with a fixed TLS configuration, for joiners.
pub fn channel_with(addr: &str, callee: &Callee, config: Arc<ClientConfig>) -> io::Result<Channel> {
    open(addr, callee, move || config.clone())
}

fn open(
    addr: &str,
    callee: &Callee,
    config: impl Fn() -> Arc<ClientConfig> + Clone + Send + 'static,
) -> io::Result<Channel> {
    let (endpoint, name) = target(addr, callee)?;
    let addr = addr.to_owned();
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let (addr, name, config) = (addr.clone(), name.clone(), config());
        async move { connect(&addr, name, config).await.map(TokioIo::new) }
    })))
}

fn target(addr: &str, callee: &Callee) -> io::Result<(Endpoint, ServerName<'static>)> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|e| invalid(format!("{addr} is no address: {e}")))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let name = ServerName::try_from(callee.name().to_owned())
        .map_err(|e| invalid(format!("{} is no node id: {e}", callee.name())))?;
    Ok((endpoint, name))
}

async fn connect(
    addr: &str,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream =
        reach(addr).await.map_err(|e| io::Error::new(e.kind(), format!("connect to {addr}: {e}")))?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("TLS handshake with {addr}: {e}")))
}

/// The first of several connections, begun one after the other while none of them is made. A refusal is final.
async fn reach(addr: &str) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    loop {
        attempts.push(TcpStream::connect(addr));
        tokio::select! {
            Some(made) = attempts.next() => return made,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
