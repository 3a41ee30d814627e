//! `prune` of containers, images, networks, volumes, and of all of them.

use crate::client::{Call, Query};
use crate::command::prompt;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use crate::units;
use clap::Args;
use serde_json::Value;

/// What every prune takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Arguments for images and volumes.
#[derive(Debug, Args)]
pub struct WithAll {
    /// Remove all unused images (not just dangling ones), or all unused volumes (not just anonymous ones)
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `gantry system prune`.
#[derive(Debug, Args)]
pub struct WithVolumes {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Prune anonymous volumes too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    common: Common,
}

/// What the user asks for, of whatever kind.
#[derive(Debug)]
pub struct Request {
    all: bool,
    volumes: bool,
    common: Common,
}

impl From<Common> for Request {
    fn from(common: Common) -> Self {
        Self { all: false, volumes: false, common }
    }
}

impl From<WithAll> for Request {
    fn from(WithAll { all, common }: WithAll) -> Self {
        Self { all, volumes: false, common }
    }
}

impl From<WithVolumes> for Request {
    fn from(WithVolumes { all, volumes, common }: WithVolumes) -> Self {
        Self { all, volumes, common }
    }
}

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Stopped containers.
    Containers,
    /// Unused images.
    Images,
    /// Unused networks.
    Networks,
    /// Unused volumes.
    Volumes,
    /// All of these.
    System,
}

fn warning(what: What, request: &Request) -> String {
    let text = match (what, request.all) {
        (What::Containers, _) => "WARNING! This will remove all stopped containers.",
        (What::Images, false) => "WARNING! This will remove all dangling images.",
        (What::Images, true) => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        (What::Networks, _) => {
            "WARNING! This will remove all custom networks not used by at least one container."
        }
        (What::Volumes, false) => {
            "WARNING! This will remove anonymous local volumes not used by at least one container."
        }
        (What::Volumes, true) => {
            "WARNING! This will remove all local volumes not used by at least one container."
        }
        (What::System, _) => {
            let volumes = if request.volumes {
                "\n  - all anonymous volumes not used by at least one container"
            } else {
                ""
            };
            let images = if request.all {
                "all images without at least one container associated to them"
            } else {
                "all dangling images"
            };
            return format!(
                "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container{volumes}\n  - {images}\n\nAre you sure you want to continue?"
            );
        }
    };
    format!("{text}\nAre you sure you want to continue?")
}

/// Asks and removes.
pub async fn run(request: impl Into<Request>, what: What, context: &Context) -> Result<()> {
    let request = request.into();
    if !request.common.force && !prompt::confirmed(&warning(what, &request))? {
        return Ok(());
    }
    let mut reclaimed = 0;
    for step in steps(what, request.volumes) {
        let answer = context.client.json(Call::post(step.path).query(query(*step, &request)?)).await?;
        reclaimed += answer.int("SpaceReclaimed");
        table::out(&report(*step, &answer));
    }
    if what != What::Networks {
        table::line(&format!("Total reclaimed space: {}", units::size4(reclaimed)));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Step {
    what: What,
    path: &'static str,
    field: &'static str,
    head: &'static str,
}

const CONTAINERS: Step = Step {
    what: What::Containers,
    path: "/containers/prune",
    field: "ContainersDeleted",
    head: "Deleted Containers:",
};
const NETWORKS: Step = Step {
    what: What::Networks,
    path: "/networks/prune",
    field: "NetworksDeleted",
    head: "Deleted Networks:",
};
const VOLUMES: Step =
    Step { what: What::Volumes, path: "/volumes/prune", field: "VolumesDeleted", head: "Deleted Volumes:" };
const IMAGES: Step =
    Step { what: What::Images, path: "/images/prune", field: "ImagesDeleted", head: "Deleted Images:" };

/// Containers go first: they are what uses all else.
fn steps(what: What, volumes: bool) -> &'static [Step] {
    match what {
        What::Containers => &[CONTAINERS],
        What::Images => &[IMAGES],
        What::Networks => &[NETWORKS],
        What::Volumes => &[VOLUMES],
        What::System if volumes => &[CONTAINERS, NETWORKS, VOLUMES, IMAGES],
        What::System => &[CONTAINERS, NETWORKS, IMAGES],
    }
}

fn query(step: Step, request: &Request) -> Result<Query> {
    let mut filters = request.common.filter.clone();
    match step.what {
        What::Images => filters.push(format!("dangling={}", !request.all)),
        What::Volumes => {
            // Volumes have no age: Docker refuses `until` for them.
            filters.retain(|filter| !filter.starts_with("until="));
            if request.all {
                filters.push("all=true".to_owned());
            }
        }
        _ => {}
    }
    Query::new().filters(&filters)
}

fn report(step: Step, answer: &Value) -> String {
    let items: Vec<String> = answer
        .list(step.field)
        .iter()
        .map(|item| match (item.as_str(), item.text("Untagged"), item.text("Deleted")) {
            (Some(name), _, _) => name.to_owned(),
            (None, "", deleted) => format!("deleted: {deleted}"),
            (None, untagged, _) => format!("untagged: {untagged}"),
        })
        .collect();
    if items.is_empty() { String::new() } else { format!("{}\n{}\n\n", step.head, items.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_went_is_told() {
        let answer = json!({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:1"}]});
        assert_eq!(report(IMAGES, &answer), "Deleted Images:\nuntagged: a:1\ndeleted: sha256:1\n\n");
        assert_eq!(report(NETWORKS, &json!({"NetworksDeleted": null})), "");
    }
}
