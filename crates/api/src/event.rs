//! Events: one JSON object a line.

use gantry_model::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventMessage {
    /// The action, for old clients (containers and images).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The actor's id, for old clients (containers and images).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The container's image, for old clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `network`, `volume`, `daemon`, `service`, `node`, `secret`, `config`.
    #[serde(rename = "Type")]
    pub r#type: String,
    /// What happened.
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: EventActor,
    /// `local` or `swarm`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// To whom an event happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventActor {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, exit code …
    #[serde(rename = "Attributes", deserialize_with = "nullable")]
    pub attributes: BTreeMap<String, String>,
}

impl EventMessage {
    /// Fills the keys of old clients in.
    pub fn with_legacy_keys(mut self) -> Self {
        if matches!(self.r#type.as_str(), "container" | "image") {
            self.status.clone_from(&self.action);
            self.id.clone_from(&self.actor.id);
            if self.r#type == "container" {
                self.from = self.actor.attributes.get("image").cloned().unwrap_or_default();
            }
        }
        self
    }
}
