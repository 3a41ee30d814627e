//! The agent's file: the last orders and what was observed, so that a node starts again without any manager.

use super::Agent;
use crate::error::{Error, Result};
use crate::identity::files;
use crate::identity::vault::Vault;
use crate::orders::Orders;
use gantry_model::id::TaskId;
use gantry_model::task::TaskStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What the vault knows the file as.
const ORDERS: &str = "this node's orders";
/// Reports within this time are written together.
const GROUP: Duration = Duration::from_millis(100);

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Version of the format.
    pub format: u32,
    /// The last orders.
    pub orders: Orders,
    /// What was observed.
    pub statuses: BTreeMap<TaskId, TaskStatus>,
}

/// Reads the file, if there is one. Blocks.
pub fn load(folder: &Path, vault: &Vault) -> Result<Option<Saved>> {
    let path = folder.join("agent.json");
    let act = || format!("read {}", path.display());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::trouble(act(), &e)),
    };
    let bytes = vault.unseal(ORDERS, bytes).map_err(|e| Error::trouble(act(), &e))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::trouble(act(), &e))
}

/// Writes the newest orders and reports. Returns when they are durable. One writer at a time, so that the newest are written last.
pub async fn save(agent: &Agent) -> Result<()> {
    let shared = &agent.shared;
    let _writer = shared.disk.lock().await;
    let Some(orders) = shared.orders.borrow().clone() else { return Ok(()) };
    let saved = Saved { format: 1, orders, statuses: shared.reports.all() };
    let (folder, vault) = (shared.config.folder.clone(), shared.config.vault.clone());
    let written = tokio::task::spawn_blocking(move || {
        let bytes = serde_json::to_vec(&saved).map_err(|e| Error::trouble("write the agent's file", &e))?;
        let bytes = vault.seal(ORDERS, &bytes).map_err(|e| Error::trouble("write the agent's file", &e))?;
        files::make_folder(&folder)
            .and_then(|()| files::replace(&folder.join("agent.json"), &bytes))
            .map_err(|e| Error::trouble("write the agent's file", &e))
    });
    written.await.map_err(|e| Error::trouble("write the agent's file", &e))?
}

/// Writes what was observed, until the agent stops. Orders are written by whoever is about to follow them.
pub async fn keep(agent: Agent) {
    let mut changes = agent.shared.reports.changes();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = agent.shared.stop.cancelled() => return,
        }
        tokio::time::sleep(GROUP).await;
        changes.borrow_and_update();
        if let Err(error) = save(&agent).await {
            tracing::error!(%error, "this node would start with old reports");
        }
    }
}
