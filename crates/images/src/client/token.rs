//! What is sent as `Authorization`: user and password, or the token that they are exchanged for (Docker's token
//! authentication, RFC 6750), renewed when it expires or is no longer taken.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::auth::secret;
use super::challenge::Challenge;
use super::registries::Security;
use super::transport::{Transport, Upload};
use super::{Access, ClientError, RegistryAuth, Result, error_message, read_limited, retry_after, shown};
use crate::store::lock;

/// How long a token is good for when its server does not say (the distribution project's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is renewed so long before its end: a request takes time, and clocks differ.
const EARLY: Duration = Duration::from_secs(5);
/// By which this client is known to token servers.
const CLIENT: &str = "gantry";

/// Holds what is sent as `Authorization`, and gets it when a registry asks.
#[derive(Debug)]
pub(super) struct Authorizer {
    auth: RegistryAuth,
    access: Access,
    security: Security,
    state: Mutex<State>,
    /// Held while a token is asked for, so that parallel requests ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    header: Option<HeaderValue>,
    scopes: BTreeSet<String>,
    refresh_token: Option<RefreshToken>,
    /// The server of the token at hand and its end.
    source: Option<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    realm: String,
    service: Option<String>,
    end: Instant,
}

/// As good as a password.
#[derive(Clone)]
struct RefreshToken(String);

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshToken")
    }
}

