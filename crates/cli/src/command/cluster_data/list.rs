//! `gantry secret ls` and `gantry config ls`

use crate::client::{Call, Query};
use crate::command::cluster_data::Data;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use crate::units;
use clap::Args;
use jiff::Timestamp;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Lists what is kept.
pub async fn run(arguments: Arguments, data: Data, context: &Context) -> Result<()> {
    let query = Query::new().filters(&arguments.filter)?;
    let all = context.client.json(Call::get(data.path()).query(query)).await?;
    let mut columns = vec![("ID", "ID"), ("NAME", "Name")];
    if data == Data::Secret {
        columns.push(("DRIVER", "Driver"));
    }
    columns.extend([("CREATED", "CreatedAt"), ("UPDATED", "UpdatedAt")]);
    let mut list = List::new(&columns, "ID").with_fields(&[("LABELS", "Labels")]);
    let now = Timestamp::now();
    for item in all.list("") {
        list.push([
            ("ID", item.text("ID").to_owned()),
            ("Name", item.text("Spec.Name").to_owned()),
            ("Driver", item.text("Spec.Driver.Name").to_owned()),
            ("CreatedAt", units::ago(now, units::moment(item.text("CreatedAt")))),
            ("UpdatedAt", units::ago(now, units::moment(item.text("UpdatedAt")))),
            ("Labels", item.labels("Spec.Labels")),
        ]);
    }
    list.print(&Shape { format: arguments.format.as_deref(), quiet: arguments.quiet })
}
