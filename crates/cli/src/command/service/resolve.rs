//! Pins the image of a service to the digest that its registry has now, so that every node runs the same.

use crate::client::{Call, image_path};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use gantry_model::digest::Digest;
use gantry_model::node::NodePlatform;
use gantry_model::reference::Reference;
use gantry_model::service::TaskSpec;
use serde_json::Value;

/// Asks the registry through the daemon, and writes digest and platforms into the template. A registry that does not answer is no
/// error: the nodes may have the image, or reach a registry that this one does not.
pub async fn pin(template: &mut TaskSpec, context: &Context) -> Result<()> {
    let Some(container) = template.container_spec.as_mut() else { return Ok(()) };
    let Ok(reference) = Reference::parse(&container.image) else { return Ok(()) };
    if reference.digest().is_some() {
        return Ok(());
    }
    let path = format!("/distribution/{}/json", image_path(&container.image));
    let auth = context.config()?.header_for(&container.image)?;
    let Ok(answer) = context.client.json(Call::get(path).header_option("X-Registry-Auth", auth)).await else {
        eprintln!(
            "image {0} could not be accessed on a registry to record its digest. Each node will access {0} independently, possibly leading to different nodes running different versions of the image.",
            container.image
        );
        return Ok(());
    };
    if let Some(pinned) = pinned(&reference, &answer) {
        container.image = pinned;
        template.placement.platforms = platforms(&answer);
    }
    Ok(())
}

fn pinned(reference: &Reference, answer: &Value) -> Option<String> {
    let digest = Digest::parse(answer["Descriptor"].text("digest")).ok()?;
    Some(format!("{}@{digest}", reference.clone().with_default_tag().familiar()))
}

fn platforms(answer: &Value) -> Vec<NodePlatform> {
    let of = |platform: &Value| NodePlatform {
        architecture: platform.text("architecture").to_owned(),
        os: platform.text("os").to_owned(),
    };
    answer.list("Platforms").iter().map(of).filter(|platform| !platform.os.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_digest_of_the_registry_is_added_to_the_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let answer = json!({"Descriptor": {"digest": digest}, "Platforms": [{"architecture": "amd64", "os": "linux"}]});
        let reference = Reference::parse("10.0.0.1:5000/sample:1").unwrap();
        assert_eq!(pinned(&reference, &answer), Some(format!("10.0.0.1:5000/sample:1@{digest}")));
        assert_eq!(platforms(&answer)[0].architecture, "amd64");
        assert_eq!(pinned(&reference, &json!({"Descriptor": {"digest": "sha256:short"}})), None);
    }
}
