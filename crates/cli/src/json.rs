//! Reading answers of the API that are only printed: a value at a path, or the type's empty value.

use serde_json::Value;

/// Access by dotted paths.
pub trait At {
    /// The value at a dotted path, or null.
    fn at(&self, path: &str) -> &Value;
    /// The text at a path, or the empty text.
    fn text(&self, path: &str) -> &str;
    /// The number at a path, or 0.
    fn int(&self, path: &str) -> i64;
    /// The switch at a path, or false.
    fn flag(&self, path: &str) -> bool;
    /// The list at a path, or the empty list.
    fn list(&self, path: &str) -> &[Value];
    /// Names and values of the object at a path.
    fn pairs(&self, path: &str) -> Vec<(&str, &Value)>;
    /// The map of texts at a path as `a=b,c=d`.
    fn labels(&self, path: &str) -> String;
}

static NULL: Value = Value::Null;

impl At for Value {
    fn at(&self, path: &str) -> &Value {
        let mut value = self;
        if path.is_empty() {
            return value;
        }
        for key in path.split('.') {
            value = value.get(key).unwrap_or(&NULL);
        }
        value
    }

    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }

    fn int(&self, path: &str) -> i64 {
        let value = self.at(path);
        value.as_i64().or_else(|| value.as_f64().map(|f| f as i64)).unwrap_or_default()
    }

    fn flag(&self, path: &str) -> bool {
        self.at(path).as_bool().unwrap_or_default()
    }

    fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn pairs(&self, path: &str) -> Vec<(&str, &Value)> {
        self.at(path)
            .as_object()
            .map(|map| map.iter().map(|(k, v)| (k.as_str(), v)).collect())
            .unwrap_or_default()
    }

    fn labels(&self, path: &str) -> String {
        let pairs: Vec<String> =
            self.pairs(path).iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_reads_as_empty() {
        let value = serde_json::json!({"A": {"B": "x", "N": 3}, "L": {"b": "2", "a": "1"}});
        assert_eq!(value.text("A.B"), "x");
        assert_eq!(value.int("A.N"), 3);
        assert_eq!(value.text("A.C.D"), "");
        assert_eq!(value.labels("L"), "a=1,b=2");
        assert!(value.list("A").is_empty());
    }
}
