//! `/system/df`: what takes how much of the disk.

use crate::daemon::Shared;
use crate::http::{ApiError, Call, Reply, stream};
use crate::routes::{containers, images, volumes};
use gantry_api::system::DiskUsage;
use gantry_api::volume::VolumeUsage;

/// What `type` may ask for.
const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];

pub(super) async fn disk_usage(daemon: Shared, call: Call) -> Reply {
    let kinds: Vec<&str> = call.query.all("type").collect();
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(kind)) {
        return Err(ApiError::bad_request(format!("unknown object type: {unknown}")));
    }
    let wanted = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let used = daemon.engine.disk_usage().await?;
    let mut answer = DiskUsage { build_cache: wanted("build-cache").then(Vec::new), ..DiskUsage::default() };
    if wanted("container") {
        let list = used.containers.iter().map(|(container, size)| {
            let mut item = containers::summary(&daemon, container);
            (item.size_rw, item.size_root_fs) = (Some(size.rw), Some(size.root_fs));
            item
        });
        answer.containers = Some(list.collect());
    }
    if wanted("volume") {
        let list = used.volumes.iter().map(|(volume, size, users)| {
            let mut info = volumes::info(volume);
            let ref_count = i64::try_from(*users).unwrap_or(i64::MAX);
            info.usage_data = Some(VolumeUsage { ref_count, size: *size });
            info
        });
        answer.volumes = Some(list.collect());
    }
    if wanted("image") {
        let (list, size) = images::usage(&daemon, &call).await?;
        (answer.images, answer.layers_size) = (Some(list), size);
    }
    stream::json(&answer)
}
