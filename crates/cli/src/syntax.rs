//! The small languages of flags: ports, mounts, networks, environments, lists of `key=value`.

pub mod device;
pub mod environment;
pub mod mount;
pub mod network;
pub mod port;

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Splits one line of CSV, where a field may be quoted.
pub fn fields(text: &str) -> Result<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let last = fields.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields[last].push('"');
            }
            '"' if quoted => quoted = false,
            '"' if fields[last].is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => fields[last].push(c),
        }
    }
    if quoted {
        return Err(Error::invalid(format!("a quote is not closed in {text:?}")));
    }
    Ok(fields)
}

/// Splits words as a shell does for quotes and backslashes, without expanding anything.
pub fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!("a quote is not closed in {text:?}")));
    }
    words.extend(word);
    Ok(words)
}

/// `key=value` arguments as a map; a key without `=` has an empty value, as labels do.
pub fn map(arguments: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    arguments.iter().map(pair).collect()
}

/// `key=value` arguments as a map, where the `=` is needed.
pub fn strict_map(what: &str, arguments: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        pair.ok_or_else(|| {
            Error::invalid(format!("invalid argument {text:?} for {what}: expected key=value"))
        })
    };
    arguments.iter().map(pair).collect()
}

/// A Go boolean of a flag's field.
pub fn boolean(what: &str, text: &str) -> Result<bool> {
    match text {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!(
            "invalid value for {what}: {text} (must be \"true\", \"1\", \"false\", or \"0\")"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_may_be_quoted() {
        assert_eq!(fields(r#"a=1,"b=2,3",c"#).unwrap(), ["a=1", "b=2,3", "c"]);
        assert_eq!(fields(r#""x ""y""""#).unwrap(), [r#"x "y""#]);
        assert!(fields("\"a").is_err());
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(words(r#"sh -c 'a  b' "c\"d" e\ f """#).unwrap(), ["sh", "-c", "a  b", "c\"d", "e f", ""]);
        assert!(words("'a").is_err());
    }
}
