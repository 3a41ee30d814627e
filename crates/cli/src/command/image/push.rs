//! `gantry push`

use crate::auth;
use crate::client::{Call, Query, frames::Documents, image_path};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::progress::{self, Show};
use crate::table;
use base64::Engine as _;
use clap::Args;
use gantry_model::reference::Reference;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push a platform-specific manifest as a single-platform image
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Skip image signing (nothing is signed: accepted, without effect)
    #[arg(long, hide = true, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: bool,
    /// Image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

/// Pushes an image.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let reference = Reference::parse(&arguments.image).map_err(|e| Error::invalid(e.to_string()))?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    if arguments.all_tags && reference.tag().is_some() {
        return Err(Error::invalid("tag can't be used with --all-tags/-a"));
    }
    let tag = if arguments.all_tags { None } else { Some(reference.selector()) };
    if tag.is_some() && reference.tag().is_none() && !arguments.quiet {
        table::line("Using default tag: latest");
    }
    // The API wants the header even from those who have no credentials.
    let header = match context.config()?.header_for(&arguments.image)? {
        Some(header) => header,
        None => base64::engine::general_purpose::URL_SAFE.encode(
            auth::auth_config(&auth::Credentials::default(), &auth::server_key(reference.domain()))
                .to_string(),
        ),
    };
    let query = Query::new().option("tag", tag).option("platform", arguments.platform);
    let path = format!("/images/{}/push", image_path(&reference.familiar_name()));
    let call = Call::post(path).query(query).header("X-Registry-Auth", header);
    let documents = Documents::new(context.client.send(call).await?.into_body());
    progress::follow(documents, if arguments.quiet { Show::Nothing } else { Show::Stdout }, |_| {}).await?;
    if arguments.quiet {
        table::line(&reference.to_string());
    }
    Ok(())
}
