//! `gantry create`

use crate::client::{Call, Query, frames::Documents};
use crate::command::container::settings::{CreateRequest, Settings};
use crate::command::image::pull;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::progress::Show;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// Creates a container and prints its id.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let settings = arguments.settings;
    let request = settings.request(true).map_err(|e| e.with_status(125))?;
    let id = create(&settings, &request, context).await.map_err(|e| e.with_status(1))?;
    table::line(&id);
    Ok(())
}

/// Creates a container, pulling its image when `--pull` says so; returns the id.
pub async fn create(settings: &Settings, request: &CreateRequest, context: &Context) -> Result<String> {
    let reserved = settings.cidfile.as_deref().map(reserve_id_file).transpose()?;
    match settings.pull.as_str() {
        "always" => pull_for_run(settings, context).await?,
        "missing" | "never" => {}
        other => {
            return Err(Error::invalid(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            )));
        }
    }
    let send = async || {
        let query = Query::new()
            .option("name", settings.name.as_deref())
            .option("platform", settings.platform.as_deref());
        context.client.json(Call::post("/containers/create").query(query).json(request)).await
    };
    let answer = match send().await {
        Err(error) if error.is_not_found() && settings.pull == "missing" && is_about_image(&error) => {
            if !settings.quiet {
                eprintln!("Unable to find image '{}' locally", with_tag(settings.image()));
            }
            pull_for_run(settings, context).await?;
            send().await?
        }
        result => result?,
    };
    for warning in answer.list("Warnings") {
        eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
    }
    let id = answer.text("Id").to_owned();
    if let (Some(()), Some(path)) = (reserved, &settings.cidfile) {
        std::fs::write(path, &id)
            .map_err(Error::io(format!("write the container ID to {}", path.display())))?;
    }
    Ok(id)
}

/// The file must not exist: it may belong to another container.
fn reserve_id_file(path: &std::path::Path) -> Result<()> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(path).map(drop).map_err(|source| {
        Error::Io {
            act: format!(
                "container ID file {}: make sure the other container isn't running, or delete the file",
                path.display()
            ),
            source,
        }
    })
}

fn is_about_image(error: &Error) -> bool {
    error.sentence().to_lowercase().contains("no such image")
}

fn with_tag(image: &str) -> String {
    gantry_model::reference::Reference::parse(image)
        .map(|reference| reference.with_default_tag().familiar())
        .unwrap_or_else(|_| image.to_owned())
}

async fn pull_for_run(settings: &Settings, context: &Context) -> Result<()> {
    let call = pull::call(context, settings.image(), settings.platform.as_deref())?;
    let documents = Documents::new(context.client.send(call).await?.into_body());
    let show = if settings.quiet { Show::Nothing } else { Show::Stderr };
    crate::progress::follow(documents, show, |_| {}).await
}
