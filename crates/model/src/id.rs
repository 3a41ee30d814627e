//! Identifiers: 64 hex digits for containers, 25 characters of base 36 for cluster objects, as Docker's clients expect.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is no id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid {kind} id {text:?}: expected {expected}")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
    expected: &'static str,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an id from 32 bytes that the caller drew at random.
            pub fn from_random(bytes: [u8; 32]) -> Self {
                let mut text = String::with_capacity(64);
                for byte in bytes {
                    text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
                    text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
                }
                Self(text)
            }

            /// Parses 64 lower-case hex digits.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if good {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind, text: text.to_owned(), expected: "64 lower-case hex digits" })
                }
            }

            /// The whole id.
            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve digits, as the command line shows them.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

hex_id!(
    /// A container's id.
    ContainerId,
    "container"
);
hex_id!(
    /// The id of one exec in a container.
    ExecId,
    "exec"
);

macro_rules! cluster_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Makes an id of 25 base-36 characters from 17 bytes that the caller drew at random.
            pub fn from_random(bytes: [u8; 17]) -> Self {
                Self(base36(bytes))
            }

            /// Takes a text that came from a client or the store; any non-empty run of `[0-9a-z]`, `-` and `_` is accepted.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let good = !text.is_empty()
                    && text.len() <= 64
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                if good {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind, text: text.to_owned(), expected: "1 to 64 letters and digits" })
                }
            }

            /// The whole id.
            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether there is no id (Docker's JSON uses the empty string for that).
            #[inline]
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

cluster_id!(
    /// A cluster node's id.
    NodeId,
    "node"
);
cluster_id!(
    /// A service's id.
    ServiceId,
    "service"
);
cluster_id!(
    /// A task's id.
    TaskId,
    "task"
);
cluster_id!(
    /// A network's id (64 hex for local networks, 25 base-36 characters for cluster networks).
    NetworkId,
    "network"
);
cluster_id!(
    /// A secret's id.
    SecretId,
    "secret"
);
cluster_id!(
    /// A config's id.
    ConfigId,
    "config"
);
cluster_id!(
    /// A cluster's id.
    ClusterId,
    "cluster"
);

/// Twenty-five base-36 digits (129 bits fit) from 136 random bits, as SwarmKit's ids look.
fn base36(bytes: [u8; 17]) -> String {
    let mut value = [0u8; 17];
    value.copy_from_slice(&bytes);
    let mut out = Vec::with_capacity(25);
    for _ in 0..25 {
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
    fn a_container_id_is_64_hex_digits() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(id.as_str(), "ab".repeat(32));
        assert_eq!(id.short(), "abababababab");
        assert_eq!(ContainerId::parse(id.as_str()), Ok(id));
        assert!(ContainerId::parse("ABAB").is_err());
        assert!(ContainerId::parse(&"g".repeat(64)).is_err());
    }

    #[test]
    fn a_cluster_id_is_25_base_36_characters() {
        let id = ServiceId::from_random([7; 17]);
        assert_eq!(id.as_str().len(), 25);
        assert!(id.as_str().bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()));
        assert_ne!(id, ServiceId::from_random([8; 17]));
        assert!(ServiceId::parse("a/b").is_err());
    }
}
