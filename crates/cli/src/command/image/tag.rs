//! `gantry tag`

use crate::client::{Query, image_path};
use crate::context::Context;
use crate::error::{Error, Result};
use clap::Args;
use gantry_model::reference::Reference;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Existing image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// New name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

/// Gives an image another name.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let target = Reference::parse(&arguments.target)
        .map_err(|e| Error::invalid(format!("{:?} is not a valid repository/tag: {e}", arguments.target)))?;
    if target.digest().is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    let query = Query::new().set("repo", target.familiar_name()).option("tag", target.tag());
    context.client.post(format!("/images/{}/tag", image_path(&arguments.source)), query).await.map(drop)
}
