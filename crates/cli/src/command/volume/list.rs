//! `gantry volume ls`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

/// Lists volumes.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let query = Query::new().filters(&arguments.filter)?;
    let answer = context.client.json(Call::get("/volumes").query(query)).await?;
    let format = context.format(arguments.format.as_deref(), "volumesFormat")?;
    let mut volumes = answer.list("Volumes").to_vec();
    volumes.sort_by(|a, b| a.text("Name").cmp(b.text("Name")));
    let mut list = List::new(&[("DRIVER", "Driver"), ("VOLUME NAME", "Name")], "Name").with_fields(&[
        ("SCOPE", "Scope"),
        ("MOUNTPOINT", "Mountpoint"),
        ("LABELS", "Labels"),
        ("SIZE", "Size"),
        ("LINKS", "Links"),
        ("AVAILABILITY", "Availability"),
        ("GROUP", "Group"),
        ("STATUS", "Status"),
    ]);
    for volume in &volumes {
        list.push([
            ("Driver", volume.text("Driver").to_owned()),
            ("Name", volume.text("Name").to_owned()),
            ("Scope", volume.text("Scope").to_owned()),
            ("Mountpoint", volume.text("Mountpoint").to_owned()),
            ("Labels", volume.labels("Labels")),
            ("Size", "N/A".to_owned()),
            ("Links", "N/A".to_owned()),
            // Fields of cluster volumes, which scripts may ask for.
            ("Availability", "N/A".to_owned()),
            ("Group", "N/A".to_owned()),
            ("Status", "N/A".to_owned()),
        ]);
    }
    list.print(&Shape { format: format.as_deref(), quiet: arguments.quiet })
}
