//! Tokens: what their bearer may do, signed by an issuer (the distribution project's token authentication; JWT, RFC 7519).

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Wanted;

/// How far the clocks of issuer and registry may differ.
const LEEWAY: f64 = 60.0;
/// The longest token that is looked at.
const MAX_TOKEN: usize = 64 * 1024;

/// The issuer's certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not readable, or not PEM.
    #[error("read the certificate of the token issuer in {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// Nothing in it.
    #[error("neither a certificate nor a public key is in {}", .0.display())]
    Empty(PathBuf),
    /// A key that no signature here is verified by.
    #[error("{}: a key of RSA, of the curves P-256 or P-384, or of Ed25519 is expected", .0.display())]
    Kind(PathBuf),
    /// A text that can't stand in a challenge.
    #[error("{name} {value:?}: quotes, backslashes and control characters can't be in a challenge")]
    Text {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Tokens {
    realm: String,
    service: String,
    issuer: String,
    keys: Vec<Key>,
}

/// A public key of the issuer.
#[derive(Debug)]
struct Key {
    kind: Kind,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that have to be understood: there are none here (RFC 7515, 4.1.11).
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    #[serde(default)]
    access: Option<Vec<Grant>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Grant {
    r#type: String,
    name: String,
    #[serde(default)]
    actions: Option<Vec<String>>,
}

impl Tokens {
    /// Takes tokens of `issuer` for `service`, signed by one of the keys in a PEM file of certificates or public keys;
    /// clients get them at the address `realm`.
    pub fn open(
        realm: impl Into<String>,
        service: impl Into<String>,
        issuer: impl Into<String>,
        certificates: &Path,
    ) -> Result<Tokens, TokenError> {
        let (realm, service) = (quotable("realm", realm.into())?, quotable("service", service.into())?);
        Ok(Tokens { realm, service, issuer: issuer.into(), keys: read_keys(certificates)? })
    }

    /// What a client without the right token is told (RFC 6750, 3).
    pub(super) fn challenge(&self, scope: Option<&str>, error: Option<&str>) -> String {
        let mut text = format!("Bearer realm=\"{}\",service=\"{}\"", self.realm, self.service);
        for (name, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                text.push_str(&format!(",{name}=\"{value}\""));
            }
        }
        text
    }

    /// Refuses with RFC 6750's word for the reason.
    pub(super) fn verify(&self, token: &str, wanted: &Wanted) -> Result<(), &'static str> {
        self.verify_at(token, wanted, SystemTime::now())
    }

    fn verify_at(&self, token: &str, wanted: &Wanted, now: SystemTime) -> Result<(), &'static str> {
        let claims = self.claims(token).ok_or("invalid_token")?;
        let now = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let in_time = claims.exp + LEEWAY > now && claims.nbf.is_none_or(|from| from - LEEWAY <= now);
        let for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.service,
            Audience::Many(audiences) => audiences.contains(&self.service),
        };
        if !in_time || !for_us || claims.iss != self.issuer {
            return Err("invalid_token");
        }
        match grants(&claims, wanted) {
            true => Ok(()),
            false => Err("insufficient_scope"),
        }
    }

    /// The content of a token whose signature is right.
    fn claims(&self, token: &str) -> Option<Claims> {
        let token = Some(token).filter(|token| token.len() <= MAX_TOKEN)?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let (kind, algorithm) = algorithm(&header.alg).filter(|_| header.crit.is_none())?;
        let fitting = self.keys.iter().filter(|key| key.kind == kind);
        let verified = fitting
            .map(|key| UnparsedPublicKey::new(algorithm, &key.bytes))
            .any(|key| key.verify(signed.as_bytes(), &signature).is_ok());
        let claims = URL_SAFE_NO_PAD.decode(claims).ok().filter(|_| verified)?;
        serde_json::from_slice(&claims).ok()
    }
}

