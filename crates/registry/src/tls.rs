//! TLS of the registry: its certificate, taken anew when the files change, and a listener that shakes hands beside the
//! connections that wait.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::stamp::Stamp;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may be under way.
const HANDSHAKES: usize = 128;

/// A certificate that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not readable, or not PEM.
    #[error("read {what} in {}", path.display())]
    Pem {
        /// What was expected.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// A file that can't be looked at.
    #[error("look at {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Certificate and key do not fit, or are of an unknown kind.
    #[error("use the certificate {} with the key {}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// TLS can't be set up at all.
    #[error("configure TLS")]
    Setup(#[source] rustls::Error),
}

/// The registry's certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads a certificate (with those between it and the authority) and its key.
    pub fn open(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let loaded = Loaded { stamps: files.stamps()?, key: files.load()? };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Renewed { files, loaded: Mutex::new(loaded) }));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config) })
    }

    /// Takes connections of a listener, and gives those whose handshake is done.
    pub fn listen(&self, listener: TcpListener) -> io::Result<TlsListener> {
        let address = listener.local_addr()?;
        let (done, incoming) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let task = tokio::spawn(shake_hands(listener, acceptor, done)).abort_handle();
        Ok(TlsListener { incoming, address, task })
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn stamps(&self) -> Result<[Stamp; 2], TlsError> {
        let stamp =
            |path: &Path| Stamp::of(path).map_err(|source| TlsError::File { path: path.to_owned(), source });
        Ok([stamp(&self.certificate)?, stamp(&self.key)?])
    }

    fn load(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let what = "the certificate";
        let failed = |source| TlsError::Pem { what, path: self.certificate.clone(), source };
        let chain = CertificateDer::pem_file_iter(&self.certificate).map_err(failed)?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(failed)?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let what = "the private key";
        let key = key.map_err(|source| TlsError::Pem { what, path: self.key.clone(), source })?;
        let pair =
            |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(pair)?;
        Ok(Arc::new(certified))
    }
}

#[derive(Debug)]
struct Loaded {
    stamps: [Stamp; 2],
    key: Arc<CertifiedKey>,
}

/// Gives the certificate that is in the files now; the last good one if that can't be used.
#[derive(Debug)]
struct Renewed {
    files: Files,
    loaded: Mutex<Loaded>,
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is away for a moment is about to be replaced.
        if let Some(stamps) = self.files.stamps().ok().filter(|stamps| *stamps != loaded.stamps) {
            loaded.stamps = stamps;
            match self.files.load() {
                Ok(key) => {
                    tracing::info!(path = %self.files.certificate.display(), "the registry's certificate was renewed");
                    loaded.key = key;
                }
                Err(error) => {
                    tracing::error!(
                        error = crate::problem::chain(&error),
                        "the former certificate stays in use"
                    );
                }
            }
        }
        Some(Arc::clone(&loaded.key))
    }
}

/// Connections that are ready for requests.
#[derive(Debug)]
pub struct TlsListener {
    incoming: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    task: AbortHandle,
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.incoming.recv().await {
            Some(connection) => connection,
            // The task ends with the listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn shake_hands(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() >= HANDSHAKES {
            under_way.join_next().await;
        }
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::error!(%error, "accept a connection to the registry");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
            Some(_) = under_way.join_next() => continue,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "a connection to the registry is gone already");
            continue;
        }
        let (acceptor, done) = (acceptor.clone(), done.clone());
        under_way.spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake with a client"),
                Err(_) => tracing::debug!(%peer, "TLS handshake with a client took too long"),
            }
        });
    }
}
