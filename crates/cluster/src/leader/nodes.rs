//! Marks nodes down whose heartbeats fail, and at once those that are dead by what all others say.

use super::Term;
use gantry_model::id::NodeId;
use gantry_model::node::{Node, NodeState};
use gantry_planner::State;
use gantry_planner::silence::{Evidence, dead_nodes};
use std::collections::BTreeSet;
use std::time::Duration;

/// Heartbeats that may be missed.
const MISSED: u32 = 3;
/// How often to look, at the least and at the most.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// Who spoke to the leader within this time is not dead, whatever others say.
const SPOKE: Duration = Duration::from_secs(2);

pub async fn run(term: Term) {
    let mut suspects = BTreeSet::new();
    loop {
        let period = term.manager.heartbeat();
        if !term.pause((period / 4).clamp(LOOK.0, LOOK.1)).await {
            return;
        }
        let state = term.manager.store.read();
        let dead = dead_nodes(&state, &evidence(&term, &state));
        // Twice in a row: when a network fails, its nodes do not all fall silent at the same moment.
        for id in dead.intersection(&suspects) {
            give_up(&term, id).await;
        }
        suspects = dead;
        let limit = period * MISSED;
        for node in state.nodes().iter() {
            if matches!(node.status.state, NodeState::Ready | NodeState::Unknown) {
                check_heartbeat(&term, node, limit).await;
            }
        }
    }
}

/// What is known of who hears whom. Managers speak to the leader by Raft as well.
fn evidence(term: &Term, state: &State) -> Evidence {
    let silent_for = term.manager.hub.silent_for();
    // Mostly nobody is silent, and nothing has to be gathered.
    if silent_for.values().all(BTreeSet::is_empty) || state.nodes().is_empty() {
        return Evidence::default();
    }
    let mut heard = term.manager.hub.heard_within(SPOKE);
    heard.extend(term.manager.store.reachable());
    Evidence { leader: term.manager.store.id().clone(), heard, silent_for }
}

async fn give_up(term: &Term, id: &NodeId) {
    let message = "most other nodes hear nothing of it, not even an answer of its kernel";
    mark(term, id, message, |node| !std::mem::replace(&mut node.status.gone, true)).await;
}

async fn check_heartbeat(term: &Term, node: &Node, limit: Duration) {
    // A new leader has heard nobody yet: all have as long as if they had just spoken.
    let silent = term.manager.hub.last_heard(&node.id).unwrap_or(term.since).elapsed();
    if silent > limit {
        let message = format!("no heartbeat for {} s{}", limit.as_secs_f32(), clue(term, &node.id));
        mark(term, &node.id, &message, |_| false).await;
    }
}

/// What else the leader knows of a node that sends no heartbeat: when its kernel is not silent, the machine is not to blame.
fn clue(term: &Term, id: &NodeId) -> String {
    let store = &term.manager.store;
    let unknown = |silent: &BTreeSet<NodeId>| silent.contains(id);
    if term.manager.hub.silent_for().get(store.id()).is_none_or(unknown) {
        return String::new();
    }
    let own = store.members().into_iter().find(|member| member.node_id == *store.id());
    let addr = own.map(|member| member.addr).unwrap_or_default();
    format!(", though its machine may live: its daemon does not run, or TCP from there to {addr} is blocked")
}

/// Marks a node down. `more` changes what else there is, and says whether it did.
async fn mark(term: &Term, id: &NodeId, message: &str, more: impl Fn(&mut Node) -> bool) {
    let changed = term.manager.change_node(id, |node| {
        let change = node.status.state != NodeState::Down;
        node.status.state = NodeState::Down;
        let change = more(node) || change;
        if change {
            tracing::warn!(node = %node.id, hostname = %node.description.hostname, message, "a node is down");
            term.manager.hub.dismiss(id);
            message.clone_into(&mut node.status.message);
        }
        change
    });
    if let Err(error) = changed.await {
        tracing::debug!(%error, node = %id, "marking a node down failed; trying again");
    }
}
