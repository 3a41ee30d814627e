//! A platform is what an image runs on: operating system, processor architecture and its variant.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is no platform.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error(
    "invalid platform {text:?}: expected os/architecture or os/architecture/variant, such as linux/arm64"
)]
pub struct InvalidPlatform {
    text: String,
}

/// Operating system, architecture and variant, in the words of Go (`linux`, `amd64`, `v7`), normalised. Serialises in
/// the shape of an OCI image index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Processor architecture: `amd64`, `arm64`, `arm`, `386`, `riscv64` …
    pub architecture: String,
    /// Operating system: `linux`.
    pub os: String,
    /// Variant of the architecture, such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform from its parts, with other spellings (`x86_64`, `aarch64`, `armhf`) made canonical.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
        let (architecture, variant) = normal_architecture(&architecture, variant);
        Platform { architecture, os, variant }
    }

    /// The platform that this program was built for.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "loongarch64" => "loong64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform::new(std::env::consts::OS, architecture, None)
    }

    /// Parses `os/architecture[/variant]`, or an operating system or an architecture alone, the rest being the host's.
    pub fn parse(text: &str) -> Result<Platform, InvalidPlatform> {
        let invalid = || InvalidPlatform { text: text.chars().take(100).collect() };
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(invalid());
        }
        match parts[..] {
            [one] if is_os(one) => Ok(Platform { os: Platform::new(one, "", None).os, ..Platform::host() }),
            [one] if is_architecture(one) => Ok(Platform::new(std::env::consts::OS, one, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(invalid()),
        }
    }

    /// How well `candidate` serves where `self` is wanted: 0 is exact, greater is worse, `None` does not run.
    /// A 32-bit ARM machine runs older variants, and a wanted platform without a variant takes any.
    pub fn rank(&self, candidate: &Platform) -> Option<u32> {
        if self.os != candidate.os || self.architecture != candidate.architecture {
            return None;
        }
        match (level(&self.variant), level(&candidate.variant)) {
            _ if self.variant == candidate.variant => Some(0),
            // No variant in the index: the baseline, which every machine of the architecture runs.
            (_, None) if candidate.variant.is_none() => Some(50),
            (Some(wanted), Some(offered)) if offered <= wanted => Some(wanted - offered),
            (None, Some(offered)) if self.variant.is_none() => Some(offered),
            _ => None,
        }
    }
}

fn level(variant: &Option<String>) -> Option<u32> {
    variant.as_deref()?.strip_prefix('v')?.parse().ok()
}

fn normal_architecture(architecture: &str, variant: Option<String>) -> (String, Option<String>) {
    let plain = |name: &str| (name.to_owned(), variant.clone());
    match architecture {
        "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), variant.clone().filter(|v| v != "v1")),
        "i386" | "i486" | "i586" | "i686" | "386" => ("386".to_owned(), None),
        // v8 is the only variant there is of the base line, and most indexes leave it out.
        "aarch64" | "arm64" => ("arm64".to_owned(), variant.clone().filter(|v| v != "v8" && v != "8")),
        "armhf" => ("arm".to_owned(), Some("v7".to_owned())),
        "armel" => ("arm".to_owned(), Some("v6".to_owned())),
        "arm" => {
            let variant = match variant.as_deref() {
                None => "v7".to_owned(),
                Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => format!("v{number}"),
                Some(other) => other.to_owned(),
            };
            ("arm".to_owned(), Some(variant))
        }
        other => plain(other),
    }
}

fn is_os(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "linux" | "windows" | "darwin" | "macos" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "illumos"
    )
}

fn is_architecture(word: &str) -> bool {
    matches!(
        Platform::new("linux", word, None).architecture.as_str(),
        "amd64"
            | "386"
            | "arm64"
            | "arm"
            | "riscv64"
            | "ppc64le"
            | "s390x"
            | "mips64le"
            | "mips64"
            | "loong64"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;
    fn from_str(text: &str) -> Result<Platform, InvalidPlatform> {
        Platform::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        Platform::parse(text).map(|p| p.to_string()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn spellings_become_canonical() {
        assert_eq!(parse("linux/x86_64"), "linux/amd64");
        assert_eq!(parse("Linux/aarch64/v8"), "linux/arm64");
        assert_eq!(parse("linux/arm"), "linux/arm/v7");
        assert_eq!(parse("linux/armel"), "linux/arm/v6");
        assert_eq!(parse("arm64"), "linux/arm64");
        for bad in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/a b"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_newer_variant_than_wanted_does_not_run() {
        let p = |text: &str| Platform::parse(text).expect("platform");
        assert_eq!(p("linux/arm/v7").rank(&p("linux/arm/v6")), Some(1));
        assert_eq!(p("linux/arm/v6").rank(&p("linux/arm/v7")), None);
        assert_eq!(p("linux/arm64").rank(&p("linux/arm64/v8")), Some(0));
        assert_eq!(p("linux/amd64").rank(&p("linux/386")), None);
        assert_eq!(p("linux/amd64/v3").rank(&p("linux/amd64")), Some(50));
    }
}
