//! A reference names an image: registry domain, repository path, tag and digest, by the grammar of Docker and OCI.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, InvalidDigest};

/// The registry that is meant when a reference names none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that is meant when a reference has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text is no image reference.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InvalidReference {
    /// It does not follow the grammar.
    #[error("invalid reference format: {0:?}")]
    Format(String),
    /// The repository has capital letters.
    #[error("invalid reference format: repository name {0:?} must be lowercase")]
    UpperCase(String),
    /// The name is longer than registries accept.
    #[error("invalid reference format: repository name {0:?} must not be more than 255 characters")]
    TooLong(String),
    /// It looks like an image id.
    #[error("invalid repository name {0:?}: cannot be 64 hexadecimal digits, which is an image id")]
    Identifier(String),
    /// The part after `@` is no digest.
    #[error("invalid reference format: {0:?} does not end in a digest")]
    Digest(String, #[source] InvalidDigest),
    /// The text is no tag.
    #[error("invalid tag format: {0:?}")]
    Tag(String),
}

/// A normalised reference: the domain is always there, the tag and the digest may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses what a user writes (`alpine`, `host:5000/team/app:1.2@sha256:…`). No tag is added; see
    /// [`Reference::with_default_tag`].
    pub fn parse(text: &str) -> Result<Reference, InvalidReference> {
        let shown = || text.chars().take(300).collect::<String>();
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidReference::Identifier(shown()));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|e| InvalidReference::Digest(shown(), e))?))
            }
        };
        // A colon after the last slash separates the tag; one before it belongs to the registry's port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            None => (rest, None),
            Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
        };
        let (domain, path) = split_domain(name);
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidReference::UpperCase(shown()));
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(InvalidReference::TooLong(shown()));
        }
        if !valid_domain(&domain) || !valid_path(&path) || !tag.is_none_or(valid_tag) {
            return Err(InvalidReference::Format(shown()));
        }
        Ok(Reference { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// The same reference, with `latest` as tag if it has neither tag nor digest.
    pub fn with_default_tag(self) -> Reference {
        let tag = self.tag.or_else(|| self.digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Reference { tag, ..self }
    }

    /// The same repository with this tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, InvalidReference> {
        if !valid_tag(tag) {
            return Err(InvalidReference::Tag(tag.chars().take(300).collect()));
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository alone, without tag and digest.
    pub fn repository(&self) -> Reference {
        Reference { tag: None, digest: None, ..self.clone() }
    }

    /// The registry, with its port: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path in the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of a manifest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Domain and path: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Domain and path as users write them: `alpine`, `localhost:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as users write it: `alpine:latest`, `app@sha256:…`.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        tag + &self.digest.map(|digest| format!("@{digest}")).unwrap_or_default()
    }

    /// What stands in the path of a registry's manifest URL: the digest if there is one, else the tag, else `latest`.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

/// Docker's rule: what stands before the first slash is a registry if it could not be a user's name on Docker Hub.
fn split_domain(name: &str) -> (String, String) {
    let explicit = name.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':']) || *first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (domain, path) = explicit.unwrap_or((DEFAULT_DOMAIN, name));
    let domain = if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain };
    let official = domain == DEFAULT_DOMAIN && !path.contains('/');
    let path = if official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() };
    (domain.to_owned(), path)
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, Some(&port[1..])),
            _ => return false,
        },
        None => domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port))),
    };
    let host_ok = match domain.starts_with('[') {
        true => !host.is_empty() && host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.'),
        false => host.split('.').all(valid_label),
    };
    host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn valid_label(label: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Whether `path` is a repository path: components of lower-case letters and digits, parted by single `.`, one or two
/// `_` or any number of `-`.
pub fn valid_path(path: &str) -> bool {
    path.len() <= MAX_NAME && path.split('/').all(valid_component)
}

fn valid_component(component: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|b| letter(*b)) || !bytes.last().is_some_and(|b| letter(*b)) {
        return false;
    }
    // Every run between two letters must be one of the separators that the grammar knows.
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// Whether `tag` is a tag: 1 to 128 word characters, `.` and `-`, not starting with the latter two.
pub fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        Reference::parse(text)
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Reference, InvalidReference> {
        Reference::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Reference::parse(text).map(|r| r.to_string()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn short_names_get_dockers_defaults() {
        assert_eq!(canonical("alpine"), "docker.io/library/alpine");
        assert_eq!(canonical("alpine:3"), "docker.io/library/alpine:3");
        assert_eq!(canonical("user/app"), "docker.io/user/app");
        assert_eq!(canonical("index.docker.io/alpine"), "docker.io/library/alpine");
        assert_eq!(canonical("localhost/app"), "localhost/app");
        assert_eq!(canonical("host:5000/a/b:t"), "host:5000/a/b:t");
        assert_eq!(canonical("[::1]:5000/a"), "[::1]:5000/a");
        assert_eq!(canonical("Host/a"), "Host/a");
    }

    #[test]
    fn the_familiar_form_is_what_the_user_would_write() {
        for text in ["alpine", "alpine:3", "user/app:x", "localhost:5000/app", "example.com/library/app:1"] {
            assert_eq!(Reference::parse(text).expect("reference").familiar(), text);
        }
        let tagged = Reference::parse("docker.io/library/alpine").expect("reference").with_default_tag();
        assert_eq!(tagged.familiar(), "alpine:latest");
        let digest = Digest::of(b"");
        let pinned = Reference::parse(&format!("alpine@{digest}")).expect("reference").with_default_tag();
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(digest)));
    }

    #[test]
    fn what_is_outside_the_grammar_is_refused() {
        for text in [
            "",
            ":",
            "/",
            "a:",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a.-b",
            "a@",
            "a@sha256:12",
            "a:-t",
            "a:t/x:y:z",
            "host:x/a",
            "[::1/a",
            "é",
            "a:é",
            "a\0",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(Reference::parse("Alpine"), Err(InvalidReference::UpperCase(_))));
        assert!(matches!(Reference::parse(&"a".repeat(64)), Err(InvalidReference::Identifier(_))));
        let long = vec!["ab"; 100].join("/");
        assert!(matches!(Reference::parse(&long), Err(InvalidReference::TooLong(_))));
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert!(Reference::parse("a__b/c--d.e_f").is_ok());
    }
}
