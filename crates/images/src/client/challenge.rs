//! Challenges: what a registry wants to see, in `WWW-Authenticate` (RFC 9110, 11.6.1).

use http::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from this server.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// All that an answer offers and this client knows, tokens first: they show the password to the token server alone.
    pub fn all(headers: &HeaderMap) -> Vec<Challenge> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut found: Vec<Challenge> = values.flat_map(parse).collect();
        found.sort_by_key(|challenge| *challenge == Challenge::Basic);
        found
    }
}

/// One header may have several challenges: `Bearer realm="x",service="y", Basic realm="z"`.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches(SEPARATORS);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = take_value(value.trim_start());
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter of nothing.
            (Some(_), None) => return Vec::new(),
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches(SEPARATORS);
    }
    found.into_iter().filter_map(|(scheme, parameters)| known(&scheme, &parameters)).collect()
}

const SEPARATORS: [char; 3] = [' ', '\t', ','];

/// A quoted value, which may contain commas and escapes, or a bare one; and what follows.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn known(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value =
        |name: &str| parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Challenge::Bearer { realm: realm.to_owned(), service, scope }
    }

    #[test]
    fn challenges_are_parsed_with_quotes_and_commas() {
        let header = r#"Bearer realm="https://auth.example/token",service="a, \"b\"",scope="x""#;
        assert_eq!(parse(header), [bearer("https://auth.example/token", Some("a, \"b\""), Some("x"))]);
        assert_eq!(parse("Basic realm=\"x\""), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        assert_eq!(parse("Bearer realm=https://a/t , error=\"x\""), [bearer("https://a/t", None, None)]);
        for nothing in
            ["Bearer service=x", "Negotiate", "Negotiate abc==", "=", ",", "", "Bearer realm=\"unclosed"]
        {
            let found = parse(nothing);
            assert!(found.is_empty() || nothing.contains("unclosed"), "{nothing}: {found:?}");
        }
    }

    #[test]
    fn tokens_go_before_passwords_whatever_the_order() {
        let mut headers = HeaderMap::new();
        let both = "Basic realm=\"r\", Bearer realm=\"https://a/t\",service=s";
        headers.append(WWW_AUTHENTICATE, both.parse().expect("header"));
        headers.append(WWW_AUTHENTICATE, "Negotiate".parse().expect("header"));
        assert_eq!(Challenge::all(&headers), [bearer("https://a/t", Some("s"), None), Challenge::Basic]);
    }
}
