//! `gantry pull`

use crate::client::{Call, Query, frames::Documents};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::progress::{self, Show};
use crate::table;
use clap::Args;
use gantry_model::reference::Reference;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Skip image verification (nothing is signed: accepted, without effect)
    #[arg(long, hide = true, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: bool,
    /// Image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

/// Pulls an image and prints its name.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let reference = Reference::parse(&arguments.image).map_err(|e| Error::invalid(e.to_string()))?;
    if arguments.all_tags && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(Error::invalid("tag can't be used with --all-tags/-a"));
    }
    let whole = if arguments.all_tags { reference } else { reference.with_default_tag() };
    if !arguments.all_tags && !arguments.quiet && !arguments.image.contains('@') && !has_tag(&arguments.image)
    {
        table::line("Using default tag: latest");
    }
    let mut call = call(context, &whole.familiar(), arguments.platform.as_deref())?;
    if arguments.all_tags {
        call = all_tags(context, &whole, arguments.platform.as_deref())?;
    }
    let documents = Documents::new(context.client.send(call).await?.into_body());
    progress::follow(documents, if arguments.quiet { Show::Nothing } else { Show::Stdout }, |_| {}).await?;
    table::line(&whole.to_string());
    Ok(())
}

fn has_tag(image: &str) -> bool {
    image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// The request that pulls an image.
pub fn call(context: &Context, image: &str, platform: Option<&str>) -> Result<Call> {
    let reference = Reference::parse(image).map_err(|e| Error::invalid(e.to_string()))?.with_default_tag();
    let query = Query::new()
        .set("fromImage", reference.familiar_name())
        .set("tag", reference.selector())
        .option("platform", platform);
    Ok(Call::post("/images/create")
        .query(query)
        .header_option("X-Registry-Auth", context.config()?.header_for(image)?))
}

fn all_tags(context: &Context, reference: &Reference, platform: Option<&str>) -> Result<Call> {
    let name = reference.familiar_name();
    let auth = context.config()?.header_for(&name)?;
    let query = Query::new().set("fromImage", name).option("platform", platform);
    Ok(Call::post("/images/create").query(query).header_option("X-Registry-Auth", auth))
}
