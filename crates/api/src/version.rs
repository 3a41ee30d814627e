//! API versions: which are spoken, how a client names one, and how they compare.

use std::fmt;

/// A version of the Docker Engine API, `1.47`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u16,
    /// Rises with each change of the API.
    pub minor: u16,
}

/// The newest version spoken.
pub const MAX: ApiVersion = ApiVersion { major: 1, minor: 51 };
/// The oldest version spoken.
pub const MIN: ApiVersion = ApiVersion { major: 1, minor: 24 };

/// Why a client's version is refused; the texts are Docker's, since clients look for them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VersionError {
    /// Newer than what is spoken.
    #[error("client version {0} is too new. Maximum supported API version is {MAX}")]
    TooNew(ApiVersion),
    /// Older than what is spoken.
    #[error(
        "client version {0} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
    )]
    TooOld(ApiVersion),
}

impl ApiVersion {
    /// `1.minor`.
    pub const fn v1(minor: u16) -> Self {
        Self { major: 1, minor }
    }

    /// Parses `1.47`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return None;
        }
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Refuses what is not spoken.
    pub fn check(self) -> Result<Self, VersionError> {
        if self > MAX {
            Err(VersionError::TooNew(self))
        } else if self < MIN {
            Err(VersionError::TooOld(self))
        } else {
            Ok(self)
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Splits `/v1.47/containers/json` into its version and `/containers/json`; a path without a version means the newest.
pub fn split_path(path: &str) -> (Option<ApiVersion>, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return (None, path) };
    let end = rest.find('/').unwrap_or(rest.len());
    match ApiVersion::parse(&rest[..end]) {
        Some(version) if end < rest.len() => (Some(version), &rest[end..]),
        Some(version) => (Some(version), "/"),
        None => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_split_off() {
        assert_eq!(split_path("/v1.47/containers/json"), (Some(ApiVersion::v1(47)), "/containers/json"));
        assert_eq!(split_path("/volumes"), (None, "/volumes"));
        assert_eq!(split_path("/v1.47"), (Some(ApiVersion::v1(47)), "/"));
        assert_eq!(split_path("/version"), (None, "/version"));
        assert_eq!(split_path("/v1.x/info"), (None, "/v1.x/info"));
    }

    #[test]
    fn versions_outside_the_range_are_refused() {
        assert!(ApiVersion::v1(24).check().is_ok());
        assert!(ApiVersion::v1(51).check().is_ok());
        assert_eq!(
            ApiVersion::v1(99).check().unwrap_err().to_string(),
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert!(ApiVersion::v1(12).check().unwrap_err().to_string().contains("too old"));
        assert!(ApiVersion::v1(9) < ApiVersion::v1(24));
    }
}
