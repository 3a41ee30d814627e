//! Credentials for a registry, as Docker's clients send and keep them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use serde::{Deserialize, Serialize};

/// Credentials as Docker's clients send them (`X-Registry-Auth`) and as they stand in docker's config.json.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// User name and password, `user:password` in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// The registry that they are for.
    #[serde(rename = "serveraddress", skip_serializing_if = "String::is_empty")]
    pub server_address: String,
    /// A refresh token in place of a password.
    #[serde(rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
    /// A bearer token that is sent as it is.
    #[serde(rename = "registrytoken", skip_serializing_if = "String::is_empty")]
    pub registry_token: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

impl RegistryAuth {
    /// User name and password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> RegistryAuth {
        RegistryAuth { username: username.into(), password: password.into(), ..RegistryAuth::default() }
    }

    /// Decodes the `X-Registry-Auth` header: base64url (or plain base64) of the JSON document. An empty header or
    /// document is no credentials; `None` is: not decodable.
    pub fn decode(header: &str) -> Option<RegistryAuth> {
        if header.is_empty() {
            return Some(RegistryAuth::default());
        }
        let plain: String = header.trim_end_matches('=').replace('-', "+").replace('_', "/");
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(plain).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether there are no credentials in it.
    pub fn is_empty(&self) -> bool {
        self.user().is_none() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    pub(super) fn user(&self) -> Option<(String, String)> {
        if !self.username.is_empty() {
            return Some((self.username.clone(), self.password.clone()));
        }
        let decoded = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    pub(super) fn basic_header(&self) -> Option<HeaderValue> {
        let (user, password) = self.user()?;
        secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

/// A header that is not printed.
pub(super) fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded_and_not_printed() {
        let json = r#"{"username":"u","password":"geheim","serveraddress":"r"}"#;
        let header = base64::engine::general_purpose::URL_SAFE.encode(json);
        let auth = RegistryAuth::decode(&header).expect("decode");
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "geheim"));
        assert!(!format!("{auth:?}").contains("geheim"));
        assert!(RegistryAuth::decode("").expect("empty").is_empty());
        assert!(RegistryAuth::decode("!!").is_none());
    }
}
