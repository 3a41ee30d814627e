//! Images: what list, inspect, history, delete, load and prune answer.

use crate::container::GraphDriver;
use gantry_model::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One image of `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageSummary {
    /// Containers that use it; -1: not counted.
    pub containers: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// `sha256:…`.
    pub id: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Always empty.
    pub parent_id: String,
    /// `name@sha256:…`.
    #[serde(deserialize_with = "nullable")]
    pub repo_digests: Vec<String>,
    /// `name:tag`.
    #[serde(deserialize_with = "nullable")]
    pub repo_tags: Vec<String>,
    /// Bytes shared with others; -1: not counted.
    pub shared_size: i64,
    /// Bytes.
    pub size: i64,
    /// The same (API before 1.44).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<i64>,
}

/// Answer of `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageInspect {
    /// `sha256:…`.
    pub id: String,
    /// `name:tag`.
    #[serde(deserialize_with = "nullable")]
    pub repo_tags: Vec<String>,
    /// `name@sha256:…`.
    #[serde(deserialize_with = "nullable")]
    pub repo_digests: Vec<String>,
    /// Always empty.
    pub parent: String,
    /// Comment.
    pub comment: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Always empty.
    pub docker_version: String,
    /// Author.
    pub author: String,
    /// The image's container configuration.
    pub config: serde_json::Value,
    /// `amd64` and so on.
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Bytes.
    pub size: i64,
    /// The same (API before 1.44).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<i64>,
    /// Where the layers are.
    #[serde(deserialize_with = "nullable")]
    pub graph_driver: GraphDriver,
    /// Layers.
    #[serde(rename = "RootFS", deserialize_with = "nullable")]
    pub root_fs: RootFs,
    /// Local facts.
    #[serde(deserialize_with = "nullable")]
    pub metadata: ImageMetadata,
}

/// Layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    pub r#type: String,
    /// diff ids, the lowest first.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// Local facts of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageMetadata {
    /// RFC 3339.
    pub last_tag_time: String,
}

/// One entry of `GET /images/{name}/history`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HistoryEntry {
    /// Comment.
    pub comment: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Command that made it.
    pub created_by: String,
    /// Image id, or `<missing>`.
    pub id: String,
    /// Bytes.
    pub size: i64,
    /// Tags.
    pub tags: Option<Vec<String>>,
}

/// One entry of `DELETE /images/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageDeleted {
    /// Name that was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged: Option<String>,
    /// Image that was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
}

/// Answer of `POST /images/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImagesPruned {
    /// What went; null when nothing.
    pub images_deleted: Option<Vec<ImageDeleted>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// Answer of `GET /distribution/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DistributionInspect {
    /// The manifest in the registry.
    pub descriptor: Descriptor,
    /// Platforms of the image.
    #[serde(deserialize_with = "nullable")]
    pub platforms: Vec<DistributionPlatform>,
}

/// A document in a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Descriptor {
    /// Media type.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Digest.
    pub digest: String,
    /// Bytes.
    pub size: i64,
}

/// A platform in lower-case keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DistributionPlatform {
    /// `amd64` and so on.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}
