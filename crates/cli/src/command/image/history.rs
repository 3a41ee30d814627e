//! `gantry history`

use crate::client::image_path;
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
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

/// Prints the layers of an image and the commands that made them.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let layers = context.client.get(format!("/images/{}/history", image_path(&arguments.image))).await?;
    let now = Timestamp::now();
    let created_column =
        if arguments.human { ("CREATED", "CreatedSince") } else { ("CREATED AT", "CreatedAt") };
    let columns = [
        ("IMAGE", "ID"),
        created_column,
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ];
    let mut list =
        List::new(&columns, "ID").with_fields(&[("CREATED AT", "CreatedAt"), ("CREATED", "CreatedSince")]);
    for layer in layers.list("") {
        let id = layer.text("Id");
        let created = Timestamp::from_second(layer.int("Created")).ok();
        let by = layer.text("CreatedBy").replace('\t', " ");
        list.push([
            ("ID", if arguments.no_trunc { id.to_owned() } else { units::short_id(id) }),
            ("CreatedSince", units::ago(now, created)),
            ("CreatedAt", created.map(|t| t.to_string()).unwrap_or_default()),
            ("CreatedBy", if arguments.no_trunc { by } else { units::ellipsis(&by, 45) }),
            (
                "Size",
                if arguments.human { units::size(layer.int("Size")) } else { layer.int("Size").to_string() },
            ),
            ("Comment", layer.text("Comment").to_owned()),
            ("Tags", layer.list("Tags").iter().filter_map(|t| t.as_str()).collect::<Vec<_>>().join(",")),
        ]);
    }
    list.print(&Shape { format: arguments.format.as_deref(), quiet: arguments.quiet })
}
