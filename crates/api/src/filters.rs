//! The `filters` parameter: `{"label":{"a=b":true}}`, or in the old form `{"label":["a=b"]}`.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Why filters are refused.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not the JSON that is expected.
    #[error("invalid filter: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A filter that this request does not know.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// A value that the filter cannot have.
    #[error("invalid filter '{name}={value}'")]
    BadValue {
        /// Filter.
        name: String,
        /// Value.
        value: String,
    },
}

/// Filters by name; all names must match, of each name one value (labels: all values).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Parses the parameter; empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            Set(BTreeMap<String, bool>),
            List(Vec<String>),
            None(()),
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let raw: Option<BTreeMap<String, Values>> =
            serde_json::from_str(text).map_err(FilterError::Malformed)?;
        let values = |values| match values {
            Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
            Values::List(list) => list.into_iter().collect(),
            Values::None(()) => BTreeSet::new(),
        };
        Ok(Self(raw.unwrap_or_default().into_iter().map(|(name, set)| (name, values(set))).collect()))
    }

    /// Adds one value.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned());
    }

    /// Writes the parameter.
    pub fn to_json(&self) -> String {
        let sets: BTreeMap<&String, BTreeMap<&String, bool>> = self
            .0
            .iter()
            .map(|(name, set)| (name, set.iter().map(|value| (value, true)).collect()))
            .collect();
        serde_json::to_string(&sets).unwrap_or_default()
    }

    /// Refuses names that are not in `known`.
    pub fn only(self, known: &[&str]) -> Result<Self, FilterError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(FilterError::Unknown(name.clone())),
            None => Ok(self),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the filter was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|set| !set.is_empty())
    }

    /// The values of one filter.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The one value of a filter.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    /// All names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.0.iter().map(|(name, set)| (name.as_str(), set.iter().map(String::as_str)))
    }

    /// The filters as plain lists, for crates that do not know this one.
    pub fn to_lists(&self) -> BTreeMap<String, Vec<String>> {
        self.0.iter().map(|(name, set)| (name.clone(), set.iter().cloned().collect())).collect()
    }

    /// A yes-or-no filter.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, FilterError> {
        let Some(value) = self.one(name) else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" => Ok(Some(true)),
            "0" | "false" | "f" => Ok(Some(false)),
            _ => Err(FilterError::BadValue { name: name.to_owned(), value: value.to_owned() }),
        }
    }

    /// Whether `text` equals one of the values, or there is no such filter.
    pub fn exact(&self, name: &str, text: &str) -> bool {
        !self.has(name) || self.values(name).any(|value| value == text)
    }

    /// Whether `text` contains one of the values, or there is no such filter.
    pub fn part(&self, name: &str, text: &str) -> bool {
        !self.has(name) || self.values(name).any(|value| text.contains(value))
    }

    /// Whether `text` begins with one of the values, or there is no such filter.
    pub fn prefix(&self, name: &str, text: &str) -> bool {
        !self.has(name) || self.values(name).any(|value| text.starts_with(value))
    }

    /// Whether the labels fit all of `label` (`key` or `key=value`) and none of `label!`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let fits = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").all(fits) && !self.values("label!").any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":{"a=b":true,"c":true,"d":false},"name":{"x":true}}"#).unwrap();
        let old = Filters::parse(r#"{"label":["a=b","c"],"name":["x"]}"#).unwrap();
        assert_eq!(new, old);
        assert_eq!(Filters::parse(&new.to_json()).unwrap(), new);
        assert!(Filters::parse("{").is_err());
        assert!(Filters::parse(r#"{"a":7}"#).is_err());
        assert!(Filters::parse("null").unwrap().is_empty());
    }

    #[test]
    fn labels_must_all_fit() {
        let filters = Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(filters.labels(&labels(&[("a", "b"), ("c", "")])));
        assert!(!filters.labels(&labels(&[("a", "x"), ("c", "")])));
        assert!(!filters.labels(&labels(&[("a", "b")])));
        assert!(!Filters::parse(r#"{"label!":["a"]}"#).unwrap().labels(&labels(&[("a", "b")])));
    }

    #[test]
    fn unknown_filters_are_refused() {
        let error = Filters::parse(r#"{"colour":["red"]}"#).unwrap().only(&["name"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'colour'");
    }
}
