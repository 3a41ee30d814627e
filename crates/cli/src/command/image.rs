//! `gantry image …`

pub mod history;
pub mod import;
pub mod list;
pub mod load;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod tag;

use crate::command::{inspect, prune};
use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Management of images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Show the history of an image
    History(history::Arguments),
    /// Import the contents from a tarball to create a filesystem image
    Import(import::Arguments),
    /// Display detailed information on one or more images
    Inspect(inspect::Typed),
    /// Load an image from a tar archive or STDIN
    Load(load::Arguments),
    /// List images
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Remove unused images
    Prune(prune::WithAll),
    /// Download an image from a registry
    Pull(pull::Arguments),
    /// Upload an image to a registry
    Push(push::Arguments),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(save::Arguments),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(tag::Arguments),
}

impl Image {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Image::History(arguments) => history::run(arguments, context).await,
            Image::Import(arguments) => import::run(arguments, context).await,
            Image::Inspect(arguments) => inspect::typed(arguments, inspect::Kind::Image, context).await,
            Image::Load(arguments) => load::run(arguments, context).await,
            Image::Ls(arguments) => list::run(arguments, context).await,
            Image::Prune(arguments) => prune::run(arguments, prune::What::Images, context).await,
            Image::Pull(arguments) => pull::run(arguments, context).await,
            Image::Push(arguments) => push::run(arguments, context).await,
            Image::Rm(arguments) => rm::run(arguments, context).await,
            Image::Save(arguments) => save::run(arguments, context).await,
            Image::Tag(arguments) => tag::run(arguments, context).await,
        }
    }
}
