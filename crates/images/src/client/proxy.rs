//! Proxies between this node and registries, by the rules of HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go programs read them.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::uri::Authority;
use percent_encoding::percent_decode_str;

use super::insecure::{address_of, is_loopback, parse_network, split_port, within};

/// Which requests go through which proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Except>,
}

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub host: String,
    pub port: u16,
    /// Whether the proxy itself is spoken to over TLS.
    pub tls: bool,
    /// What it wants to see as `Proxy-Authorization`; marked sensitive, so that it is not printed.
    pub authorization: Option<HeaderValue>,
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "https" } else { "http" }, self.host, self.port)
    }
}

/// A proxy that can't be used. The texts leave out its address, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// For instance socks5.
    #[error("the {0} proxy is neither http:// nor https://, other kinds are not supported")]
    Scheme(&'static str),
    /// Not an address.
    #[error("the address of the {0} proxy is not valid: http://[USER:PASSWORD@]HOST:PORT is expected")]
    Address(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    Everything,
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// Without leading dot; `sub` is: only what is below it.
    Domain {
        name: String,
        port: Option<u16>,
        below_only: bool,
    },
}

impl Proxies {
    /// Takes what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; empty texts are none.
    pub fn new(http: &str, https: &str, except: &str) -> Result<Proxies, ProxyError> {
        Ok(Proxies {
            http: parse_proxy(http, "HTTP")?,
            https: parse_proxy(https, "HTTPS")?,
            except: except.split(',').filter_map(parse_exception).collect(),
        })
    }

    /// The proxy for a request to this host.
    pub(super) fn choose(&self, tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if tls { self.https.as_ref() } else { self.http.as_ref() };
        proxy.filter(|_| !is_loopback(host) && !self.except.iter().any(|except| except.holds(host, port)))
    }
}

impl Except {
    fn holds(&self, host: &str, port: u16) -> bool {
        let address = address_of(host);
        match self {
            Except::Everything => true,
            Except::Network(network, prefix) => {
                address.is_some_and(|address| within(address, (*network, *prefix)))
            }
            Except::Address(except, wanted) => {
                address == Some(*except) && wanted.is_none_or(|wanted| wanted == port)
            }
            Except::Domain { name, port: wanted, below_only } => {
                let host = host.to_ascii_lowercase();
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || (!below_only && host == *name)) && wanted.is_none_or(|wanted| wanted == port)
            }
        }
    }
}

fn parse_exception(text: &str) -> Option<Except> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Except::Everything);
    }
    if let Some((network, prefix)) = parse_network(&text) {
        return Some(Except::Network(network, prefix));
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Some(Except::Address(address, None));
    }
    let (host, port) = split_port(&text);
    if let Some(address) = address_of(host) {
        return Some(Except::Address(address, port));
    }
    let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
    let name = below.unwrap_or(host).to_owned();
    Some(Except::Domain { name, port, below_only: below.is_some() })
}

fn parse_proxy(text: &str, which: &'static str) -> Result<Option<Proxy>, ProxyError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(ProxyError::Scheme(which)),
    };
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, address) = match rest.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, rest),
    };
    let address: Authority = address.parse().map_err(|_| ProxyError::Address(which))?;
    let host = address.host().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err(ProxyError::Address(which));
    }
    let port = address.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let authorization = user.map(|user| basic(user).ok_or(ProxyError::Address(which))).transpose()?;
    Ok(Some(Proxy { host, port, tls, authorization }))
}

/// User and password of an address are percent-encoded there.
fn basic(user: &str) -> Option<HeaderValue> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let user = percent_decode_str(user).decode_utf8().ok()?;
    let password = percent_decode_str(password).decode_utf8().ok()?;
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_read_as_go_programs_do() {
        let proxies = Proxies::new(
            "http://proxy:3128",
            "proxy.example",
            "example.com, .sub.org,*.wild.org,10.0.0.0/8,192.0.2.1:5000,only.port:8443",
        )
        .expect("proxies");
        for (host, port) in [
            ("example.com", 443),
            ("a.EXAMPLE.com", 443),
            ("x.sub.org", 1),
            ("x.wild.org", 1),
            ("10.1.1.1", 5000),
            ("192.0.2.1", 5000),
            ("only.port", 8443),
            ("localhost", 5000),
            ("127.0.0.1", 5000),
            ("[::1]", 5000),
        ] {
            assert!(proxies.choose(true, host, port).is_none(), "{host}:{port}");
        }
        for (host, port) in [
            ("notexample.com", 443),
            ("sub.org", 1),
            ("11.1.1.1", 1),
            ("192.0.2.1", 5001),
            ("only.port", 443),
        ] {
            assert!(proxies.choose(true, host, port).is_some(), "{host}:{port}");
        }
        assert_eq!(
            proxies.choose(true, "a", 1).map(ToString::to_string).as_deref(),
            Some("http://proxy.example:80")
        );
        assert_eq!(
            proxies.choose(false, "a", 1).map(ToString::to_string).as_deref(),
            Some("http://proxy:3128")
        );
        assert!(Proxies::new("p", "p", "*").expect("proxies").choose(true, "a", 1).is_none());
    }

    #[test]
    fn the_password_of_a_proxy_is_sent_and_not_printed() {
        let proxies = Proxies::new("", "https://us%40er:geheim@proxy:8443/", "").expect("proxies");
        let proxy = proxies.choose(true, "reg.example", 443).expect("proxy");
        assert!(proxy.tls && proxy.port == 8443);
        let expected = format!("Basic {}", STANDARD.encode("us@er:geheim"));
        assert_eq!(proxy.authorization.as_ref().expect("authorization").as_bytes(), expected.as_bytes());
        let encoded = STANDARD.encode("us@er:geheim");
        assert!(!format!("{proxies:?}").contains("geheim") && !format!("{proxies:?}").contains(&encoded));
        assert!(proxies.choose(false, "reg.example", 80).is_none());
        for (wrong, error) in [
            ("socks5://user:geheim@p", ProxyError::Scheme("HTTPS")),
            ("http://user:geheim@", ProxyError::Address("HTTPS")),
        ] {
            assert_eq!(Proxies::new("", wrong, "").expect_err("wrong"), error);
        }
    }
}
