//! The certificate authority: makes itself, signs requests of nodes.

use super::{BACKDATE, IdentityError, random, role_unit};
use gantry_model::id::{ClusterId, NodeId};
use gantry_model::node::{NodeRole, TlsInfo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of the CA, as SwarmKit has it.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// The authority with its key; lives in the replicated state.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The certificate.
    pub root_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn failed(act: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
    move |cause| IdentityError::Certificate { act, cause }
}

impl Authority {
    /// Makes a new authority.
    pub fn generate(now: SystemTime) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(failed("make the key of the certificate authority"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "swarm-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now - BACKDATE);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now + CA_LIFE);
        params.serial_number = Some(serial()?);
        let certificate = params.self_signed(&key).map_err(failed("sign the certificate authority"))?;
        Ok(Self { root_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Takes an authority out of the store.
    pub fn from_parts(root_pem: String, key_pem: String) -> Self {
        Self { root_pem, key_pem }
    }

    /// The key, for the store.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate's DER.
    pub fn root_der(&self) -> Result<CertificateDer<'static>, IdentityError> {
        der_of(&self.root_pem)
    }

    /// Signs a node's request. Of the request only the public key is taken; everything else is ours.
    pub fn sign(
        &self,
        csr_pem: &str,
        node: &NodeId,
        role: NodeRole,
        cluster: &ClusterId,
        now: SystemTime,
        life: Duration,
    ) -> Result<String, IdentityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(failed("read the certificate request"))?;
        let key =
            KeyPair::from_pem(&self.key_pem).map_err(failed("read the key of the certificate authority"))?;
        let issuer = Issuer::from_ca_cert_pem(&self.root_pem, key)
            .map_err(failed("read the certificate authority"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, cluster.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, role_unit(role));
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.subject_alt_names = [role_unit(role), node.as_str()]
            .into_iter()
            .map(|name| name.try_into().map(SanType::DnsName))
            .collect::<Result<_, _>>()
            .map_err(failed("name the node in its certificate"))?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now - BACKDATE);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now + life);
        params.serial_number = Some(serial()?);
        let certificate =
            params.signed_by(&request.public_key, &issuer).map_err(failed("sign the certificate"))?;
        Ok(certificate.pem())
    }

    /// The public parts that the API shows.
    pub fn tls_info(&self) -> Result<TlsInfo, IdentityError> {
        tls_info(&self.root_pem)
    }
}

/// The public parts of a CA certificate.
pub fn tls_info(root_pem: &str) -> Result<TlsInfo, IdentityError> {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let der = der_of(root_pem)?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|e| IdentityError::Unreadable(e.to_string()))?;
    Ok(TlsInfo {
        trust_root: root_pem.to_owned(),
        cert_issuer_subject: base64.encode(certificate.subject().as_raw()),
        cert_issuer_public_key: base64.encode(certificate.public_key().raw),
    })
}

/// A fresh key and the request for a certificate over it.
pub fn request() -> Result<(String, String), IdentityError> {
    let key = KeyPair::generate().map_err(failed("make the key of the node"))?;
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .map_err(failed("make the certificate request"))?;
    Ok((key.serialize_pem(), csr.pem().map_err(failed("print the certificate request"))?))
}

/// The first certificate of a PEM text.
pub fn der_of(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| IdentityError::Unreadable(e.to_string()))
}

/// Positive, 127 bits: RFC 5280, 4.1.2.2.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// rcgen counts in the types of another crate; from the epoch on both agree.
fn since_epoch(instant: SystemTime) -> Duration {
    instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Subject;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_signed_certificate_says_who_the_node_is_whatever_was_asked() {
        let now = SystemTime::now();
        let authority = Authority::generate(now).expect("authority");
        let (_, csr) = request().expect("request");
        let node = NodeId::from_random([3; 17]);
        let cluster = ClusterId::from_random([4; 17]);
        let pem = authority.sign(&csr, &node, NodeRole::Manager, &cluster, now, 90 * DAY).expect("sign");
        let subject = Subject::of_der(&der_of(&pem).expect("der")).expect("subject");
        assert_eq!(
            (subject.node_id.clone(), subject.role, subject.cluster_id.clone()),
            (node, NodeRole::Manager, cluster)
        );
        let renewal = subject.renew_at(1.0).duration_since(now).expect("later");
        assert!(renewal > 40 * DAY && renewal <= 61 * DAY, "{renewal:?}");
    }

    #[test]
    fn garbage_is_no_request() {
        let authority = Authority::generate(SystemTime::now()).expect("authority");
        let refused = authority.sign(
            "hello",
            &NodeId::from_random([3; 17]),
            NodeRole::Worker,
            &ClusterId::default(),
            SystemTime::now(),
            DAY,
        );
        assert!(refused.is_err());
    }

    #[test]
    fn the_public_parts_are_those_of_the_root() {
        let authority = Authority::generate(SystemTime::now()).expect("authority");
        let info = authority.tls_info().expect("info");
        assert!(info.trust_root.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!info.cert_issuer_subject.is_empty() && !info.cert_issuer_public_key.is_empty());
    }
}
