//! `gantry node update`

use crate::client::{Call, Query, segment};
use crate::command::inspect::{Kind, object};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::{syntax, table};
use clap::Args;
use gantry_model::node::{Availability, NodeRole, NodeSpec};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long)]
    availability: Option<String>,
    /// Add or update a node label (key=value)
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a node label if exists
    #[arg(long)]
    label_rm: Vec<String>,
    /// Role of the node ("worker", "manager")
    #[arg(long)]
    role: Option<String>,
    /// Node
    node: String,
}

/// Changes a node.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    change(&arguments.node, context, |spec| apply(&arguments, spec)).await?;
    table::line(&arguments.node);
    Ok(())
}

fn apply(arguments: &Arguments, spec: &mut NodeSpec) -> Result<()> {
    match arguments.availability.as_deref() {
        None => {}
        Some("active") => spec.availability = Availability::Active,
        Some("pause") => spec.availability = Availability::Pause,
        Some("drain") => spec.availability = Availability::Drain,
        Some(other) => {
            return Err(Error::invalid(format!(
                "invalid availability {other:?}, only active, pause and drain are supported"
            )));
        }
    }
    match arguments.role.as_deref() {
        None => {}
        Some("worker") => spec.role = NodeRole::Worker,
        Some("manager") => spec.role = NodeRole::Manager,
        Some(other) => {
            return Err(Error::invalid(format!(
                "invalid role {other:?}, only worker and manager are supported"
            )));
        }
    }
    spec.labels.extend(syntax::map(&arguments.label_add));
    for label in &arguments.label_rm {
        if spec.labels.remove(label).is_none() {
            return Err(Error::invalid(format!("key {label} doesn't exist in node's labels")));
        }
    }
    Ok(())
}

/// Reads a node's specification, changes it, and writes it back as the version that was read.
pub async fn change(node: &str, context: &Context, act: impl Fn(&mut NodeSpec) -> Result<()>) -> Result<()> {
    let current = object(Kind::Node, node, false, context).await?;
    let mut spec: NodeSpec = serde_json::from_value(current.at("Spec").clone())
        .map_err(|source| Error::Answer { act: format!("read the node {node}"), source })?;
    act(&mut spec)?;
    let query = Query::new().set("version", current.int("Version.Index"));
    let path = format!("/nodes/{}/update", segment(current.text("ID")));
    context.client.json(Call::post(path).query(query).json(&spec)).await.map(drop)
}
