//! The parts of a request that every handler reads: API version, parameters, registry credentials.

use super::ApiError;
use axum::extract::FromRequestParts;
use base64::Engine as _;
use gantry_api::auth::AuthConfig;
use gantry_api::query::Query;
use gantry_api::version::{self, ApiVersion};
use gantry_model::pull_auth::PullAuth;
use http::request::Parts;
use std::convert::Infallible;

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Call {
    /// Version that the client speaks.
    pub version: ApiVersion,
    /// Parameters.
    pub query: Query,
    /// `X-Registry-Auth` as it came.
    registry_auth: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let version = parts.extensions.get::<ApiVersion>().copied().unwrap_or(version::MAX);
        let registry_auth = parts.headers.get("x-registry-auth");
        Ok(Self {
            version,
            query: Query::parse(parts.uri.query().unwrap_or("")),
            registry_auth: registry_auth.and_then(|value| value.to_str().ok()).map(str::to_owned),
        })
    }
}

impl Call {
    /// Whether the client speaks at least `1.minor`.
    pub fn since(&self, minor: u16) -> bool {
        self.version >= ApiVersion::v1(minor)
    }

    /// Credentials for a registry, if the client sent any.
    pub fn auth(&self) -> Result<Option<AuthConfig>, ApiError> {
        self.registry_auth.as_deref().map_or(Ok(None), decode_auth)
    }

    /// The header as it came, for the cluster's pulls.
    pub fn raw_auth(&self) -> Option<PullAuth> {
        self.registry_auth.clone().filter(|text| !text.is_empty()).map(PullAuth::new)
    }
}

/// Decodes `X-Registry-Auth`: base64 (URL alphabet, as a rule) of a JSON object.
pub fn decode_auth(text: &str) -> Result<Option<AuthConfig>, ApiError> {
    use base64::alphabet;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    if text.is_empty() {
        return Ok(None);
    }
    let alphabet = if text.contains(['+', '/']) { &alphabet::STANDARD } else { &alphabet::URL_SAFE };
    let json = GeneralPurpose::new(alphabet, lenient)
        .decode(text)
        .map_err(|error| ApiError::bad_request(format!("invalid X-Registry-Auth header: {error}")))?;
    let mut auth: AuthConfig = serde_json::from_slice(&json)
        .map_err(|error| ApiError::bad_request(format!("invalid X-Registry-Auth header: {error}")))?;
    if auth.username.is_empty()
        && let Some((user, password)) = split_basic(&auth.auth)
    {
        auth.username = user;
        auth.password = password;
    }
    Ok(Some(auth).filter(|auth| !auth.is_empty()))
}

fn split_basic(auth: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded_in_every_dress() {
        let json = br#"{"username":"u","password":"p\u00ff?>","serveraddress":"r"}"#;
        let url = base64::engine::general_purpose::URL_SAFE.encode(json);
        let bare = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
        for text in [url, bare] {
            assert_eq!(decode_auth(&text).unwrap().unwrap().username, "u");
        }
        let basic = base64::engine::general_purpose::URL_SAFE.encode(r#"{"auth":"dTpw"}"#);
        assert_eq!(decode_auth(&basic).unwrap().unwrap().password, "p");
        let empty = base64::engine::general_purpose::URL_SAFE.encode("{}");
        assert_eq!(decode_auth(&empty).unwrap(), None);
        assert!(decode_auth("%%%").is_err());
        assert!(decode_auth("bm9qc29u").is_err());
    }
}
