//! `gantry network ls`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use crate::units;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Lists networks.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let query = Query::new().filters(&arguments.filter)?;
    let networks = context.client.json(Call::get("/networks").query(query)).await?;
    let format = context.format(arguments.format.as_deref(), "networksFormat")?;
    let mut sorted = networks.list("").to_vec();
    sorted.sort_by(|a, b| a.text("Name").cmp(b.text("Name")));
    let mut list =
        List::new(&[("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")], "ID")
            .with_fields(&[
                ("IPV4", "IPv4"),
                ("IPV6", "IPv6"),
                ("INTERNAL", "Internal"),
                ("LABELS", "Labels"),
                ("CREATED AT", "CreatedAt"),
            ]);
    for network in &sorted {
        let id = network.text("Id");
        list.push([
            ("ID", if arguments.no_trunc { id.to_owned() } else { units::short_id(id) }),
            ("Name", network.text("Name").to_owned()),
            ("Driver", network.text("Driver").to_owned()),
            ("Scope", network.text("Scope").to_owned()),
            ("IPv4", network.at("EnableIPv4").as_bool().unwrap_or(true).to_string()),
            ("IPv6", network.flag("EnableIPv6").to_string()),
            ("Internal", network.flag("Internal").to_string()),
            ("Labels", network.labels("Labels")),
            ("CreatedAt", units::precise_stamp(network.text("Created"))),
        ]);
    }
    list.print(&Shape { format: format.as_deref(), quiet: arguments.quiet })
}
