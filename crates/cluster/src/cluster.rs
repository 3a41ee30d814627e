//! The handle that the HTTP daemon holds: this node in the cluster, or outside any.

pub mod lifecycle;
pub mod read;
pub mod write;

use crate::config::{ClusterConfig, LocalInfo, LocalNodeState};
use crate::error::{Error, Result};
use crate::manager::Manager;
use crate::manager::events::ClusterEvent;
use crate::node::{Layout, Node, Settings};
use gantry_model::node::NodeRole;
use gantry_planner::State;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// This node's part in a cluster; clones are handles to the same.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    config: ClusterConfig,
    layout: Layout,
    slot: RwLock<Slot>,
    /// Init, join, leave and shutdown exclude each other.
    changing: tokio::sync::Mutex<()>,
    events: tokio::sync::broadcast::Sender<ClusterEvent>,
    stop: CancellationToken,
}

/// What this node is.
#[derive(Clone)]
enum Slot {
    /// Part of no cluster.
    Outside,
    /// Joining.
    Joining,
    /// Part of a cluster, and it does not start: why, and it is tried again.
    Failing(String),
    /// Part of a cluster, and it needs the unlock key to go on.
    Locked(Settings),
    /// Part of a cluster.
    Inside(Node),
}

impl Cluster {
    fn slot(&self) -> Slot {
        self.shared.slot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_slot(&self, slot: Slot) {
        *self.shared.slot.write().unwrap_or_else(PoisonError::into_inner) = slot;
    }

    fn inside(&self) -> Result<Node> {
        match self.slot() {
            Slot::Inside(node) => Ok(node),
            Slot::Outside | Slot::Joining => Err(Error::not_in_swarm()),
            Slot::Locked(_) => Err(Error::locked()),
            Slot::Failing(why) => {
                Err(Error::unavailable(format!("this node's part in the swarm does not start: {why}")))
            }
        }
    }

    fn manager(&self) -> Result<Manager> {
        let manager = self.inside()?.manager().ok_or_else(Error::not_manager)?;
        match manager.store.stopped() {
            Some(why) => Err(lifecycle::raft_stopped(&why)),
            None => Ok(manager),
        }
    }

    /// The whole state as this manager knows it; also while there is no leader. For filters and joins of the daemon.
    pub fn state(&self) -> Result<Arc<State>> {
        let state = self.manager()?.store.read();
        if state.cluster().is_none() {
            return Err(Error::no_leader());
        }
        Ok(state)
    }

    /// Follows what happens to services, nodes, networks, secrets and configs while this node is a manager.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<ClusterEvent> {
        self.shared.events.subscribe()
    }

    /// This node: the `Swarm` section of `docker info`.
    pub fn info(&self) -> LocalInfo {
        let node = match self.slot() {
            Slot::Outside => return LocalInfo::default(),
            Slot::Joining => {
                return LocalInfo { local_node_state: LocalNodeState::Pending, ..LocalInfo::default() };
            }
            Slot::Failing(error) => {
                return LocalInfo { local_node_state: LocalNodeState::Error, error, ..LocalInfo::default() };
            }
            Slot::Locked(settings) => {
                return LocalInfo {
                    node_addr: crate::node::address::host(&settings.advertise).to_owned(),
                    node_id: settings.node_id,
                    local_node_state: LocalNodeState::Locked,
                    ..LocalInfo::default()
                };
            }
            Slot::Inside(node) => node,
        };
        let settings = node.settings();
        let (local_node_state, error) = lifecycle::condition(&node);
        let mut info = LocalInfo {
            node_id: settings.node_id.clone(),
            node_addr: crate::node::address::host(&settings.advertise).to_owned(),
            local_node_state,
            error,
            remote_managers: settings
                .managers
                .into_iter()
                .filter(|manager| !manager.node_id.is_empty())
                .collect(),
            ..LocalInfo::default()
        };
        if let Some(manager) = node.manager() {
            let state = manager.store.read();
            info.control_available = state.cluster().is_some();
            info.cluster = state.cluster().map(|record| record.cluster.clone());
            info.nodes = u64::try_from(state.nodes().len()).unwrap_or(u64::MAX);
            let managers = state.nodes().iter().filter(|node| node.spec.role == NodeRole::Manager).count();
            info.managers = u64::try_from(managers).unwrap_or(u64::MAX);
            info.remote_managers = manager.store.members();
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InitRequest, JoinRequest};
    use crate::control::request::AttachRequest;
    use gantry_model::network::NetworkSpec;

    /// Compiles only if the daemon can hold these futures in its tasks.
    #[allow(dead_code)]
    fn futures_can_move_between_threads(cluster: &Cluster) {
        fn send<T: Send>(_: T) {}
        send(cluster.init(InitRequest::default()));
        send(cluster.join(JoinRequest::default()));
        send(cluster.leave(true));
        send(cluster.shutdown());
        send(cluster.attach_network(AttachRequest::default()));
        send(cluster.create_network(NetworkSpec::default()));
        send(cluster.service_logs("", crate::executor::LogOptions::default()));
        send(cluster.services());
    }
}
