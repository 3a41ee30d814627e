//! Registries as this node is configured to reach them: which need no valid certificate, which have a private CA, which
//! mirrors stand before Docker Hub, and which proxies are between.

use std::path::PathBuf;
use std::time::Duration;

use gantry_model::reference::DEFAULT_DOMAIN;

use super::insecure::is_loopback;
use super::{InsecureRegistries, Proxies, trust};

/// Where an administrator puts the CA of a private registry, and Docker's place for the same.
const CERTIFICATES: [&str; 2] = ["/etc/gantry/certs.d", "/etc/docker/certs.d"];
/// Docker Hub's name in references is not its API's host.
const HUB: &str = "registry-1.docker.io";

/// How registries are reached from here.
#[derive(Clone, Debug)]
pub struct Registries {
    /// Registries that may have an invalid certificate or none.
    pub insecure: InsecureRegistries,
    /// Folders that have for each registry a folder `HOST[:PORT]` with its CA (`*.crt`) and with this node's
    /// certificate (`NAME.cert` and `NAME.key`).
    pub certificates: Vec<PathBuf>,
    /// Asked before Docker Hub, in this order.
    pub mirrors: Vec<Mirror>,
    /// Between this node and registries.
    pub proxies: Proxies,
    /// How long an answer may take.
    pub patience: Patience,
}

impl Default for Registries {
    fn default() -> Registries {
        Registries {
            insecure: InsecureRegistries::default(),
            certificates: CERTIFICATES.map(PathBuf::from).to_vec(),
            mirrors: Vec::new(),
            proxies: Proxies::default(),
            patience: Patience::default(),
        }
    }
}

/// How long a registry may take before it counts as broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, and again for its TLS handshake.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// For an upload to move on, and for the answer when all is sent: the registry hashes the blob meanwhile.
    pub upload: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let seconds = Duration::from_secs;
        Patience { connect: seconds(15), answer: seconds(60), upload: seconds(300) }
    }
}

/// A registry that has copies of Docker Hub's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    plain: bool,
}

/// A mirror that is not written as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Neither http nor https.
    #[error("registry mirror {0:?}: expected http://HOST[:PORT] or https://HOST[:PORT]")]
    Scheme(String),
    /// More than an address.
    #[error("registry mirror on {0:?}: only an address is expected, without user, path and query")]
    Rest(String),
}

impl Mirror {
    /// Reads `http[s]://host[:port][/]`, as in Docker's `registry-mirrors`.
    pub fn parse(text: &str) -> Result<Mirror, MirrorError> {
        let (plain, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(MirrorError::Scheme(without_user(text).to_owned())),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let valid = host.parse::<http::uri::Authority>().is_ok_and(|found| !found.host().is_empty());
        if !valid || host.contains(['/', '?', '#', '@']) {
            return Err(MirrorError::Rest(without_user(rest).to_owned()));
        }
        Ok(Mirror { host: host.to_owned(), plain })
    }
}

/// A password is not for messages.
fn without_user(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

impl std::fmt::Display for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/", if self.plain { "http" } else { "https" }, self.host)
    }
}

/// How the connection to a registry is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// TLS with a valid certificate.
    Verified,
    /// TLS with any certificate; plain http if the registry has no TLS.
    Unverified,
    /// Plain http.
    Plain,
}

/// One place where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`.
    pub host: String,
    pub security: Security,
}

impl Registries {
    /// The registry itself.
    pub(crate) fn origin(&self, domain: &str) -> Endpoint {
        let host = if domain == DEFAULT_DOMAIN { HUB } else { domain };
        let security = if self.insecure.names(domain) || self.insecure.names(host) {
            Security::Unverified
        } else if is_loopback(host) && !trust::has_authority(&self.certificates, host) {
            // Who puts a CA there for loopback wants to have it verified.
            Security::Unverified
        } else {
            Security::Verified
        };
        Endpoint { host: host.to_owned(), security }
    }

    /// What is asked before it when something is pulled.
    pub(crate) fn before(&self, domain: &str) -> Vec<Endpoint> {
        let mirrors = self.mirrors.iter().filter(|_| domain == DEFAULT_DOMAIN);
        let endpoint = |mirror: &Mirror| Endpoint {
            host: mirror.host.clone(),
            security: match mirror.plain {
                true => Security::Plain,
                false => self.origin(&mirror.host).security,
            },
        };
        mirrors.map(endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_addresses_only() {
        let mirror = Mirror::parse("https://mirror.example:5000/").expect("mirror");
        assert_eq!(mirror.to_string(), "https://mirror.example:5000/");
        for wrong in ["mirror.example", "ftp://mirror.example", "https://m/path", "https://m?x=1", "http://"]
        {
            assert!(Mirror::parse(wrong).is_err(), "{wrong}");
        }
        let error = Mirror::parse("https://user:geheim@mirror.example").expect_err("user").to_string();
        assert!(!error.contains("geheim") && error.contains("mirror.example"), "{error}");
    }

    #[test]
    fn only_docker_hub_has_mirrors() {
        let mirrors = ["http://one:5000", "https://two", "https://three"]
            .map(|text| Mirror::parse(text).expect("mirror"));
        let insecure = InsecureRegistries::new(["two"]);
        let registries = Registries { mirrors: mirrors.to_vec(), insecure, ..Registries::default() };
        let before = registries.before("docker.io");
        let found: Vec<_> = before.iter().map(|found| (found.host.as_str(), found.security)).collect();
        let expected =
            [("one:5000", Security::Plain), ("two", Security::Unverified), ("three", Security::Verified)];
        assert_eq!(found, expected);
        assert!(registries.before("quay.io").is_empty());
        assert_eq!(registries.origin("docker.io").host, HUB);
    }

    #[test]
    fn a_ca_for_loopback_asks_for_verification() {
        let folder = tempfile::tempdir().expect("folder");
        let registries = Registries { certificates: vec![folder.path().to_owned()], ..Registries::default() };
        assert_eq!(registries.origin("localhost:5000").security, Security::Unverified);
        std::fs::create_dir(folder.path().join("localhost:5000")).expect("folder");
        assert_eq!(registries.origin("localhost:5000").security, Security::Unverified);
        std::fs::write(folder.path().join("localhost:5000/ca.crt"), "").expect("write");
        assert_eq!(registries.origin("localhost:5000").security, Security::Verified);
        assert_eq!(registries.origin("reg.example").security, Security::Verified);
    }
}
