//! TLS between nodes: configurations from the node's identity, exchanged while connections live when the certificate is renewed.

use super::files::NodeIdentity;
use super::{IdentityError, ca};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::sync::{Arc, PoisonError, RwLock};

/// The identity that new connections take; shared by server, clients and renewal.
#[derive(Clone)]
pub struct Credentials {
    current: Arc<RwLock<Arc<Tls>>>,
}

/// Everything made from one certificate.
pub struct Tls {
    /// The identity.
    pub identity: NodeIdentity,
    /// For connections that others open.
    pub server: Arc<ServerConfig>,
    /// For connections that this node opens.
    pub client: Arc<ClientConfig>,
}

impl Credentials {
    /// Makes TLS of an identity.
    pub fn new(identity: NodeIdentity) -> Result<Self, IdentityError> {
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(Tls::new(identity)?))) })
    }

    /// What new connections take.
    pub fn current(&self) -> Arc<Tls> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a renewed certificate.
    pub fn replace(&self, identity: NodeIdentity) -> Result<(), IdentityError> {
        let fresh = Arc::new(Tls::new(identity)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

fn failed(act: &'static str) -> impl Fn(rustls::Error) -> IdentityError {
    move |cause| IdentityError::Tls { act, cause }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(root_pem: &str) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca::der_of(root_pem)?).map_err(failed("trust the cluster's CA"))?;
    Ok(roots)
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, IdentityError> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed("configure TLS 1.3"))
}

impl Tls {
    fn new(identity: NodeIdentity) -> Result<Self, IdentityError> {
        let unreadable = |e: rustls::pki_types::pem::Error| IdentityError::Unreadable(e.to_string());
        let chain = vec![ca::der_of(&identity.certificate_pem)?, ca::der_of(&identity.root_pem)?];
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(unreadable)?;
        let roots = Arc::new(roots(&identity.root_pem)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| IdentityError::Unreadable(e.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed("configure TLS 1.3"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(failed("take the node's certificate"))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = client_builder()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(failed("take the node's certificate"))?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would keep the role of the certificate that it began with.
        client.resumption = rustls::client::Resumption::disabled();
        server.send_tls13_tickets = 0;
        Ok(Self { identity, server: Arc::new(server), client: Arc::new(client) })
    }
}

/// For a joiner that has the CA's certificate and no certificate of its own.
pub fn joiner_config(root_pem: &str) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client_builder()?.with_root_certificates(roots(root_pem)?).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// For fetching the CA's certificate, whose digest the caller then checks: nothing else may go over such a connection.
pub fn unverified_config() -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts every certificate; the handshake's signature is still checked.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
