//! Identifiers: 64 hex digits for containers, 25 characters of base 36 for cluster objects, as Docker's clients expect.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

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

/// Bytes of a text that lie in the id itself: the 25 of our own ids, and no byte more than an id's 32 has room for.
const IN_PLACE: usize = 30;

/// The text of a cluster object's id. A million tasks name their service and node, and each change copies such names: so
/// texts of the usual length are no allocation of their own.
#[derive(Clone)]
enum Text {
    Short { len: u8, bytes: [u8; IN_PLACE] },
    Long(Arc<str>),
}

impl Text {
    fn new(text: &str) -> Self {
        let mut bytes = [0; IN_PLACE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(text) => text.as_bytes(),
        }
    }

    #[inline]
    fn as_str(&self) -> &str {
        match self {
            // Never anything else than the text that was put in.
            Self::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::Short { len: 0, bytes: [0; IN_PLACE] }
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl serde::de::Visitor<'_> for Reader {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::new(text))
            }
        }

        from.deserialize_str(Reader)
    }
}

macro_rules! cluster_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(Text);

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
                    Ok(Self(Text::new(text)))
                } else {
                    Err(InvalidId { kind: $kind, text: text.to_owned(), expected: "1 to 64 letters and digits" })
                }
            }

            /// The whole id.
            #[inline]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// Whether there is no id (Docker's JSON uses the empty string for that).
            #[inline]
            pub fn is_empty(&self) -> bool {
                self.0.as_bytes().is_empty()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
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

/// Twenty-five base-36 digits (129 bits fit) from 136 random bits, as SwarmKit's ids look. Six digits at a time: their number
/// fits into 32 bits, so the long division goes in whole words.
fn base36(bytes: [u8; 17]) -> Text {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    const SIX: u64 = 36u64.pow(6);
    let mut words = [0u32; 5];
    for (place, byte) in bytes.iter().rev().enumerate() {
        words[4 - place / 4] |= u32::from(*byte) << (place % 4 * 8);
    }
    let mut text = [0; IN_PLACE];
    for end in [25, 19, 13, 7, 1] {
        let mut rest: u64 = 0;
        for word in &mut words {
            let current = rest << 32 | u64::from(*word);
            *word = u32::try_from(current / SIX).unwrap_or(u32::MAX);
            rest = current % SIX;
        }
        for place in (end.max(6) - 6..end).rev() {
            text[place] = DIGITS[usize::from((rest % 36) as u8)];
            rest /= 36;
        }
    }
    Text::Short { len: 25, bytes: text }
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
    fn the_digits_of_an_id_are_those_of_the_number_in_its_bytes() {
        let id = |bytes| TaskId::from_random(bytes).to_string();
        assert_eq!(id([0; 17]), "0".repeat(25));
        let mut bytes = [0; 17];
        bytes[16] = 35;
        assert_eq!(id(bytes), format!("{}z", "0".repeat(24)));
        bytes[15] = 1;
        // 291 = 8 · 36 + 3
        assert_eq!(id(bytes), format!("{}83", "0".repeat(23)));
        for seed in 0..200u64 {
            let mut bytes = [0; 17];
            for (place, byte) in bytes.iter_mut().enumerate() {
                *byte = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (place % 8 * 8)) as u8 ^ place as u8;
            }
            assert_eq!(id(bytes), digit_by_digit(bytes));
        }
    }

    fn digit_by_digit(mut value: [u8; 17]) -> String {
        let mut digits = Vec::new();
        for _ in 0..25 {
            let mut rest: u32 = 0;
            for byte in &mut value {
                let current = rest * 256 + u32::from(*byte);
                *byte = u8::try_from(current / 36).expect("a byte");
                rest = current % 36;
            }
            digits.push(char::from_digit(rest, 36).expect("a digit"));
        }
        digits.iter().rev().collect()
    }

    #[test]
    fn short_and_long_ids_are_the_same_to_who_uses_them() {
        let texts = ["", "a", &"b".repeat(25), &"c".repeat(30), &"d".repeat(31), &"e".repeat(64)];
        let ids: Vec<NetworkId> =
            texts.iter().map(|text| NetworkId::parse(text).unwrap_or_default()).collect();
        for (id, text) in ids.iter().zip(texts) {
            assert_eq!(
                (id.as_str(), id.is_empty(), id.to_string()),
                (text, text.is_empty(), text.to_owned())
            );
            let json = serde_json::to_string(id).expect("JSON");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<NetworkId>(&json).expect("an id"), *id);
            assert_eq!(format!("{id:?}"), format!("NetworkId({text:?})"));
        }
        assert!(ids.is_sorted());
        assert!(std::mem::size_of::<TaskId>() <= 32);
        assert!(NetworkId::parse(&"f".repeat(65)).is_err());
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
