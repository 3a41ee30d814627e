//! Credentials for a registry, and the tokens that they are exchanged for (Docker's token authentication, RFC 6750).

use std::collections::BTreeSet;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::transport::{Transport, Upload};
use super::{Access, ClientError, Result, error_message, read_limited, shown};
use crate::store::lock;

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

    fn user(&self) -> Option<(String, String)> {
        if !self.username.is_empty() {
            return Some((self.username.clone(), self.password.clone()));
        }
        let decoded = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    fn basic_header(&self) -> Option<HeaderValue> {
        let (user, password) = self.user()?;
        secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a registry wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Parses a `WWW-Authenticate` header.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
        }
        Some(Challenge::Bearer { realm: realm?, service })
    }
}

/// `name="value", name=value …`; quoted values may contain commas and escapes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != ',') {
            name.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next().filter(|c| *c != '"') {
                let escaped = if c == '\\' { chars.next() } else { None };
                value.push(escaped.unwrap_or(c));
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        found.push((name.trim().to_owned(), value.trim().to_owned()));
    }
}

/// Holds what is sent as `Authorization`, and gets it when a registry asks.
#[derive(Debug)]
pub(super) struct Authorizer {
    auth: RegistryAuth,
    access: Access,
    /// Whether the registry is spoken to over TLS; then the token server must be, too.
    tls: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    header: Option<HeaderValue>,
    scopes: BTreeSet<String>,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    refresh_token: Option<String>,
}

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Authorizer {
    pub fn new(auth: Option<RegistryAuth>, scope: String, access: Access, tls: bool) -> Authorizer {
        let auth = auth.unwrap_or_default();
        let token = Some(&auth.registry_token).filter(|token| !token.is_empty());
        let header = token.and_then(|token| secret(&format!("Bearer {token}")));
        let state = State { header, scopes: BTreeSet::from([scope]), refresh_token: None };
        Authorizer { auth, access, tls, state: Mutex::new(state) }
    }

    /// What the client is for, in a word.
    pub fn access(&self) -> &'static str {
        match self.access {
            Access::Pull => "pull",
            Access::Push => "push",
        }
    }

    pub fn header(&self) -> Option<HeaderValue> {
        lock(&self.state).header.clone()
    }

    pub fn add_scope(&self, scope: String) {
        let mut state = lock(&self.state);
        if state.scopes.insert(scope) && self.auth.registry_token.is_empty() {
            // The token at hand does not cover it.
            state.header = None;
        }
    }

    pub fn clear_scopes(&self) {
        lock(&self.state).scopes.clear();
    }

    pub fn refresh_token(&self) -> Option<String> {
        lock(&self.state).refresh_token.clone()
    }

    /// Gets what the challenge asks for; `false` if there is nothing (more) to offer.
    pub async fn answer(&self, transport: &Transport, challenge: &Challenge) -> Result<bool> {
        if !self.auth.registry_token.is_empty() {
            return Ok(false);
        }
        let header = match challenge {
            Challenge::Basic => {
                self.auth.basic_header().filter(|header| Some(header) != self.header().as_ref())
            }
            Challenge::Bearer { realm, service } => {
                let token = self.token(transport, realm, service.as_deref()).await?;
                secret(&format!("Bearer {token}"))
            }
        };
        let found = header.is_some();
        if found {
            lock(&self.state).header = header;
        }
        Ok(found)
    }

    async fn token(&self, transport: &Transport, realm: &str, service: Option<&str>) -> Result<String> {
        let protocol = |what: &str| ClientError::Protocol { url: shown(realm), what: what.to_owned() };
        if self.tls && !realm.starts_with("https://") {
            return Err(protocol("the token server is not on https, though the registry is"));
        }
        let answer = if self.auth.identity_token.is_empty() {
            self.token_by_password(transport, realm, service).await?
        } else {
            self.token_by_refresh(transport, realm, service).await?
        };
        if !answer.status().is_success() {
            let status = answer.status();
            let message =
                error_message(answer).await.unwrap_or_else(|| format!("token server answered {status}"));
            return Err(match status.is_client_error() {
                true => {
                    ClientError::Denied { access: self.access(), repository: self.shown_scope(), message }
                }
                false => ClientError::Status { method: Method::GET, url: shown(realm), status, message },
            });
        }
        let body = read_limited(answer, 1024 * 1024, realm).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| protocol("the token server's answer is not valid JSON"))?;
        if answer.refresh_token.is_some() {
            lock(&self.state).refresh_token = answer.refresh_token;
        }
        match [answer.token, answer.access_token].into_iter().find(|token| !token.is_empty()) {
            Some(token) => Ok(token),
            None => Err(protocol("the token server gave no token")),
        }
    }

    fn scopes(&self) -> Vec<String> {
        lock(&self.state).scopes.iter().cloned().collect()
    }

    /// The repository that was asked for, for the message.
    fn shown_scope(&self) -> String {
        let scopes = self.scopes();
        scopes.first().and_then(|scope| scope.split(':').nth(1)).unwrap_or("the registry").to_owned()
    }

    async fn token_by_password(
        &self,
        transport: &Transport,
        realm: &str,
        service: Option<&str>,
    ) -> Result<super::Answer> {
        let mut url = realm.to_owned();
        let scopes = self.scopes();
        let account = self.auth.user().map(|(user, _)| user);
        let service = service.map(|service| ("service", service.to_owned()));
        let scopes = scopes.into_iter().map(|scope| ("scope", scope));
        let pairs = service.into_iter().chain(scopes).chain(account.map(|user| ("account", user)));
        for (name, value) in pairs {
            let separator = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{separator}{name}={}", utf8_percent_encode(&value, QUERY)));
        }
        let mut headers = HeaderMap::new();
        if let Some(value) = self.auth.basic_header() {
            headers.insert(AUTHORIZATION, value);
        }
        transport.send(&Method::GET, &url, headers, &Upload::Empty).await
    }

    async fn token_by_refresh(
        &self,
        transport: &Transport,
        realm: &str,
        service: Option<&str>,
    ) -> Result<super::Answer> {
        let scope = self.scopes().join(" ");
        let pairs = [
            ("grant_type", "refresh_token"),
            ("service", service.unwrap_or_default()),
            ("client_id", "gantry"),
            ("scope", &scope),
            ("refresh_token", &self.auth.identity_token),
        ];
        let form: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)))
            .collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        transport.send(&Method::POST, realm, headers, &Upload::Bytes(Bytes::from(form.join("&")))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed_with_quotes_and_commas() {
        let header = r#"Bearer realm="https://auth.example/token",service="a, \"b\"",scope="x""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("a, \"b\"".to_owned()),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
    }

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
