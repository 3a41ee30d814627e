//! An assignment is all that one node needs to know: its tasks, and what they use.

use crate::state::State;
use gantry_model::id::{ConfigId, NodeId, SecretId};
use gantry_model::secret::{Config, Secret};
use gantry_model::task::Task;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// VXLAN identifier of the routing mesh; those of networks begin above it.
pub const MESH_VNI: u32 = 4096;

/// All that one node needs to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Assignment {
    /// The tasks that the node has or shall have; what is not here is to be removed.
    pub tasks: Vec<Task>,
    /// The secrets that these tasks use.
    pub secrets: Vec<Secret>,
    /// The configs that these tasks use.
    pub configs: Vec<Config>,
}

/// What a node needs to know. Ended tasks are not in it.
pub fn assignment(state: &State, node: &NodeId) -> Assignment {
    let mut tasks: Vec<Task> = state
        .tasks_of_node(node)
        .filter(|task| !task.status.state.is_terminal())
        .map(|task| task.as_ref().clone())
        .collect();
    tasks.sort_by(|a, b| a.id.cmp(&b.id));
    let containers = || tasks.iter().filter_map(|task| task.spec.container_spec.as_ref());
    let secrets: BTreeSet<&str> =
        containers().flat_map(|c| &c.secrets).map(|s| s.secret_id.as_str()).collect();
    let configs: BTreeSet<&str> =
        containers().flat_map(|c| &c.configs).map(|c| c.config_id.as_str()).collect();
    let secrets = secrets.into_iter().filter_map(|id| state.secret(&SecretId::parse(id).ok()?));
    let configs = configs.into_iter().filter_map(|id| state.config(&ConfigId::parse(id).ok()?));
    Assignment {
        secrets: secrets.map(|secret| secret.as_ref().clone()).collect(),
        configs: configs.map(|config| config.as_ref().clone()).collect(),
        tasks,
    }
}
