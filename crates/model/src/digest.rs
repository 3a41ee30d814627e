//! A digest names content by its SHA-256; an image id is the digest of the image's configuration.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// Why a text is no digest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDigest {
    /// There is no `algorithm:` in front.
    #[error("invalid digest {0:?}: expected sha256: and 64 lower-case hex digits")]
    Format(String),
    /// An algorithm that is valid by the OCI grammar but not accepted here.
    #[error("digest {0:?} uses an unsupported algorithm: only sha256 is accepted")]
    Algorithm(String),
}

/// A SHA-256 digest; printed and parsed as `sha256:<64 lower-case hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(content: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(content).into())
    }

    /// Takes the result of a hash computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses `sha256:` and exactly 64 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Digest, InvalidDigest> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(InvalidDigest::Format(excerpt(text)));
        };
        if algorithm != "sha256" {
            let plausible = !algorithm.is_empty()
                && algorithm
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+._-".contains(&b));
            return Err(match plausible {
                true => InvalidDigest::Algorithm(excerpt(text)),
                false => InvalidDigest::Format(excerpt(text)),
            });
        }
        Digest::parse_hex(hex).ok_or_else(|| InvalidDigest::Format(excerpt(text)))
    }

    /// Parses 64 lower-case hex digits without the algorithm, as file names in a content store have it.
    pub fn parse_hex(hex: &str) -> Option<Digest> {
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Digest(bytes))
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The first twelve hex digits, as the command line shows them.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A hostile text is quoted in the error only in part.
fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        Digest::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Digest, InvalidDigest> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// An image's id: the digest of its configuration document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(Digest);

impl ImageId {
    /// The image whose configuration has this digest.
    pub const fn new(config: Digest) -> ImageId {
        ImageId(config)
    }

    /// The digest of the configuration.
    pub const fn digest(&self) -> Digest {
        self.0
    }

    /// Parses `sha256:<64 hex digits>`.
    pub fn parse(text: &str) -> Result<ImageId, InvalidDigest> {
        Digest::parse(text).map(ImageId)
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The first twelve hex digits, as the command line shows them.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ImageId {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<ImageId, InvalidDigest> {
        ImageId::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_prints_as_it_parses() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
        assert_eq!(serde_json::to_string(&Digest::of(b"")).expect("json"), format!("\"{EMPTY}\""));
    }

    #[test]
    fn anything_but_lower_case_sha256_is_refused() {
        let upper = EMPTY.to_uppercase();
        for text in [
            "",
            "sha256:",
            &EMPTY[7..],
            &EMPTY[..70],
            &format!("{EMPTY}0"),
            upper.as_str(),
            "sha256:../../../x",
        ] {
            assert!(matches!(Digest::parse(text), Err(InvalidDigest::Format(_))), "{text}");
        }
        let long = format!("sha512:{}", "a".repeat(128));
        assert!(matches!(Digest::parse(&long), Err(InvalidDigest::Algorithm(_))));
    }
}
