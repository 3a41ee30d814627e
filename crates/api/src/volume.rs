//! Volumes: what create, list, inspect and prune take and answer.

use gantry_model::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `POST /volumes/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeCreateBody {
    /// Empty: 64 random hex digits.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Empty: `local`.
    #[serde(deserialize_with = "nullable")]
    pub driver: String,
    /// Options of the driver.
    #[serde(deserialize_with = "nullable")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Makes it a cluster volume: refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_volume_spec: Option<serde_json::Value>,
}

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeInfo {
    /// RFC 3339.
    pub created_at: String,
    /// Driver.
    pub driver: String,
    /// Labels; null when there are none.
    pub labels: Option<BTreeMap<String, String>>,
    /// Path on the host.
    pub mountpoint: String,
    /// Name.
    pub name: String,
    /// Options of the driver; null when there are none.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// Disk usage (in `GET /system/df` only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<VolumeUsage>,
}

/// Disk usage of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeUsage {
    /// Containers that use it.
    pub ref_count: i64,
    /// Bytes.
    pub size: i64,
}

/// Answer of `GET /volumes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeList {
    /// Volumes.
    #[serde(deserialize_with = "nullable")]
    pub volumes: Vec<VolumeInfo>,
    /// What is wrong with drivers.
    pub warnings: Option<Vec<String>>,
}

/// Answer of `POST /volumes/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumesPruned {
    /// Names; null when there were none.
    pub volumes_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}
