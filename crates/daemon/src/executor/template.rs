//! The little template language of services: `{{.Service.Name}}`, `{{.Node.Hostname}}`, `{{.Task.Slot}}`, and labels by
//! `{{index .Service.Labels "key"}}`.

use gantry_cluster::executor::TaskContext;
use std::collections::BTreeMap;

/// Why a template cannot be filled in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("template {0:?}: no closing braces")]
    Unclosed(String),
    /// An expression that means nothing.
    #[error("template {template:?}: unknown expression {expression:?}")]
    Unknown {
        /// The whole text.
        template: String,
        /// The part between the braces.
        expression: String,
    },
}

/// What templates can refer to.
#[derive(Debug, Clone, Default)]
pub struct Values {
    fields: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
}

impl Values {
    /// The values of one task.
    pub fn of(context: &TaskContext) -> Self {
        let task = &context.task;
        // Tasks of global services have no number: the node's id stands for it.
        let slot = if task.slot == 0 { context.node_id.to_string() } else { task.slot.to_string() };
        let fields = BTreeMap::from([
            (".Service.ID", task.service_id.to_string()),
            (".Service.Name", task.service_name.clone()),
            (".Node.ID", context.node_id.to_string()),
            (".Node.Hostname", context.hostname.clone()),
            (".Node.Platform.OS", "linux".to_owned()),
            (".Node.Platform.Architecture", std::env::consts::ARCH.to_owned()),
            (".Task.ID", task.id.to_string()),
            (".Task.Name", super::container::task_name(context)),
            (".Task.Slot", slot),
        ]);
        Self { fields, labels: task.labels.clone() }
    }

    /// Fills a text in.
    pub fn expand(&self, text: &str) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            out.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let end = inner.find("}}").ok_or_else(|| TemplateError::Unclosed(text.to_owned()))?;
            out.push_str(self.value(text, inner[..end].trim())?);
            rest = &inner[end + 2..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value<'a>(&'a self, template: &str, expression: &str) -> Result<&'a str, TemplateError> {
        if let Some(value) = self.fields.get(expression) {
            return Ok(value);
        }
        let key = expression
            .strip_prefix("index .Service.Labels")
            .map(|key| key.trim().trim_matches(['"', '`']))
            .or_else(|| expression.strip_prefix(".Service.Labels."));
        match key {
            // Go's templates print nothing for a key that is not there.
            Some(key) => Ok(self.labels.get(key).map_or("", String::as_str)),
            None => Err(TemplateError::Unknown {
                template: template.to_owned(),
                expression: expression.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            fields: BTreeMap::from([(".Task.Slot", "3".to_owned()), (".Node.Hostname", "n1".to_owned())]),
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
        }
    }

    #[test]
    fn known_expressions_are_filled_in() {
        assert_eq!(values().expand("web-{{.Task.Slot}}.{{ .Node.Hostname }}").unwrap(), "web-3.n1");
        assert_eq!(values().expand("{{index .Service.Labels \"tier\"}}").unwrap(), "front");
        assert_eq!(values().expand("{{.Service.Labels.none}}x").unwrap(), "x");
        assert_eq!(values().expand("plain {}").unwrap(), "plain {}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            values().expand("a{{.Task.Colour}}").unwrap_err().to_string(),
            "template \"a{{.Task.Colour}}\": unknown expression \".Task.Colour\""
        );
        assert!(matches!(values().expand("{{.Task"), Err(TemplateError::Unclosed(_))));
    }
}
