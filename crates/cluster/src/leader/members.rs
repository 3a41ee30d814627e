//! Keeps Raft's membership as the operator wants it, and shows it: removes demoted and deleted managers, notes who is reachable.
//! Promoted nodes come by themselves ([`crate::manager::control`]).

use super::Term;
use crate::manager::Manager;
use gantry_model::id::NodeId;
use gantry_model::node::{ManagerStatus, NodeRole};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often to look when nothing changes: reachability is not in the store.
const TICK: Duration = Duration::from_millis(250);

pub async fn run(term: Term) {
    let mut changes = term.manager.store.watch();
    loop {
        changes.borrow_and_update();
        reconcile(&term.manager).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
            () = term.end.cancelled() => return,
        }
    }
}

async fn reconcile(manager: &Manager) {
    let members: BTreeMap<NodeId, String> =
        manager.store.members().into_iter().map(|member| (member.node_id, member.addr)).collect();
    for id in members.keys() {
        let wanted = manager.store.read().node(id).map(|node| node.spec.role);
        if wanted != Some(NodeRole::Manager) {
            remove(manager, id).await;
        }
    }
    let (voters, reachable) = (manager.store.voters(), manager.store.reachable());
    let state = manager.store.read();
    for node in state.nodes().iter() {
        let wanted = voters.contains(&node.id).then(|| ManagerStatus {
            leader: node.id == *manager.store.id(),
            reachability: if reachable.contains(&node.id) { "reachable" } else { "unreachable" }.into(),
            addr: members.get(&node.id).cloned().unwrap_or_default(),
        });
        if node.manager_status == wanted {
            continue;
        }
        let reachability =
            |status: &Option<ManagerStatus>| status.as_ref().map(|status| status.reachability.clone());
        match (reachability(&node.manager_status), reachability(&wanted)) {
            (Some(old), Some(new)) if old != new && new == "reachable" => {
                tracing::info!(node = %node.id, hostname = %node.description.hostname, "a manager is reachable again");
            }
            (Some(old), Some(new)) if old != new => {
                tracing::warn!(node = %node.id, hostname = %node.description.hostname, "a manager is {new}");
            }
            _ => {}
        }
        let changed = manager.change_node(&node.id, |node| {
            let change = node.manager_status != wanted;
            node.manager_status.clone_from(&wanted);
            change
        });
        if let Err(error) = changed.await {
            tracing::debug!(%error, node = %node.id, "noting a manager's reachability failed; trying again");
        }
    }
}

async fn remove(manager: &Manager, id: &NodeId) {
    let _membership = manager.membership().await;
    // A learner that is just being added is not yet in question; the lock keeps us out until it is done.
    let still = manager.store.read().node(id).is_none_or(|node| node.spec.role != NodeRole::Manager);
    if !still {
        return;
    }
    let result = if id == manager.store.id() {
        manager.store.hand_over().await
    } else if !manager.store.can_lose(id) && manager.store.voters().contains(id) {
        return tracing::debug!(node = %id, "a demoted manager stays in Raft until a majority without it can be reached");
    } else {
        manager.store.remove_member(id).await
    };
    match result {
        Ok(()) => tracing::info!(node = %id, "a node is no manager any more"),
        Err(error) => tracing::warn!(node = %id, %error, "removing a manager from Raft failed; trying again"),
    }
}
