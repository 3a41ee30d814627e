//! Join tokens: `SWMTKN-1-<digest of the CA certificate>-<secret>`, so that a joiner knows whom to trust before it says its secret.

use super::{IdentityError, random};
use gantry_model::node::NodeRole;
use gantry_model::swarm::JoinTokens;
use sha2::{Digest, Sha256};

/// Characters of 256 bits in base 36.
const DIGEST_LENGTH: usize = 50;
/// Characters of 128 bits in base 36.
const SECRET_LENGTH: usize = 25;

/// A token in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Digest of the CA certificate (DER) in base 36.
    pub digest: String,
    secret: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// A new token for the cluster of this CA.
    pub fn generate(root_der: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self { digest: fingerprint(root_der), secret: base36(&random::<16>()?, SECRET_LENGTH) })
    }

    /// Reads a token from the command line.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let mut parts = text.trim().split('-');
        let (prefix, version, digest, secret) = (parts.next(), parts.next(), parts.next(), parts.next());
        let base36 = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        match (prefix, version, digest, secret, parts.next()) {
            (Some("SWMTKN"), Some("1"), Some(digest), Some(secret), None)
                if digest.len() == DIGEST_LENGTH
                    && secret.len() == SECRET_LENGTH
                    && base36(digest)
                    && base36(secret) =>
            {
                Ok(Self { digest: digest.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(IdentityError::Token),
        }
    }

    /// Refuses the CA of another cluster.
    pub fn check_root(&self, root_der: &[u8]) -> Result<(), IdentityError> {
        let found = fingerprint(root_der);
        if found == self.digest {
            Ok(())
        } else {
            Err(IdentityError::Fingerprint { expected: self.digest.clone(), found })
        }
    }

    /// The text for the command line.
    pub fn text(&self) -> String {
        format!("SWMTKN-1-{}-{}", self.digest, self.secret)
    }
}

/// Two fresh tokens.
pub fn generate_pair(root_der: &[u8]) -> Result<JoinTokens, IdentityError> {
    Ok(JoinTokens {
        worker: JoinToken::generate(root_der)?.text(),
        manager: JoinToken::generate(root_der)?.text(),
    })
}

/// The role that a presented token gives, compared in constant time.
pub fn role_of(presented: &str, tokens: &JoinTokens) -> Option<NodeRole> {
    let manager = equal(presented.trim(), &tokens.manager);
    let worker = equal(presented.trim(), &tokens.worker);
    if manager {
        Some(NodeRole::Manager)
    } else if worker {
        Some(NodeRole::Worker)
    } else {
        None
    }
}

/// Compares digests, so that neither length nor content shows in the time taken.
fn equal(left: &str, right: &str) -> bool {
    if right.is_empty() {
        return false;
    }
    let (left, right) = (Sha256::digest(left.as_bytes()), Sha256::digest(right.as_bytes()));
    left.iter().zip(right.iter()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// SHA-256 in base 36.
pub fn fingerprint(der: &[u8]) -> String {
    base36(&Sha256::digest(der), DIGEST_LENGTH)
}

/// A big-endian number in so many base-36 digits.
fn base36(bytes: &[u8], digits: usize) -> String {
    let mut value = bytes.to_vec();
    let mut out = Vec::with_capacity(digits);
    for _ in 0..digits {
        let mut rest: u32 = 0;
        for byte in &mut value {
            let current = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(current / 36).unwrap_or(u8::MAX);
            rest = current % 36;
        }
        out.push(char::from_digit(rest, 36).unwrap_or('0'));
    }
    out.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_printing_and_names_its_ca() {
        let token = JoinToken::generate(b"certificate").expect("token");
        let parsed = JoinToken::parse(&token.text()).expect("parse");
        assert_eq!(parsed, token);
        assert!(parsed.check_root(b"certificate").is_ok());
        assert!(matches!(parsed.check_root(b"another"), Err(IdentityError::Fingerprint { .. })));
        assert_eq!(token.digest.len(), 50);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "SWMTKN-1", "SWMTKN-2-a-b", "SWMTKN-1-x-y", "x".repeat(100).as_str()] {
            assert!(JoinToken::parse(text).is_err(), "{text}");
        }
        let good = JoinToken::generate(b"c").expect("token").text();
        assert!(JoinToken::parse(&format!("{good}-1")).is_err());
        assert!(JoinToken::parse(&good.to_uppercase()).is_err());
    }

    #[test]
    fn a_token_gives_its_role_and_an_old_one_none() {
        let tokens = generate_pair(b"c").expect("tokens");
        assert_eq!(role_of(&tokens.manager, &tokens), Some(NodeRole::Manager));
        assert_eq!(role_of(&tokens.worker, &tokens), Some(NodeRole::Worker));
        let rotated = generate_pair(b"c").expect("tokens");
        assert_eq!(role_of(&tokens.worker, &rotated), None);
        assert_eq!(role_of("", &JoinTokens::default()), None);
    }
}
