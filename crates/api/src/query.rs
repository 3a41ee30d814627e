//! Query strings as Go's `net/url` and Docker's handlers read them.

use crate::filters::{FilterError, Filters};
use percent_encoding::percent_decode_str;

/// Why a parameter is refused.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A number was expected.
    #[error("invalid value {value:?} of parameter {name}: expected a whole number")]
    NotNumber {
        /// Parameter.
        name: String,
        /// What came.
        value: String,
    },
    /// JSON was expected.
    #[error("invalid value of parameter {name}: {source}")]
    NotJson {
        /// Parameter.
        name: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A needed parameter is absent.
    #[error("parameter {0} is missing")]
    Missing(String),
    /// The filters are malformed.
    #[error(transparent)]
    Filters(#[from] FilterError),
}

/// The parameters of a request, in their order; a name may occur often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the part behind `?`. Malformed escapes are kept as they are.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value, if the parameter is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The value of a parameter that the request needs.
    pub fn required(&self, name: &str) -> Result<&str, QueryError> {
        self.text(name).ok_or_else(|| QueryError::Missing(name.to_owned()))
    }

    /// All values.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A switch as Docker reads it: absent, empty, `0`, `no`, `false` and `none` are off, all else is on.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A switch with another default when it is absent or empty.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name).map(|value| value.trim().to_ascii_lowercase()) {
            None => default,
            Some(value) if value.is_empty() => default,
            Some(value) => !matches!(value.as_str(), "0" | "no" | "false" | "none"),
        }
    }

    /// A whole number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, QueryError> {
        match self.text(name) {
            None => Ok(None),
            Some(value) => match value.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(QueryError::NotNumber { name: name.to_owned(), value: value.to_owned() }),
            },
        }
    }

    /// A JSON value.
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, QueryError> {
        match self.text(name) {
            None => Ok(None),
            Some(value) => serde_json::from_str(value)
                .map(Some)
                .map_err(|source| QueryError::NotJson { name: name.to_owned(), source }),
        }
    }

    /// The `filters` parameter.
    pub fn filters(&self) -> Result<Filters, QueryError> {
        Ok(Filters::parse(self.get("filters").unwrap_or(""))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_may_repeat() {
        let query = Query::parse("names=a%2Fb%3A1&names=c+d&all&size=0&t=5&x=");
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a/b:1", "c d"]);
        assert_eq!(query.get("all"), Some(""));
        assert!(!query.flag("all"));
        assert!(!query.flag("size"));
        assert_eq!(query.number::<i64>("t").unwrap(), Some(5));
        assert_eq!(query.number::<i64>("x").unwrap(), None);
        assert!(query.required("nope").is_err());
    }

    #[test]
    fn switches_follow_dockers_rule() {
        for (text, expect) in [("1", true), ("true", true), ("False", false), ("none", false), ("yes", true)]
        {
            assert_eq!(Query::parse(&format!("f={text}")).flag("f"), expect, "{text}");
        }
        assert!(Query::parse("").flag_or("f", true));
    }

    #[test]
    fn a_bad_number_is_named() {
        let error = Query::parse("h=tall").number::<u16>("h").unwrap_err().to_string();
        assert_eq!(error, "invalid value \"tall\" of parameter h: expected a whole number");
    }
}
