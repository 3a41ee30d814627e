//! `gantry rmi`

use crate::client::{Call, Query, image_path};
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Removes each image.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    each(&arguments.images, async |name| {
        let query = Query::new().flag("force", arguments.force).flag("noprune", arguments.no_prune);
        let call = Call::delete(format!("/images/{}", image_path(name))).query(query);
        match context.client.json(call).await {
            Err(error) if arguments.force && error.is_not_found() => eprintln!("{}", error.sentence()),
            answer => {
                for change in answer?.list("") {
                    match change.text("Deleted") {
                        "" => table::line(&format!("Untagged: {}", change.text("Untagged"))),
                        id => table::line(&format!("Deleted: {id}")),
                    }
                }
            }
        }
        Ok(None)
    })
    .await
}
