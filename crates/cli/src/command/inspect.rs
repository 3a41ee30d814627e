//! `gantry inspect`, and `inspect` of every kind of object.

use crate::client::{Call, Query, image_path, segment};
use crate::command::container::path;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::table;
use crate::template::Template;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

/// Arguments of `gantry inspect`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long)]
    r#type: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// Arguments of `gantry KIND inspect`.
#[derive(Debug, Args)]
pub struct Typed {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    pub format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pub pretty: bool,
    /// Display total file sizes (containers), more details (networks)
    #[arg(short, long, visible_alias = "verbose", visible_short_alias = 'v')]
    pub size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NAME|ID")]
    pub names: Vec<String>,
}

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Container.
    Container,
    /// Image.
    Image,
    /// Network.
    Network,
    /// Volume.
    Volume,
    /// Node of the cluster.
    Node,
    /// Service of the cluster.
    Service,
    /// Task of the cluster.
    Task,
    /// Secret of the cluster.
    Secret,
    /// Config of the cluster.
    Config,
}

/// In the order in which Docker looks a name up.
const KINDS: [(Kind, &str); 9] = [
    (Kind::Container, "container"),
    (Kind::Image, "image"),
    (Kind::Network, "network"),
    (Kind::Volume, "volume"),
    (Kind::Service, "service"),
    (Kind::Task, "task"),
    (Kind::Node, "node"),
    (Kind::Secret, "secret"),
    (Kind::Config, "config"),
];

/// One object.
pub async fn object(kind: Kind, name: &str, details: bool, context: &Context) -> Result<Value> {
    let call = match kind {
        Kind::Container => Call::get(path(name, "/json")).query(Query::new().flag("size", details)),
        Kind::Image => Call::get(format!("/images/{}/json", image_path(name))),
        Kind::Network => {
            Call::get(format!("/networks/{}", segment(name))).query(Query::new().set("verbose", details))
        }
        Kind::Volume => Call::get(format!("/volumes/{}", segment(name))),
        Kind::Node if name == "self" => {
            let info = context.client.get("/info").await?;
            let id = crate::json::At::text(&info, "Swarm.NodeID").to_owned();
            Call::get(format!("/nodes/{}", segment(if id.is_empty() { name } else { &id })))
        }
        Kind::Node => Call::get(format!("/nodes/{}", segment(name))),
        Kind::Service => Call::get(format!("/services/{}", segment(name))),
        Kind::Task => Call::get(format!("/tasks/{}", segment(name))),
        Kind::Secret => Call::get(format!("/secrets/{}", segment(name))),
        Kind::Config => Call::get(format!("/configs/{}", segment(name))),
    };
    context.client.json(call).await
}

/// `gantry inspect`.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let kinds: Vec<Kind> = match &arguments.r#type {
        None => KINDS.iter().map(|(kind, _)| *kind).collect(),
        Some(wanted) => KINDS.iter().filter(|(_, name)| name == wanted).map(|(kind, _)| *kind).collect(),
    };
    if kinds.is_empty() {
        let name = arguments.r#type.as_deref().unwrap_or_default();
        return Err(Error::invalid(format!("\"{name}\" is not a valid value for --type")));
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &arguments.names {
        match first_of(&kinds, name, arguments.size, context).await? {
            Some(value) => found.push(value),
            None => {
                let kind = arguments.r#type.as_deref().unwrap_or("object");
                missing.push(format!("Error: No such {kind}: {name}"));
            }
        }
    }
    print(&found, &missing, arguments.format.as_deref())
}

async fn first_of(kinds: &[Kind], name: &str, size: bool, context: &Context) -> Result<Option<Value>> {
    for kind in kinds {
        match object(*kind, name, size, context).await {
            Ok(value) => return Ok(Some(value)),
            // A node outside of a cluster answers 503 for all that only clusters have, and some ids are malformed for others.
            Err(error) => match error.innermost() {
                Error::Daemon { status: 400 | 404 | 406 | 503, .. } => {}
                _ => return Err(error),
            },
        }
    }
    Ok(None)
}

/// `gantry KIND inspect`.
pub async fn typed(arguments: Typed, kind: Kind, context: &Context) -> Result<()> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &arguments.names {
        match object(kind, name, arguments.size, context).await {
            Ok(value) => found.push(value),
            Err(error) if matches!(error.innermost(), Error::Daemon { .. }) => missing.push(error.sentence()),
            Err(error) => return Err(error),
        }
    }
    print(&found, &missing, arguments.format.as_deref())
}

/// Prints objects and tells what was not found; anything missing makes the command fail.
pub fn print(found: &[Value], missing: &[String], format: Option<&str>) -> Result<()> {
    // One array, as Docker prints it, where other commands print an object a line.
    let text =
        if format == Some("json") { format!("{}\n", Value::from(found)) } else { render(found, format)? };
    table::out(&text);
    for text in missing {
        eprintln!("{text}");
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Several(missing.len())) }
}

/// An array indented by four spaces, one JSON object a line, or a template for each object.
pub fn render(found: &[Value], format: Option<&str>) -> Result<String> {
    match format {
        None | Some("") => Ok(indented(&found) + "\n"),
        Some("json") => Ok(found.iter().map(|value| format!("{value}\n")).collect()),
        Some(format) => {
            let template = Template::parse(&format.replace("\\n", "\n").replace("\\t", "\t"))?;
            let texts: Result<Vec<String>, _> = found.iter().map(|value| template.run(value)).collect();
            Ok(texts?.into_iter().map(|text| text + "\n").collect())
        }
    }
}

/// JSON as Docker indents it.
pub fn indented(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // Values that came from JSON can always be written to memory.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter));
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_shown_as_asked() {
        let found = [json!({"Id": "a"}), json!({"Id": "b"})];
        assert_eq!(render(&found, Some("{{.Id}}")).unwrap(), "a\nb\n");
        assert_eq!(render(&found, Some("json")).unwrap(), "{\"Id\":\"a\"}\n{\"Id\":\"b\"}\n");
        assert_eq!(render(&found[..1], None).unwrap(), "[\n    {\n        \"Id\": \"a\"\n    }\n]\n");
        assert_eq!(render(&[], None).unwrap(), "[]\n");
        assert!(render(&found, Some("{{.No}}")).is_err());
    }
}
