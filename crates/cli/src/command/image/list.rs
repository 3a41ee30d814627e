//! `gantry images`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use crate::units;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Repository, with or without a tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

/// Lists images.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let mut filters = arguments.filter.clone();
    filters.extend(arguments.repository.iter().map(|name| format!("reference={name}")));
    let query = Query::new().flag("all", arguments.all).filters(&filters)?;
    let images = context.client.json(Call::get("/images/json").query(query)).await?;
    let format = context.format(arguments.format.as_deref(), "imagesFormat")?;
    list(&images, &arguments, Timestamp::now())
        .print(&Shape { format: format.as_deref(), quiet: arguments.quiet })
}

fn list(images: &Value, arguments: &Arguments, now: Timestamp) -> List {
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    if arguments.digests {
        columns.push(("DIGEST", "Digest"));
    }
    columns.extend([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")]);
    let mut list = List::new(&columns, "ID").with_fields(&[
        ("DIGEST", "Digest"),
        ("CREATED AT", "CreatedAt"),
        ("CONTAINERS", "Containers"),
        ("SHARED SIZE", "SharedSize"),
        ("UNIQUE SIZE", "UniqueSize"),
        ("VIRTUAL SIZE", "VirtualSize"),
    ]);
    for image in images.list("") {
        for (repository, tag, digest) in names(image, arguments.digests) {
            let id = image.text("Id");
            let created = Timestamp::from_second(image.int("Created")).ok().filter(|t| t.as_second() > 0);
            let optional = |path: &str| match image.int(path) {
                n if n < 0 => "N/A".to_owned(),
                n => n.to_string(),
            };
            list.push([
                ("Repository", repository),
                ("Tag", tag),
                ("Digest", digest),
                ("ID", if arguments.no_trunc { id.to_owned() } else { units::short_id(id) }),
                ("CreatedSince", units::ago(now, created)),
                ("CreatedAt", created.map(units::stamp).unwrap_or_else(|| "N/A".to_owned())),
                ("Size", units::size(image.int("Size"))),
                ("VirtualSize", units::size(image.int("Size"))),
                ("Containers", optional("Containers")),
                (
                    "SharedSize",
                    match image.int("SharedSize") {
                        n if n < 0 => "N/A".to_owned(),
                        n => units::size(n),
                    },
                ),
                ("UniqueSize", "N/A".to_owned()),
            ]);
        }
    }
    list
}

const NONE: &str = "<none>";

/// Repository, tag and digest of each name of an image.
fn names(image: &Value, digests: bool) -> Vec<(String, String, String)> {
    let texts = |path: &str| -> Vec<&str> {
        image.list(path).iter().filter_map(Value::as_str).filter(|t| !t.starts_with(NONE)).collect()
    };
    let digest_of: Vec<(&str, &str)> =
        texts("RepoDigests").iter().filter_map(|d| d.split_once('@')).collect();
    let mut rows = Vec::new();
    let mut told = Vec::new();
    for name in texts("RepoTags") {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, NONE));
        let digest = digest_of.iter().find(|(of, _)| *of == repository).map_or(NONE, |(_, digest)| digest);
        told.push(repository);
        rows.push((repository.to_owned(), tag.to_owned(), digest.to_owned()));
    }
    for (repository, digest) in digest_of.iter().filter(|(of, _)| !told.contains(of)) {
        if digests || rows.is_empty() {
            rows.push(((*repository).to_owned(), NONE.to_owned(), (*digest).to_owned()));
        }
    }
    if rows.is_empty() {
        rows.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let image = json!({"RepoTags": ["h:5000/a:1", "h:5000/a:2"], "RepoDigests": ["h:5000/a@sha256:d"]});
        let rows = names(&image, true);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0], ("h:5000/a".to_owned(), "1".to_owned(), "sha256:d".to_owned()));
        assert_eq!(names(&json!({"RepoTags": null, "RepoDigests": []}), false)[0].0, NONE);
    }
}
