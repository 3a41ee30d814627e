//! The address of a daemon: a unix socket, or TCP with or without TLS.

use crate::error::{Error, Result};
use std::path::PathBuf;

/// Where `gantry daemon` listens when nothing else is said.
pub const DEFAULT: &str = "unix:///run/gantry.sock";

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp {
        /// Name or address.
        name: String,
        /// Port.
        port: u16,
        /// TLS material; `None` for plain TCP.
        tls: Option<Tls>,
    },
}

/// The TLS material of a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Whether the daemon's certificate is verified.
    pub verify: bool,
    /// Trust root in PEM; `None`: the host's.
    pub ca: Option<PathBuf>,
    /// Client certificate and key in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The TLS flags of the command line, after the environment was looked at.
#[derive(Debug, Clone, Default)]
pub struct TlsFlags {
    /// `--tls`.
    pub tls: bool,
    /// `--tlsverify`.
    pub verify: bool,
    /// `--tlscacert`.
    pub ca: Option<PathBuf>,
    /// `--tlscert`.
    pub cert: Option<PathBuf>,
    /// `--tlskey`.
    pub key: Option<PathBuf>,
    /// Folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub folder: Option<PathBuf>,
}

impl TlsFlags {
    fn material(&self) -> Option<Tls> {
        if !self.tls && !self.verify {
            return None;
        }
        let or_folder = |given: &Option<PathBuf>, name: &str| {
            given.clone().or_else(|| self.folder.as_ref().map(|f| f.join(name)).filter(|path| path.exists()))
        };
        let identity = or_folder(&self.cert, "cert.pem").zip(or_folder(&self.key, "key.pem"));
        Some(Tls { verify: self.verify, ca: or_folder(&self.ca, "ca.pem"), identity })
    }
}

impl Host {
    /// Parses `unix:///path`, `tcp://host:port`, `http://…`, `https://…` or `host:port`.
    pub fn parse(text: &str, flags: &TlsFlags) -> Result<Host> {
        let bad = |why: &str| Error::invalid(format!("invalid host {text:?}: {why}"));
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(bad("the path of a unix socket must be absolute, as in unix:///run/gantry.sock"));
            }
            return Ok(Host::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Ok(Host::Unix(text.into()));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let tls = match scheme {
            "https" => Some(flags.material().unwrap_or(Tls { verify: true, ..Tls::default() })),
            "tcp" | "http" => flags.material(),
            _ => return Err(bad("the scheme must be unix, tcp, http or https")),
        };
        let rest = rest.trim_end_matches('/');
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) if !name.ends_with(':') && (!name.contains('[') || name.contains(']')) => {
                (name, port.parse().map_err(|_| bad("the port is no number from 0 to 65535"))?)
            }
            _ => (rest, if tls.is_some() { 2376 } else { 2375 }),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || name.contains('/') {
            return Err(bad("there is no host name"));
        }
        Ok(Host::Tcp { name: name.to_owned(), port, tls })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Unix(path) => write!(f, "unix://{}", path.display()),
            Host::Tcp { name, port, .. } if name.contains(':') => write!(f, "tcp://[{name}]:{port}"),
            Host::Tcp { name, port, .. } => write!(f, "tcp://{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        Host::parse(text, &TlsFlags::default()).map(|host| host.to_string()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn addresses_get_dockers_default_ports() {
        assert_eq!(parse("unix:///x.sock"), "unix:///x.sock");
        assert_eq!(parse("tcp://h"), "tcp://h:2375");
        assert_eq!(parse("https://h"), "tcp://h:2376");
        assert_eq!(parse("h:99"), "tcp://h:99");
        assert_eq!(parse("tcp://[::1]:99"), "tcp://[::1]:99");
    }

    #[test]
    fn wrong_addresses_say_why() {
        assert!(parse("ftp://x").contains("scheme"));
        assert!(parse("tcp://x:y").contains("port"));
        assert!(parse("unix://x").contains("absolute"));
    }
}
