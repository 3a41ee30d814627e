//! What only the leader does, from when it leads until it does not: plan, watch the nodes' heartbeats, keep Raft's membership as the
//! operator wants it. Each loop takes no data from what woke it: it looks at the store.

mod members;
mod nodes;
mod plan;

use crate::manager::Manager;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often leadership is looked at.
const TICK: Duration = Duration::from_millis(50);

/// One term of leadership, for the loops in it.
#[derive(Clone)]
struct Term {
    manager: Manager,
    /// When it began.
    since: Instant,
    /// Cancelled when it ends.
    end: CancellationToken,
}

impl Term {
    /// Waits; true when the term goes on.
    async fn pause(&self, span: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(span) => true,
            () = self.end.cancelled() => false,
        }
    }
}

/// Waits for leadership, then does what a leader does; until the manager stops.
pub async fn run(manager: Manager) {
    let stopped = manager.stopped();
    loop {
        while !manager.store.leads() {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = stopped.cancelled() => return,
            }
        }
        // A new leader has everything in its log that was decided, but need not have applied it: an empty batch behind it shows that it has.
        match manager.store.propose(Vec::new()).await {
            Ok(index) => manager.hub.leads_from(index),
            Err(_) => {
                tokio::time::sleep(TICK).await;
                continue;
            }
        }
        tracing::info!(node = %manager.store.id(), "this manager leads the swarm");
        lead(&manager, &stopped).await;
        manager.hub.close_all();
        manager.desk.clear();
        if stopped.is_cancelled() {
            return;
        }
        tracing::info!(node = %manager.store.id(), "this manager leads the swarm no more");
    }
}

async fn lead(manager: &Manager, stopped: &CancellationToken) {
    let term = Term { manager: manager.clone(), since: Instant::now(), end: stopped.child_token() };
    let watcher = async {
        while manager.store.leads() && term.pause(TICK).await {}
        term.end.cancel();
    };
    tokio::join!(watcher, plan::run(term.clone()), nodes::run(term.clone()), members::run(term.clone()));
}
