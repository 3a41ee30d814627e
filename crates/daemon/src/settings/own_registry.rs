//! Gantry's own registry: where it listens, and who may use it.

use super::{SettingsError, flag, number};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What was told about the registry, with the flags `--registry-…` of the daemon or those of `gantry registry`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnRegistry {
    /// Where it listens; none: there is no registry.
    pub listen: Option<SocketAddr>,
    /// Its certificate, with those between it and the authority.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key.
    pub tls_key: Option<PathBuf>,
    /// Users with bcrypt hashes of their passwords.
    pub htpasswd: Option<PathBuf>,
    /// Whether everybody may pull.
    pub anonymous_pull: bool,
    /// Who makes tokens.
    pub token: TokenIssuer,
}

/// Who makes the tokens that the registry takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenIssuer {
    /// Address of the token server.
    pub realm: Option<String>,
    /// What this registry is called there.
    pub service: Option<String>,
    /// Who signs.
    pub issuer: Option<String>,
    /// PEM file with the certificates (or public keys) of the signer.
    pub certificate: Option<PathBuf>,
}

impl OwnRegistry {
    /// Takes one setting; false: the name means nothing here.
    pub(crate) fn apply(&mut self, name: &str, value: &str) -> Result<bool, SettingsError> {
        let text = || Some(value.to_owned());
        match name {
            "listen" => self.listen = Some(number("registry-listen", value, "address:port")?),
            "tls-cert" => self.tls_cert = Some(value.into()),
            "tls-key" => self.tls_key = Some(value.into()),
            "htpasswd" => self.htpasswd = Some(value.into()),
            "anonymous-pull" => self.anonymous_pull = flag("registry-anonymous-pull", value)?,
            "auth-token-realm" => self.token.realm = text(),
            "auth-token-service" => self.token.service = text(),
            "auth-token-issuer" => self.token.issuer = text(),
            "auth-token-certificate" => self.token.certificate = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses what is said by half.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let token = &self.token;
        let given = [
            token.realm.is_some(),
            token.service.is_some(),
            token.issuer.is_some(),
            token.certificate.is_some(),
        ];
        let by_token = given.contains(&true);
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(SettingsError::IncompleteRegistryTls);
        }
        if by_token && given.contains(&false) {
            return Err(SettingsError::IncompleteToken);
        }
        if by_token && self.htpasswd.is_some() {
            return Err(SettingsError::TwoWaysIn);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(settings: &[(&str, &str)]) -> Result<(), SettingsError> {
        let mut registry = OwnRegistry::default();
        for (name, value) in settings {
            assert!(registry.apply(name, value)?, "{name}");
        }
        registry.check()
    }

    #[test]
    fn halves_are_refused() {
        assert!(told(&[("listen", "127.0.0.1:5000"), ("anonymous-pull", "true")]).is_ok());
        assert!(told(&[("tls-cert", "/c"), ("tls-key", "/k"), ("htpasswd", "/h")]).is_ok());
        assert!(matches!(told(&[("tls-cert", "/c")]), Err(SettingsError::IncompleteRegistryTls)));
        assert!(matches!(told(&[("auth-token-realm", "https://a")]), Err(SettingsError::IncompleteToken)));
        let token = [
            ("auth-token-realm", "https://a"),
            ("auth-token-service", "s"),
            ("auth-token-issuer", "i"),
            ("auth-token-certificate", "/c"),
        ];
        assert!(told(&token).is_ok());
        let both: Vec<_> = token.into_iter().chain([("htpasswd", "/h")]).collect();
        assert!(matches!(told(&both), Err(SettingsError::TwoWaysIn)));
        assert!(told(&[("listen", "everywhere")]).is_err());
    }
}
