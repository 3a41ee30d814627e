//! Access: who may do what at the registry, and what a client without the right to it is asked for.
//!
//! Open to everybody, for users with a password ([`Users`]), or for who has a token of an issuer ([`Tokens`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::problem::Problem;

mod htpasswd;
mod token;

pub use htpasswd::{HtpasswdError, Users};
pub use token::{TokenError, Tokens};

/// Who may use the registry.
#[derive(Debug, Default)]
pub struct Access {
    /// How clients show who they are.
    pub way: Way,
    /// Whether everybody may read repositories whose names they know. Credentials that are sent are checked all the same.
    pub anonymous_pull: bool,
}

/// How clients show who they are.
#[derive(Debug, Default)]
pub enum Way {
    /// Not at all: everybody may do everything.
    #[default]
    Open,
    /// By name and password; users may do everything.
    Users(Users),
    /// By a token that says what they may do.
    Tokens(Tokens),
}

/// What a request wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To know that it is a registry and that the credentials are right.
    Base,
    /// The list of all repositories.
    Catalog,
    /// Something with repositories.
    Repositories(Vec<Scope>),
}

/// An action on one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub repository: String,
    pub actions: &'static [&'static str],
}

pub(crate) const PULL: &[&str] = &["pull"];
pub(crate) const PUSH: &[&str] = &["pull", "push"];
pub(crate) const DELETE: &[&str] = &["delete"];

impl Wanted {
    fn only_reads(&self) -> bool {
        match self {
            Wanted::Base | Wanted::Catalog => false,
            Wanted::Repositories(scopes) => scopes.iter().all(|scope| scope.actions == PULL),
        }
    }

    /// In the words of the token specification: `repository:NAME:pull,push …`.
    fn scope(&self) -> Option<String> {
        match self {
            Wanted::Base => None,
            Wanted::Catalog => Some("registry:catalog:*".to_owned()),
            Wanted::Repositories(scopes) => {
                let texts = scopes
                    .iter()
                    .map(|scope| format!("repository:{}:{}", scope.repository, scope.actions.join(",")));
                Some(texts.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

impl Access {
    /// Refuses who may not.
    pub(crate) async fn check(
        &self,
        wanted: &Wanted,
        authorization: Option<&HeaderValue>,
    ) -> Result<(), Problem> {
        if matches!(self.way, Way::Open) {
            return Ok(());
        }
        let Some(authorization) = authorization else {
            let free = self.anonymous_pull && wanted.only_reads();
            return if free { Ok(()) } else { Err(self.refusal(wanted, None)) };
        };
        let text = authorization.to_str().unwrap_or_default();
        let (scheme, value) = text.split_once(' ').unwrap_or((text, ""));
        let refused = match &self.way {
            Way::Open => None,
            Way::Users(users) => {
                let given =
                    Some(value).filter(|_| scheme.eq_ignore_ascii_case("basic")).and_then(name_and_password);
                match given {
                    Some((user, password)) if users.verify(&user, &password).await => None,
                    _ => Some("invalid_credentials"),
                }
            }
            Way::Tokens(tokens) => {
                let given = Some(value.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"));
                tokens.verify(given.unwrap_or_default(), wanted).err()
            }
        };
        refused.map_or(Ok(()), |error| Err(self.refusal(wanted, Some(error))))
    }

    fn refusal(&self, wanted: &Wanted, error: Option<&str>) -> Problem {
        let challenge = match &self.way {
            Way::Open | Way::Users(_) => "Basic realm=\"Gantry registry\"".to_owned(),
            Way::Tokens(tokens) => tokens.challenge(wanted.scope().as_deref(), error),
        };
        Problem::Unauthorized(challenge)
    }
}

/// Reads what follows `Basic` (RFC 7617).
fn name_and_password(value: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
