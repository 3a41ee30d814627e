//! Secrets and configs of the cluster.

use crate::id::{ConfigId, SecretId};
use crate::nullable;
use crate::service::{LogDriver as DriverRef, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A secret (Docker API: `Secret`); the API never shows its data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Secret {
    /// Id.
    #[serde(rename = "ID")]
    pub id: SecretId,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// Name, labels, data.
    pub spec: DataSpec,
}

/// A config (Docker API: `Config`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Id.
    #[serde(rename = "ID")]
    pub id: ConfigId,
    /// Version.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// Name, labels, data.
    pub spec: DataSpec,
}

/// What a secret or config holds.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DataSpec {
    /// Unique name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Base64; at most 500 KiB (secrets) or 1000 KiB (configs) decoded.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// External driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverRef>,
    /// Template driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<DriverRef>,
}

/// Prints everything but the data, so that no log ever holds a secret.
impl fmt::Debug for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSpec")
            .field("name", &self.name)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}
