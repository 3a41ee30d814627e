//! A container's files: changes, export, and `docker cp`.

use crate::daemon::Shared;
use crate::http::{ApiError, Call, Reply, body, stream};
use axum::body::Body;
use axum::extract::{Path, Request};
use base64::Engine as _;
use gantry_api::container::{FilesystemChange, PathStat};
use gantry_engine::{Change, ChangeKind};
use http::{HeaderValue, StatusCode};

/// Header with what the path is.
const STAT: &str = "x-docker-container-path-stat";

pub(super) async fn changes(daemon: Shared, Path(id): Path<String>) -> Reply {
    let found = daemon.engine.changes(&id).await?;
    let answer: Vec<FilesystemChange> = without_mount_points(found)
        .into_iter()
        .map(|change| FilesystemChange { kind: change.kind as u8, path: change.path })
        .collect();
    // Docker writes null, not an empty list, when nothing changed.
    stream::json(&(!answer.is_empty()).then_some(answer))
}

/// Places in every container on which something is mounted; Docker keeps them in a layer of its own and never lists them.
const MOUNT_POINTS: [&str; 8] =
    ["/.dockerenv", "/dev", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/proc", "/sys"];

/// Leaves the mount points out, and folders that only changed because of them.
fn without_mount_points(changes: Vec<Change>) -> Vec<Change> {
    let ours = |path: &str| {
        MOUNT_POINTS.iter().any(|point| {
            path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let (hidden, mut kept): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(|change| ours(&change.path));
    let beneath =
        |folder: &str, path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let paths: Vec<String> = kept.iter().map(|change| change.path.clone()).collect();
    kept.retain(|change| {
        let other = paths.iter().any(|path| beneath(&change.path, path));
        let only_ours = hidden.iter().any(|hidden| beneath(&change.path, &hidden.path)) && !other;
        change.kind != ChangeKind::Modified || !only_ours
    });
    kept
}

pub(super) async fn export(daemon: Shared, Path(id): Path<String>) -> Reply {
    Ok(stream::tar(daemon.engine.export(&id).await?))
}

pub(super) async fn head(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let stat = daemon.engine.archive_stat(&id, path(&call)?).await?;
    let mut response = axum::response::Response::new(Body::empty());
    response.headers_mut().insert(STAT, stat_header(&stat)?);
    Ok(response)
}

pub(super) async fn get(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let (stat, archive) = daemon.engine.archive_get(&id, path(&call)?).await?;
    let mut response = stream::tar(archive);
    response.headers_mut().insert(STAT, stat_header(&stat)?);
    Ok(response)
}

pub(super) async fn put(daemon: Shared, Path(id): Path<String>, call: Call, request: Request) -> Reply {
    let path = path(&call)?.to_owned();
    let keep_kind = call.query.flag("noOverwriteDirNonDir");
    let copy_owner = call.query.flag("copyUIDGID");
    let archive = Box::new(body::reader(request.into_body()));
    daemon.engine.archive_put(&id, &path, archive, keep_kind, copy_owner).await?;
    stream::empty(StatusCode::OK)
}

fn path(call: &Call) -> Result<&str, ApiError> {
    call.query.text("path").ok_or_else(|| ApiError::bad_request("missing query parameter: path"))
}

fn stat_header(stat: &gantry_engine::PathStat) -> Result<HeaderValue, ApiError> {
    let stat = PathStat {
        name: stat.name.clone(),
        size: stat.size,
        mode: stat.mode,
        mtime: gantry_api::time::format(stat.modified),
        link_target: stat.link_target.clone(),
    };
    let json = serde_json::to_vec(&stat).unwrap_or_default();
    let text = base64::engine::general_purpose::STANDARD.encode(json);
    HeaderValue::from_str(&text).map_err(|error| ApiError::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_no_changes() {
        let change = |kind, path: &str| Change { kind, path: path.to_owned() };
        let found = vec![
            change(ChangeKind::Added, "/dev"),
            change(ChangeKind::Modified, "/etc"),
            change(ChangeKind::Added, "/etc/hosts"),
            change(ChangeKind::Modified, "/home"),
            change(ChangeKind::Added, "/home/x"),
            change(ChangeKind::Added, "/device"),
        ];
        let kept = without_mount_points(found);
        assert_eq!(
            kept.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(),
            ["/home", "/home/x", "/device"]
        );
    }
}
