//! Opening the connection to a daemon: unix socket, TCP or TLS.

use crate::error::{Error, Result};
use crate::host::{Host, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Any connected stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a daemon.
pub async fn connect(host: &Host) -> Result<Box<dyn Stream>> {
    let fail = |source| Error::Connect { host: host.to_string(), source };
    match host {
        Host::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(fail)?)),
        Host::Tcp { name, port, tls } => {
            let stream = TcpStream::connect((name.as_str(), *port)).await.map_err(fail)?;
            stream.set_nodelay(true).map_err(fail)?;
            let Some(tls) = tls else {
                return Ok(Box::new(stream));
            };
            let server = ServerName::try_from(name.clone())
                .map_err(|_| Error::invalid(format!("{name:?} is no name that a certificate can have")))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config(tls)?));
            Ok(Box::new(connector.connect(server, stream).await.map_err(fail)?))
        }
    }
}

fn config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Tls { act: "choose the TLS version".into(), source })?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots(tls)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| Error::invalid(format!("{} holds no private key: {e}", key.display())))?;
            builder.with_client_auth_cert(certificates(cert)?, key_der).map_err(|source| Error::Tls {
                act: format!("use the certificate {} with the key {}", cert.display(), key.display()),
                source,
            })
        }
    }
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let certificates = match &tls.ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(certificates);
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| Error::Io {
        act: format!("read certificates of {}", path.display()),
        source: io::Error::other(e),
    })
}

/// `--tls` without `--tlsverify`: encrypted, but the daemon may be anybody. Docker offers it, so it is offered.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
