//! The daemon's parts, as every handler sees them.

use crate::host::Host;
use crate::http::ApiError;
use crate::settings::Settings;
use gantry_api::image::ImageSummary;
use gantry_engine::{ContainerView, Engine};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

/// The parts of a running daemon; shared by all handlers.
#[derive(Debug)]
pub struct Daemon {
    /// What the daemon was told.
    pub settings: Settings,
    /// Facts about the machine.
    pub host: Host,
    /// Identity of this daemon, kept in its data folder.
    pub id: String,
    /// Host name in answers and in the cluster.
    pub name: String,
    /// Containers, volumes, events.
    pub engine: Engine,
    /// Clients that follow events right now.
    pub listeners: Arc<AtomicI64>,
}

/// How handlers get at it.
pub type Shared = axum::extract::State<Arc<Daemon>>;

impl Daemon {
    /// The image's name as lists of containers show it: as the user named it while that still means the same image.
    pub fn image_name(&self, container: &ContainerView) -> String {
        container.config.image.clone()
    }

    /// Number of images.
    pub fn image_count(&self) -> usize {
        0
    }

    /// Images and the bytes of all their layers, for `/system/df`.
    pub async fn image_usage(&self) -> Result<(Option<Vec<ImageSummary>>, i64), ApiError> {
        Ok((Some(Vec::new()), 0))
    }

    /// The `Swarm` header of `/_ping`.
    pub fn swarm_word(&self) -> &'static str {
        "inactive"
    }

    /// The `Swarm` section of `/info`.
    pub async fn swarm_section(&self) -> serde_json::Value {
        serde_json::json!({"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null})
    }

    /// What does not work on this machine.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
