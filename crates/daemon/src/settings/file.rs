//! daemon.json: the same settings as the flags, with Docker's keys.

use super::{Pair, SettingsError};
use serde_json::Value;
use std::path::Path;

/// Reads the file as pairs of key and text; lists and maps become several pairs.
pub(super) fn read(path: &Path) -> Result<Vec<Pair>, SettingsError> {
    let text =
        std::fs::read(path).map_err(|source| SettingsError::ReadFile { path: path.to_owned(), source })?;
    let parsed: serde_json::Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|source| SettingsError::ParseFile { path: path.to_owned(), source })?;
    let mut pairs = Vec::new();
    for (key, value) in parsed {
        if !super::flags::known(&key) {
            return Err(SettingsError::UnknownKey { path: path.to_owned(), key });
        }
        flatten(&key, &value, &mut pairs);
    }
    Ok(pairs)
}

fn flatten(key: &str, value: &Value, pairs: &mut Vec<Pair>) {
    match (key, value) {
        ("features", _) | (_, Value::Null) => {}
        ("default-address-pools", Value::Array(pools)) => {
            for pool in pools {
                let text = format!("base={},size={}", scalar(&pool["base"]), scalar(&pool["size"]));
                pairs.push((key.to_owned(), text));
            }
        }
        ("proxies", Value::Object(proxies)) => {
            pairs.extend(proxies.iter().map(|(name, value)| (name.clone(), scalar(value))));
        }
        ("runtimes", Value::Object(runtimes)) => {
            for (name, runtime) in runtimes {
                pairs.push((key.to_owned(), format!("{name}={}", scalar(&runtime["path"]))));
            }
        }
        ("default-ulimits", Value::Object(limits)) => {
            for (name, limit) in limits {
                let text = format!("{name}={}:{}", scalar(&limit["Soft"]), scalar(&limit["Hard"]));
                pairs.push((key.to_owned(), text));
            }
        }
        (_, Value::Array(values)) => pairs.extend(values.iter().map(|value| (key.to_owned(), scalar(value)))),
        (_, Value::Object(map)) => {
            pairs.extend(
                map.iter().map(|(name, value)| (key.to_owned(), format!("{name}={}", scalar(value)))),
            );
        }
        (_, value) => pairs.push((key.to_owned(), scalar(value))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
