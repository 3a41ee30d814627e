//! The daemon's parts, as every handler sees them.

use crate::host::Host;
use crate::pull::Puller;
use crate::settings::Settings;
use gantry_cluster::Cluster;
use gantry_engine::{ContainerView, Engine};
use gantry_images::Store;
use gantry_network::Networks;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

/// The parts of a running daemon; shared by all handlers.
pub struct Daemon {
    /// What the daemon was told.
    pub settings: Settings,
    /// Facts about the machine.
    pub host: Host,
    /// Identity of this daemon, kept in its data folder.
    pub id: String,
    /// Host name in answers and in the cluster.
    pub name: String,
    /// Images.
    pub images: Arc<Store>,
    /// Pulls with this node's settings.
    pub puller: Arc<Puller>,
    /// Networks of this node.
    pub networks: Arc<Networks>,
    /// Containers, volumes, events.
    pub engine: Engine,
    /// This node's part in a cluster.
    pub cluster: Cluster,
    /// Clients that follow events right now.
    pub listeners: Arc<AtomicI64>,
}

/// How handlers get at it.
pub type Shared = axum::extract::State<Arc<Daemon>>;

impl Daemon {
    /// The image's name as lists of containers show it: as the user named it while that still means the same image.
    pub fn image_name(&self, container: &ContainerView) -> String {
        let named = &container.config.image;
        match self.images.resolve(named) {
            Ok(id) if id.to_string() == container.image_id => named.clone(),
            _ => container.image_id.clone(),
        }
    }

    /// Number of images.
    pub fn image_count(&self) -> usize {
        self.images.list().len()
    }

    /// What does not work on this machine.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut need = |there: bool, text: &str| {
            if !there {
                warnings.push(format!("WARNING: {text}"));
            }
        };
        need(crate::host::has_controller("memory"), "No memory limit support");
        need(crate::host::has_controller("cpu"), "No cpu limit support");
        need(crate::host::has_controller("pids"), "No pids limit support");
        need(crate::host::forwarding(), "IPv4 forwarding is disabled");
        warnings
    }
}
