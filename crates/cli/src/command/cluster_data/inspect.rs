//! `gantry secret inspect` and `gantry config inspect`

use crate::command::cluster_data::Data;
use crate::command::inspect::{self, Kind, Typed};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::{table, units};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// Prints secrets or configs as JSON, or in words with `--pretty`.
pub async fn run(arguments: Typed, data: Data, context: &Context) -> Result<()> {
    let kind = match data {
        Data::Secret => Kind::Secret,
        Data::Config => Kind::Config,
    };
    if !arguments.pretty {
        return inspect::typed(arguments, kind, context).await;
    }
    for name in &arguments.names {
        let object = inspect::object(kind, name, false, context).await?;
        table::out(&pretty(&object));
    }
    Ok(())
}

/// A config shows its content; a secret has none to show.
fn pretty(object: &Value) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: &str| out.push_str(&format!("{:<20}{value}\n", format!("{label}:")));
    line("ID", object.text("ID"));
    line("Name", object.text("Spec.Name"));
    for (key, value) in object.pairs("Spec.Labels") {
        line("Label", &format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    if !object.text("Spec.Driver.Name").is_empty() {
        line("Driver", object.text("Spec.Driver.Name"));
    }
    line("Created at", &units::precise_stamp(object.text("CreatedAt")));
    line("Updated at", &units::precise_stamp(object.text("UpdatedAt")));
    if let Ok(content) = BASE64_STANDARD.decode(object.text("Spec.Data"))
        && !content.is_empty()
    {
        out.push_str(&format!("Data:\n{}\n", String::from_utf8_lossy(&content)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_config_shows_its_content() {
        let text = pretty(&json!({"ID": "x", "Spec": {"Name": "c", "Labels": {"a": "b"}, "Data": "dm0="},
            "CreatedAt": "2026-11-21T08:47:03.5Z"}));
        assert!(text.contains("Name:               c\n") && text.ends_with("Data:\nvm\n"), "{text}");
        assert!(text.contains("a=b") && text.contains("2026-11-21 08:47:03.5 +0000 UTC"), "{text}");
    }
}
