//! Volumes as the Docker Engine API describes them.

use crate::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The body of `POST /volumes/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeSpec {
    /// Name; empty: one is made up.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// `local` or empty.
    #[serde(deserialize_with = "nullable")]
    pub driver: String,
    /// Options of the driver.
    #[serde(deserialize_with = "nullable")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

/// A volume of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    /// RFC 3339.
    pub created_at: String,
    /// Driver.
    pub driver: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Folder on the host.
    pub mountpoint: String,
    /// Name.
    pub name: String,
    /// Options of the driver.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
}