/// The key decides which algorithms may be meant: `none` and secrets shared with the issuer never are.
fn algorithm(name: &str) -> Option<(Kind, &'static dyn VerificationAlgorithm)> {
    Some(match name {
        "RS256" => (Kind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => (Kind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => (Kind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => (Kind::Rsa, &signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => (Kind::Rsa, &signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => (Kind::Rsa, &signature::RSA_PSS_2048_8192_SHA512),
        "ES256" => (Kind::P256, &signature::ECDSA_P256_SHA256_FIXED),
        "ES384" => (Kind::P384, &signature::ECDSA_P384_SHA384_FIXED),
        "EdDSA" => (Kind::Ed25519, &signature::ED25519),
        _ => return None,
    })
}

fn grants(claims: &Claims, wanted: &Wanted) -> bool {
    let given = claims.access.as_deref().unwrap_or_default();
    let allows = |kind: &str, name: &str, action: &str| {
        let fitting = given.iter().filter(|grant| grant.r#type == kind && grant.name == name);
        fitting
            .flat_map(|grant| grant.actions.as_deref().unwrap_or_default())
            .any(|given| given == action || given == "*")
    };
    match wanted {
        Wanted::Base => true,
        Wanted::Catalog => allows("registry", "catalog", "*"),
        Wanted::Repositories(scopes) => scopes
            .iter()
            .all(|scope| scope.actions.iter().all(|action| allows("repository", &scope.repository, action))),
    }
}

fn quotable(name: &'static str, value: String) -> Result<String, TokenError> {
    match value.chars().any(|c| c.is_control() || matches!(c, '"' | '\\') || !c.is_ascii()) {
        true => Err(TokenError::Text { name, value }),
        false => Ok(value),
    }
}

fn read_keys(path: &Path) -> Result<Vec<Key>, TokenError> {
    let failed = |source| TokenError::Pem { path: path.to_owned(), source };
    let kind = || TokenError::Kind(path.to_owned());
    let mut keys = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        let certificate = certificate.map_err(failed)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| kind())?;
        keys.push(Key::of(&parsed.tbs_certificate.subject_pki).ok_or_else(kind)?);
    }
    for key in SubjectPublicKeyInfoDer::pem_file_iter(path).map_err(failed)? {
        let key = key.map_err(failed)?;
        let (_, parsed) = SubjectPublicKeyInfo::from_der(&key).map_err(|_| kind())?;
        keys.push(Key::of(&parsed).ok_or_else(kind)?);
    }
    if keys.is_empty() { Err(TokenError::Empty(path.to_owned())) } else { Ok(keys) }
}

impl Key {
    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
        let parameters = || info.algorithm.parameters.as_ref()?.as_oid().ok();
        // RFC 3279, 5480 and 8410.
        let kind = match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Kind::Rsa,
            "1.2.840.10045.2.1" => match parameters()?.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => Kind::P256,
                "1.3.132.0.34" => Kind::P384,
                _ => return None,
            },
            "1.3.101.112" => Kind::Ed25519,
            _ => return None,
        };
        Some(Key { kind, bytes: info.subject_public_key.data.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PULL, PUSH, Scope};
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use serde_json::json;
    use std::time::Duration;

    struct Issuer {
        key: EcdsaKeyPair,
        folder: tempfile::TempDir,
    }

    impl Issuer {
        fn new() -> Issuer {
            let folder = tempfile::tempdir().expect("folder");
            let made = rcgen::generate_simple_self_signed(["issuer".to_owned()]).expect("certificate");
            std::fs::write(folder.path().join("issuer.crt"), made.cert.pem()).expect("write");
            let public = made.signing_key.public_key_pem();
            std::fs::write(folder.path().join("issuer.pub"), public).expect("write");
            let der = made.signing_key.serialize_der();
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
            Issuer { key: key.expect("key"), folder }
        }

        fn tokens(&self) -> Tokens {
            Tokens::open("https://auth/token", "registry", "issuer", &self.folder.path().join("issuer.crt"))
                .expect("tokens")
        }

        fn sign(&self, header: serde_json::Value, claims: serde_json::Value) -> String {
            let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", encode(header), encode(claims));
            let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("sign");
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn claims() -> serde_json::Value {
        json!({"iss": "issuer", "aud": "registry", "exp": 2000, "nbf": 1000,
            "access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]})
    }

    fn repository(name: &str, actions: &'static [&'static str]) -> Wanted {
        Wanted::Repositories(vec![Scope { repository: name.to_owned(), actions }])
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_allows_what_it_says_while_it_lasts() {
        let issuer = Issuer::new();
        let token = issuer.sign(json!({"alg": "ES256", "typ": "JWT", "kid": "x"}), claims());
        let public = issuer.folder.path().join("issuer.pub");
        let by_key = Tokens::open("https://auth/token", "registry", "issuer", &public).expect("tokens");
        for tokens in [issuer.tokens(), by_key] {
            let verify = |wanted: &Wanted, seconds| tokens.verify_at(&token, wanted, at(seconds));
            assert_eq!(verify(&repository("team/app", PULL), 1500), Ok(()));
            assert_eq!(verify(&Wanted::Base, 1500), Ok(()));
            assert_eq!(verify(&repository("team/app", PUSH), 1500), Err("insufficient_scope"));
            assert_eq!(verify(&repository("team/other", PULL), 1500), Err("insufficient_scope"));
            assert_eq!(verify(&Wanted::Catalog, 1500), Err("insufficient_scope"));
            assert_eq!(verify(&Wanted::Base, 900), Err("invalid_token"));
            assert_eq!(verify(&Wanted::Base, 2061), Err("invalid_token"));
        }
    }

    #[test]
    fn forged_and_foreign_tokens_are_refused() {
        let issuer = Issuer::new();
        let tokens = issuer.tokens();
        let header = || json!({"alg": "ES256"});
        let with = |name: &str, value: serde_json::Value| {
            let mut claims = claims();
            claims[name] = value;
            claims
        };
        let good = issuer.sign(header(), with("aud", json!(["other", "registry"])));
        assert_eq!(tokens.verify_at(&good, &Wanted::Base, at(1500)), Ok(()));
        let body = good.split('.').nth(1).expect("claims").to_owned();
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none"}).to_string());
        let (signed, signature) = good.rsplit_once('.').expect("signature");
        let mut flipped = URL_SAFE_NO_PAD.decode(signature).expect("signature");
        flipped[10] ^= 1;
        for token in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{none}.{body}."),
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(flipped)),
            format!("{signed}.{signature}="),
            issuer.sign(json!({"alg": "HS256"}), claims()),
            issuer.sign(json!({"alg": "RS256"}), claims()),
            issuer.sign(json!({"alg": "ES256", "crit": ["x"]}), claims()),
            issuer.sign(header(), with("iss", json!("other"))),
            issuer.sign(header(), with("aud", json!("other"))),
            issuer.sign(header(), with("exp", json!(null))),
            Issuer::new().sign(header(), claims()),
        ] {
            assert_eq!(tokens.verify_at(&token, &Wanted::Base, at(1500)), Err("invalid_token"), "{token}");
        }
    }

    #[test]
    fn challenges_name_server_service_and_scope() {
        let tokens = Issuer::new().tokens();
        let text = tokens.challenge(Some("repository:a/b:pull"), Some("insufficient_scope"));
        let expected = r#"Bearer realm="https://auth/token",service="registry",scope="repository:a/b:pull",error="insufficient_scope""#;
        assert_eq!(text, expected);
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "").expect("write");
        assert!(matches!(Tokens::open("r", "s", "i", &path), Err(TokenError::Empty(_))));
        assert!(matches!(Tokens::open("a\"b", "s", "i", &path), Err(TokenError::Text { .. })));
    }
}
