//! Marks nodes down whose heartbeats fail.

use super::Term;
use gantry_model::node::NodeState;
use std::time::Duration;

/// Heartbeats that may be missed.
const MISSED: u32 = 3;

pub async fn run(term: Term) {
    loop {
        let period = term.manager.heartbeat();
        if !term.pause((period / 4).max(Duration::from_millis(50))).await {
            return;
        }
        let limit = period * MISSED;
        let state = term.manager.store.read();
        for node in state.nodes().iter() {
            if !matches!(node.status.state, NodeState::Ready | NodeState::Unknown) {
                continue;
            }
            // A new leader has heard nobody yet: all have as long as if they had just spoken.
            let silent = term.manager.hub.last_heard(&node.id).unwrap_or(term.since).elapsed();
            if silent <= limit {
                continue;
            }
            tracing::warn!(node = %node.id, hostname = %node.description.hostname, seconds = silent.as_secs_f32(), "a node is down");
            term.manager.hub.dismiss(&node.id);
            let message = format!("no heartbeat for {} s", limit.as_secs_f32());
            let changed = term.manager.change_node(&node.id, |node| {
                let change = node.status.state != NodeState::Down;
                node.status.state = NodeState::Down;
                node.status.message.clone_from(&message);
                change
            });
            if let Err(error) = changed.await {
                tracing::debug!(%error, node = %node.id, "marking a node down failed; trying again");
            }
        }
    }
}
