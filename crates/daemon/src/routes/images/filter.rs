//! Which images of the store a list shows.

use crate::http::ApiError;
use gantry_api::filters::Filters;
use gantry_api::time::parse_bound;
use gantry_images::oci::ImageConfig;
use gantry_images::{Store, Summary};
use gantry_model::reference::Reference;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Names of filters that lists of images know.
const FILTERS: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

/// The images that the filters let through, newest first.
pub fn select(images: &Store, filters: &Filters) -> Result<Vec<Summary>, ApiError> {
    let filters = filters.clone().only(&FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let made = |name: &str| -> Result<Option<i64>, ApiError> {
        let Some(name) = filters.one(name) else { return Ok(None) };
        let image = images.get(name)?;
        Ok(Some(image.created().map_or(0, Timestamp::as_second)))
    };
    let (before, since) = (made("before")?, made("since")?);
    let until = parse_bound(filters.one("until").unwrap_or(""), Timestamp::now())?.map(Timestamp::as_second);
    let fits = |image: &Summary| {
        dangling.is_none_or(|wanted| image.repo_tags.is_empty() == wanted)
            && before.is_none_or(|bound| image.created < bound)
            && since.is_none_or(|bound| image.created > bound)
            && until.is_none_or(|bound| image.created < bound)
            && filters.labels(&image.labels)
    };
    let mut found: Vec<Summary> = images.list().into_iter().filter(fits).collect();
    if filters.has("reference") {
        let wanted = |name: &String| filters.values("reference").any(|pattern| names(pattern, name));
        for image in &mut found {
            image.repo_tags.retain(wanted);
            image.repo_digests.retain(wanted);
        }
        found.retain(|image| !image.repo_tags.is_empty() || !image.repo_digests.is_empty());
    }
    found.sort_by_key(|image| std::cmp::Reverse(image.created));
    Ok(found)
}

/// Whether a pattern means a name: the whole name or the name without its tag.
fn names(pattern: &str, name: &str) -> bool {
    let Ok(reference) = Reference::parse(name) else { return false };
    let forms = [reference.familiar(), reference.familiar_name(), reference.name()];
    // The pattern may be written in full: docker.io/library/busybox.
    let familiar = Reference::parse(pattern).map(|pattern| pattern.familiar()).ok();
    forms
        .iter()
        .any(|form| glob(pattern, form) || familiar.as_deref().is_some_and(|pattern| glob(pattern, form)))
}

/// Shell patterns where `*` and `?` do not cross a slash, as Go's `path.Match` has them (without classes).
fn glob(pattern: &str, text: &str) -> bool {
    fn rest(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', after)), _) => {
                let reach = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
                (0..=reach).any(|skip| rest(after, &text[skip..]))
            }
            (Some((b'?', after)), Some((byte, tail))) => *byte != b'/' && rest(after, tail),
            (Some((wanted, after)), Some((byte, tail))) => wanted == byte && rest(after, tail),
            _ => false,
        }
    }
    // Stars multiply the work; no honest pattern has many.
    pattern.bytes().filter(|byte| *byte == b'*').count() <= 8 && rest(pattern.as_bytes(), text.as_bytes())
}

/// Labels of an image.
pub fn labels(config: &ImageConfig) -> BTreeMap<String, String> {
    config.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names() {
        for (pattern, name) in [
            ("busybox", "busybox:latest"),
            ("busybox:latest", "busybox:latest"),
            ("busy*", "busybox:latest"),
            ("docker.io/library/busybox", "busybox:latest"),
            ("*:1", "web:1"),
            ("r:5000/*", "r:5000/web:1"),
        ] {
            assert!(names(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("busybox:1", "busybox:latest"), ("busy", "busybox:latest"), ("*", "a/b:1")] {
            assert!(!names(pattern, name), "{pattern} {name}");
        }
    }
}
