//! Identity: the cluster's own certificate authority, join tokens, the node's certificate, and TLS made from them.
//!
//! A node's certificate says who it is: common name = node id, organisational unit = role, organisation = cluster id. Its DNS names
//! are the role and the node id, so that a caller can ask for "a manager" or for one node by the ordinary check of the server's name.

pub mod ca;
pub mod files;
pub mod tls;
pub mod token;
pub mod vault;

use gantry_model::id::{ClusterId, NodeId};
use gantry_model::node::NodeRole;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Clocks of nodes differ: certificates are valid from an hour before they were made.
pub const BACKDATE: Duration = Duration::from_secs(3600);

/// Why a certificate, key or token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// rcgen refused.
    #[error("{act}")]
    Certificate {
        /// What was tried.
        act: &'static str,
        /// Why not.
        #[source]
        cause: rcgen::Error,
    },
    /// rustls refused.
    #[error("{act}")]
    Tls {
        /// What was tried.
        act: &'static str,
        /// Why not.
        #[source]
        cause: rustls::Error,
    },
    /// A certificate that cannot be read, or lacks a field.
    #[error("read the certificate: {0}")]
    Unreadable(String),
    /// A token that is none.
    #[error("invalid join token")]
    Token,
    /// The cluster at this address is another one than the token's.
    #[error("remote CA does not match fingerprint. Expected: {expected}, got: {found}")]
    Fingerprint {
        /// From the token.
        expected: String,
        /// From the certificate.
        found: String,
    },
    /// A file.
    #[error("{act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// No randomness.
    #[error("draw random bytes")]
    Random(#[source] getrandom::Error),
}

/// The words for roles in certificates, as SwarmKit has them.
pub fn role_unit(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => "swarm-manager",
        NodeRole::Worker => "swarm-worker",
    }
}

/// Who a certificate says that its holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The node.
    pub node_id: NodeId,
    /// Its role.
    pub role: NodeRole,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// From when.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl Subject {
    /// Reads the subject of a certificate that TLS has already verified.
    pub fn of_der(der: &[u8]) -> Result<Self, IdentityError> {
        let unreadable = |what: &str| IdentityError::Unreadable(what.to_owned());
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| IdentityError::Unreadable(e.to_string()))?;
        let subject = certificate.subject();
        let first = |mut values: Box<dyn Iterator<Item = Option<String>> + '_>| values.next().flatten();
        let common = first(Box::new(subject.iter_common_name().map(|v| v.as_str().ok().map(str::to_owned))));
        let unit =
            first(Box::new(subject.iter_organizational_unit().map(|v| v.as_str().ok().map(str::to_owned))));
        let organisation =
            first(Box::new(subject.iter_organization().map(|v| v.as_str().ok().map(str::to_owned))));
        let role = match unit.as_deref() {
            Some("swarm-manager") => NodeRole::Manager,
            Some("swarm-worker") => NodeRole::Worker,
            _ => return Err(unreadable("its organisational unit is no role")),
        };
        let node_id = common
            .and_then(|text| NodeId::parse(&text).ok())
            .ok_or_else(|| unreadable("its common name is no node id"))?;
        let cluster_id = organisation
            .and_then(|text| ClusterId::parse(&text).ok())
            .ok_or_else(|| unreadable("its organisation is no cluster id"))?;
        let validity = certificate.validity();
        Ok(Self {
            node_id,
            role,
            cluster_id,
            not_before: instant(validity.not_before.timestamp()),
            not_after: instant(validity.not_after.timestamp()),
        })
    }

    /// When the certificate should be replaced: at half of its life plus up to a sixth, which is before two thirds.
    pub fn renew_at(&self, jitter: f64) -> SystemTime {
        let start = self.not_before + BACKDATE;
        let life = self.not_after.duration_since(start).unwrap_or_default();
        start + life.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 6.0)
    }
}

fn instant(unix: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix).unwrap_or(0))
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(IdentityError::Random)?;
    Ok(bytes)
}
