//! How registries are reached: what is insecure, where private certificates are, mirrors, proxies.

use super::{SettingsError, bad};
use gantry_images::{InsecureRegistries, Mirror, Proxies, Registries};
use std::path::PathBuf;

/// What the daemon was told about registries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Registries that may speak http or have unverified certificates: hosts or CIDRs.
    pub insecure: Vec<String>,
    /// Folders with certificates for each registry; empty: the usual ones.
    pub certificates: Vec<PathBuf>,
    /// Mirrors of Docker Hub.
    pub mirrors: Vec<Mirror>,
    /// Proxies by flag or file.
    proxies: [Option<Secret>; 3],
}

/// A text that may hold a password.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Flags and what stands for them in the environment.
const PROXIES: [(&str, &str); 3] =
    [("http-proxy", "HTTP_PROXY"), ("https-proxy", "HTTPS_PROXY"), ("no-proxy", "NO_PROXY")];

impl Reach {
    /// Takes one setting; false: the name means nothing here.
    pub(super) fn apply(&mut self, name: &str, value: &str) -> Result<bool, SettingsError> {
        match name {
            "insecure-registries" => self.insecure.push(value.to_owned()),
            "certs-dir" => self.certificates.push(value.into()),
            "registry-mirrors" => {
                let mirror = Mirror::parse(value);
                self.mirrors
                    .push(mirror.map_err(|_| bad(name, value, "https://HOST[:PORT], without a path"))?);
            }
            _ => {
                let Some(place) = PROXIES.iter().position(|(flag, _)| *flag == name) else {
                    return Ok(false);
                };
                self.proxies[place] = Some(Secret(value.to_owned()));
            }
        }
        Ok(true)
    }

    /// A proxy by the name of its variable: the flag goes before the environment, where small letters do as well.
    fn proxy(&self, variable: &str) -> String {
        let place = PROXIES.iter().position(|(_, name)| *name == variable);
        match place.and_then(|place| self.proxies[place].as_ref()) {
            Some(value) => value.0.clone(),
            None => std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
                .or_else(|| std::env::var(variable.to_ascii_lowercase()).ok())
                .unwrap_or_default(),
        }
    }

    /// The same for display: the password of a proxy is nobody's affair.
    pub fn shown_proxy(&self, variable: &str) -> String {
        let value = self.proxy(variable);
        match (value.find("://"), value.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => {
                format!("{}xxxxx{}", &value[..scheme + 3], &value[at..])
            }
            (None, Some(at)) => format!("xxxxx{}", &value[at..]),
            _ => value,
        }
    }

    /// What the images crate works with.
    pub fn registries(&self) -> Result<Registries, SettingsError> {
        let proxy = |variable| self.proxy(variable);
        let proxies = Proxies::new(&proxy("HTTP_PROXY"), &proxy("HTTPS_PROXY"), &proxy("NO_PROXY"));
        let mut registries = Registries {
            insecure: InsecureRegistries::new(&self.insecure),
            mirrors: self.mirrors.clone(),
            proxies: proxies.map_err(SettingsError::Proxy)?,
            ..Registries::default()
        };
        if !self.certificates.is_empty() {
            registries.certificates.clone_from(&self.certificates);
        }
        Ok(registries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_mirrors_folders_and_proxies() {
        let mut reach = Reach::default();
        for (name, value) in [
            ("insecure-registries", "reg:5000"),
            ("certs-dir", "/certs"),
            ("registry-mirrors", "https://mirror.example/"),
            ("https-proxy", "http://user:geheim@proxy:3128"),
            ("no-proxy", "reg"),
        ] {
            assert!(reach.apply(name, value).unwrap(), "{name}");
        }
        assert!(!reach.apply("other", "x").unwrap());
        assert!(reach.apply("registry-mirrors", "mirror/path").is_err());
        assert_eq!(reach.shown_proxy("HTTPS_PROXY"), "http://xxxxx@proxy:3128");
        assert!(!format!("{reach:?}").contains("geheim"));
        let registries = reach.registries().unwrap();
        assert_eq!(registries.certificates, [PathBuf::from("/certs")]);
        assert_eq!(registries.mirrors.len(), 1);
        reach.apply("http-proxy", "socks5://proxy").unwrap();
        assert!(matches!(reach.registries(), Err(SettingsError::Proxy(_))));
    }
}
