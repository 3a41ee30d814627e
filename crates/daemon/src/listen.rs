//! The sockets on which the API is served: unix sockets with Docker's permissions, TCP behind mutual TLS.

use crate::settings::{Host, TlsFiles};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

/// Why the API cannot be served on an address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A socket or its file.
    #[error("{act} {address}")]
    Socket {
        /// What was tried.
        act: &'static str,
        /// Where.
        address: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another daemon answers there.
    #[error("listen on {}: another process serves this socket", .0.display())]
    Taken(PathBuf),
    /// A certificate or key cannot be read.
    #[error("read {what} from {}", path.display())]
    Pem {
        /// Certificate, key or CA.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The certificates do not fit together.
    #[error("set up TLS with {}", path.display())]
    Tls {
        /// The daemon's certificate.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The CA's certificates are unusable.
    #[error("trust the clients' CA {}", path.display())]
    Verifier {
        /// The CA's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// One open address.
pub enum Listener {
    /// Unix socket; the file is removed at the end.
    Unix(UnixListener, SocketFile),
    /// TCP behind TLS.
    Tls(TcpListener, TlsAcceptor),
}

/// The file of a unix socket.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is gone already is what was wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens an address.
pub async fn open(host: &Host, tls: Option<&TlsFiles>) -> Result<Listener, ListenError> {
    match (host, tls) {
        (Host::Unix(path), _) => unix(path).await,
        (Host::Tcp(address), Some(files)) => {
            let acceptor = acceptor(files)?;
            let listener = TcpListener::bind(address).await.map_err(socket("listen on", address))?;
            Ok(Listener::Tls(listener, acceptor))
        }
        // The settings refuse this before; without certificates nothing is opened.
        (Host::Tcp(address), None) => {
            let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            Err(socket("listen without TLS on", address)(source))
        }
    }
}

fn socket(act: &'static str, address: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> ListenError {
    let address = address.to_string();
    move |source| ListenError::Socket { act, address, source }
}

/// Binds a unix socket: beside it first and renamed over the old one, so that no client meets it with wrong permissions.
async fn unix(path: &Path) -> Result<Listener, ListenError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::Taken(path.to_owned()));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(socket("make the folder of", path.display()))?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(socket("listen on", path.display()))?;
    let group = docker_group();
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::os::unix::fs::chown(&fresh, None, group).map_err(socket("set the group of", path.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))
        .map_err(socket("set the permissions of", path.display()))?;
    std::fs::rename(&fresh, path).map_err(socket("rename into place", path.display()))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

/// The group `docker`, whose members may use the socket.
fn docker_group() -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.starts_with("docker:"))?;
    line.split(':').nth(2)?.parse().ok()
}

/// TLS that takes only clients with a certificate of the CA.
fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ListenError> {
    let pem = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ListenError::Pem { what, path, source }
    };
    let certs = |what: &'static str, path: &Path| -> Result<Vec<CertificateDer<'static>>, ListenError> {
        CertificateDer::pem_file_iter(path)
            .map_err(pem(what, path))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(pem(what, path))
    };
    let tls = |source| ListenError::Tls { path: files.cert.clone(), source };
    let mut roots = RootCertStore::empty();
    for cert in certs("the CA of clients", &files.ca)? {
        roots.add(cert).map_err(tls)?;
    }
    let chain = certs("the certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem("the key", &files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|source| ListenError::Verifier { path: files.ca.clone(), source })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_respected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let host = Host::Unix(path.clone());
        let first = open(&host, None).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert!(mode & 0o007 == 0, "{mode:o}");
        assert!(matches!(open(&host, None).await, Err(ListenError::Taken(_))));
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn tcp_without_certificates_is_refused() {
        assert!(open(&Host::Tcp("127.0.0.1:0".into()), None).await.is_err());
    }
}