/// What came of a challenge.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// There is something else to send now.
    Anew,
    /// Nothing (more) to offer; the text says why, if it is known.
    Nothing(Option<&'static str>),
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: serde_json::Value,
}

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Authorizer {
    pub fn new(
        auth: Option<RegistryAuth>,
        scope: Option<String>,
        access: Access,
        security: Security,
    ) -> Self {
        let auth = auth.unwrap_or_default();
        let token = Some(&auth.registry_token).filter(|token| !token.is_empty());
        let header = token.and_then(|token| secret(&format!("Bearer {token}")));
        let state = State { header, scopes: scope.into_iter().collect(), ..State::default() };
        Authorizer { auth, access, security, state: Mutex::new(state), asking: Default::default() }
    }

    /// What the client is for, in a word.
    pub fn access(&self) -> &'static str {
        match self.access {
            Access::Pull => "pull",
            Access::Push => "push",
            Access::Login => "login",
        }
    }

    pub fn add_scope(&self, scope: String) {
        let mut state = lock(&self.state);
        if state.scopes.insert(scope) && self.auth.registry_token.is_empty() {
            // The token at hand does not cover it.
            state.header = None;
        }
    }

    /// The token to keep in place of the password, if the token server gave one.
    pub fn refresh_token(&self) -> Option<String> {
        lock(&self.state).refresh_token.clone().map(|token| token.0)
    }

    /// What to send; a token at its end is renewed first, so that no upload is sent for nothing.
    pub async fn header(&self, transport: &Transport) -> Result<Option<HeaderValue>> {
        let (header, source) = {
            let state = lock(&self.state);
            (state.header.clone(), state.source.clone())
        };
        match source.filter(|source| header.is_some() && source.end <= Instant::now()) {
            None => Ok(header),
            Some(source) => {
                self.renew(transport, &source.realm, source.service.as_deref(), header.as_ref()).await?;
                Ok(lock(&self.state).header.clone())
            }
        }
    }

    /// Gets what the challenges ask for. `sent` is what was refused.
    pub async fn answer(
        &self,
        transport: &Transport,
        challenges: &[Challenge],
        sent: Option<&HeaderValue>,
    ) -> Result<Answered> {
        if !self.auth.registry_token.is_empty() {
            return Ok(Answered::Nothing(None));
        }
        match challenges.first() {
            None => Ok(Answered::Nothing(None)),
            Some(Challenge::Basic) => Ok(self.answer_basic(sent)),
            Some(Challenge::Bearer { realm, service, scope }) => {
                self.widen(scope.as_deref());
                self.renew(transport, realm, service.as_deref(), sent).await?;
                Ok(Answered::Anew)
            }
        }
    }

    fn answer_basic(&self, sent: Option<&HeaderValue>) -> Answered {
        let Some(header) = self.auth.basic_header() else {
            return Answered::Nothing(Some("no basic auth credentials"));
        };
        if sent == Some(&header) {
            return Answered::Nothing(None);
        }
        let mut state = lock(&self.state);
        (state.header, state.source) = (Some(header), None);
        Answered::Anew
    }

    /// A registry may want more for the repository at hand than was asked for; what it says about others is not heard.
    fn widen(&self, scope: Option<&str>) {
        let mut state = lock(&self.state);
        let known: Vec<String> = state.scopes.iter().filter_map(|scope| repository_of(scope)).collect();
        let wanted = scope.unwrap_or_default().split(' ').filter(|scope| scope.len() < 1000);
        let wanted = wanted.filter(|scope| repository_of(scope).is_some_and(|found| known.contains(&found)));
        let covered = |scope: &str, scopes: &BTreeSet<String>| {
            let actions = scope.rsplit(':').next().unwrap_or_default();
            let of = repository_of(scope);
            let same = scopes.iter().filter(|known| repository_of(known) == of);
            let have: Vec<&str> =
                same.flat_map(|known| known.rsplit(':').next().unwrap_or("").split(',')).collect();
            actions.split(',').all(|action| have.contains(&action))
        };
        for scope in wanted {
            if !covered(scope, &state.scopes) {
                state.scopes.insert(scope.to_owned());
            }
        }
    }

    async fn renew(
        &self,
        transport: &Transport,
        realm: &str,
        service: Option<&str>,
        refused: Option<&HeaderValue>,
    ) -> Result<()> {
        let _turn = self.asking.lock().await;
        {
            let state = lock(&self.state);
            // Another request has brought a new one meanwhile.
            if state.header.is_some() && state.header.as_ref() != refused && state.source.is_some() {
                return Ok(());
            }
        }
        let begun = Instant::now();
        let answer = self.token(transport, realm, service).await?;
        let life = answer.expires_in.as_f64().filter(|life| life.is_finite() && *life > 0.0);
        let life = life.map_or(DEFAULT_LIFE, |life| Duration::from_secs_f64(life.min(1e6)));
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let protocol = |what: &str| ClientError::Protocol { url: shown(realm), what: what.to_owned() };
        let token = token.ok_or_else(|| protocol("the token server gave no token"))?;
        let header = secret(&format!("Bearer {token}"));
        let header = header.ok_or_else(|| protocol("the token server's token can't be sent"))?;
        let end = begun + life.saturating_sub(EARLY).max(life / 2);
        let mut state = lock(&self.state);
        if let Some(token) = answer.refresh_token.filter(|token| !token.is_empty()) {
            state.refresh_token = Some(RefreshToken(token));
        }
        state.source = Some(Source { realm: realm.to_owned(), service: service.map(str::to_owned), end });
        state.header = Some(header);
        Ok(())
    }

    async fn token(&self, transport: &Transport, realm: &str, service: Option<&str>) -> Result<TokenAnswer> {
        let protocol = |what: &str| ClientError::Protocol { url: shown(realm), what: what.to_owned() };
        if self.security == Security::Verified && !realm.starts_with("https://") {
            return Err(protocol("the token server is not on https, though the registry is"));
        }
        // A server that gives a new refresh token may take the old one back.
        let kept = self.refresh_token().filter(|_| !self.auth.identity_token.is_empty());
        let refresh =
            kept.or_else(|| Some(self.auth.identity_token.clone()).filter(|token| !token.is_empty()));
        let answer = match &refresh {
            None => self.token_by_password(transport, realm, service).await?,
            Some(token) => self.token_by_refresh(transport, realm, service, token).await?,
        };
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        if !status.is_success() {
            let method = if refresh.is_some() { Method::POST } else { Method::GET };
            let message = error_message(answer, transport)
                .await
                .unwrap_or_else(|| format!("token server answered {status}"));
            // 400 is how OAuth 2 refuses a grant (RFC 6749, 5.2).
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                    ClientError::Denied { access: self.access(), repository: self.shown_scope(), message }
                }
                _ => ClientError::Status { method, url: shown(realm), status, message, retry_after },
            });
        }
        let body = read_limited(answer, 1024 * 1024, realm, transport).await?;
        serde_json::from_slice(&body).map_err(|_| protocol("the token server's answer is not valid JSON"))
    }

    fn scopes(&self) -> Vec<String> {
        lock(&self.state).scopes.iter().cloned().collect()
    }

    /// The repository that was asked for, for the message.
    fn shown_scope(&self) -> String {
        let scopes = self.scopes();
        scopes.first().and_then(|scope| repository_of(scope)).unwrap_or_else(|| "the registry".to_owned())
    }

    async fn token_by_password(
        &self,
        transport: &Transport,
        realm: &str,
        service: Option<&str>,
    ) -> Result<super::Answer> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        pairs.extend(service.map(|service| ("service", service.to_owned())));
        pairs.extend(self.scopes().into_iter().map(|scope| ("scope", scope)));
        pairs.extend(self.auth.user().map(|(user, _)| ("account", user)));
        if self.access == Access::Login {
            // A login wants something to keep that is not the password.
            pairs.extend([("offline_token", "true".to_owned()), ("client_id", CLIENT.to_owned())]);
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url =
            if pairs.is_empty() { realm.to_owned() } else { format!("{realm}{separator}{}", form(&pairs)) };
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
        token: &str,
    ) -> Result<super::Answer> {
        let pairs = [
            ("grant_type", "refresh_token".to_owned()),
            ("service", service.unwrap_or_default().to_owned()),
            ("client_id", CLIENT.to_owned()),
            ("scope", self.scopes().join(" ")),
            ("refresh_token", token.to_owned()),
        ];
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        transport.send(&Method::POST, realm, headers, &Upload::Bytes(Bytes::from(form(&pairs)))).await
    }
}

/// The middle of `repository:NAME:ACTIONS`; names may have a port in front.
fn repository_of(scope: &str) -> Option<String> {
    let (name, _) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    Some(name.to_owned())
}

fn form(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_widens_the_scope_of_its_own_repository_only() {
        let scope = "repository:team/app:pull,push".to_owned();
        let authorizer = Authorizer::new(None, Some(scope.clone()), Access::Push, Security::Verified);
        authorizer.widen(Some("repository:team/app:pull"));
        assert_eq!(authorizer.scopes(), std::slice::from_ref(&scope), "it is covered already");
        authorizer.widen(Some("repository:other/app:push registry:catalog:* repository:team/app:delete"));
        assert_eq!(authorizer.scopes(), ["repository:team/app:delete".to_owned(), scope]);
    }
}
