//! Trust: the certificates that a registry may show, and the one that this node shows to it.
//!
//! Beside the host's trust roots there are those of the registry's own folder, as for Docker: `*.crt` are authorities,
//! `NAME.cert` with `NAME.key` is this node's certificate.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Certificates for a registry that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The folder can't be listed.
    #[error("read folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not PEM, or not readable.
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
    /// A file without any certificate.
    #[error("no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// A certificate without key.
    #[error(
        "missing key {} for client certificate {}; certificates of authorities have the extension .crt",
        key.display(),
        certificate.display()
    )]
    NoKey {
        /// What is expected.
        key: PathBuf,
        /// What is there.
        certificate: PathBuf,
    },
    /// Certificate and key that TLS refuses.
    #[error("use {}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// TLS can't be set up at all.
    #[error("configure TLS")]
    Setup(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

type Result<T> = std::result::Result<T, TrustError>;

/// Whether an administrator put an authority there for this registry.
pub(super) fn has_authority(folders: &[PathBuf], host: &str) -> bool {
    folders.iter().any(|folder| files(&folder.join(host), "crt").is_ok_and(|found| !found.is_empty()))
}

/// Whom to trust, and as who to appear.
pub(super) struct Trust {
    private: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    own: Option<Own>,
}

struct Own {
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Trust {
    /// Reads what there is for a registry.
    pub fn read(folders: &[PathBuf], host: &str) -> Result<Trust> {
        let mut trust = Trust { private: Vec::new(), roots: native_roots().clone(), own: None };
        for folder in folders.iter().map(|folder| folder.join(host)) {
            for path in files(&folder, "crt")? {
                for certificate in certificates("the certificate of an authority", &path)? {
                    let added = trust.roots.add(certificate.clone());
                    added.map_err(|source| TrustError::Refused { path: path.clone(), source })?;
                    trust.private.push(certificate);
                }
            }
            // TLS has one certificate to show: the first by name.
            let own = files(&folder, "cert")?.into_iter().next();
            if let Some(path) = own.filter(|_| trust.own.is_none()) {
                trust.own = Some(Own::read(path)?);
            }
        }
        Ok(trust)
    }

    /// TLS that verifies; with `appear` it shows this node's certificate if there is one.
    pub fn verified(&self, appear: bool) -> Result<Arc<ClientConfig>> {
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots.clone()), provider());
        let inner = match inner.build() {
            Ok(inner) => inner,
            Err(error) => return Err(TrustError::Setup(Arc::new(error))),
        };
        self.config(Arc::new(Verified { inner, private: self.private.clone() }), appear)
    }

    /// TLS that takes any certificate.
    pub fn unverified(&self, appear: bool) -> Result<Arc<ClientConfig>> {
        self.config(Arc::new(Unverified { provider: provider() }), appear)
    }

    fn config(&self, verifier: Arc<dyn ServerCertVerifier>, appear: bool) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError::Setup(Arc::new(error)))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match self.own.as_ref().filter(|_| appear) {
            Some(own) => builder
                .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
                .map_err(|source| TrustError::Refused { path: own.path.clone(), source })?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

impl Own {
    fn read(path: PathBuf) -> Result<Own> {
        let key_path = path.with_extension("key");
        if !key_path.exists() {
            return Err(TrustError::NoKey { key: key_path, certificate: path });
        }
        let chain = certificates("a client certificate", &path)?;
        let key = PrivateKeyDer::from_pem_file(&key_path);
        let key = key.map_err(|source| TrustError::Pem { what: "a private key", path: key_path, source })?;
        Ok(Own { path, chain, key })
    }
}

/// The files with this extension, by name; a folder that is not there has none.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let failed = |source| TrustError::Folder { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some(OsStr::new(extension)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |source| TrustError::Pem { what, path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<std::result::Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(TrustError::Empty(path.to_owned())) } else { Ok(found) }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// The host's trust roots are read once: it takes some milliseconds.
fn native_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::warn!(%error, "a trust root of the host can't be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

/// Verifies as usual, and takes a certificate that the administrator put there itself: `openssl req -x509` makes
/// authorities, which webpki refuses as certificates of servers though everybody uses them so.
#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    private: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.private.iter().any(|private| private == end_entity) {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return verify_dates(end_entity, now);
        }
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn verify_dates(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> std::result::Result<ServerCertVerified, rustls::Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match (now < from, now > to) {
        (true, _) => Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet)),
        (_, true) => Err(rustls::Error::InvalidCertificate(CertificateError::Expired)),
        _ => Ok(ServerCertVerified::assertion()),
    }
}

/// For registries that the administrator calls insecure.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
