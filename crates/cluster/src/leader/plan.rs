//! Plans until there is nothing to do, then waits for a change or for the time that the plan named.

use super::Term;
use crate::raft::store::ProposeError;
use gantry_planner::{Ids, Planner};
use jiff::Timestamp;
use std::time::Duration;

/// Pause after a refusal: someone else was faster, and what they did is about to be visible.
const REFUSED: Duration = Duration::from_millis(5);
/// Pause when the store cannot be written.
const STUCK: Duration = Duration::from_millis(200);
/// Longest sleep: a clock that jumps must not stop the cluster.
const LONGEST: Duration = Duration::from_secs(30);

pub async fn run(term: Term) {
    let seed = match crate::identity::random() {
        Ok(seed) => seed,
        Err(error) => return tracing::error!(%error, "nothing can be planned"),
    };
    let mut changes = term.manager.store.watch();
    let mut mind = (Planner::default(), Ids::new(seed));
    while !term.end.is_cancelled() {
        changes.borrow_and_update();
        let state = term.manager.store.read();
        // A plan of a large cluster takes milliseconds in which this thread must not answer anyone else.
        let planned = tokio::task::spawn_blocking(move || {
            let plan = mind.0.plan(&state, Timestamp::now(), &mut mind.1);
            (mind, plan)
        });
        let plan = match planned.await {
            Ok((returned, plan)) => {
                mind = returned;
                plan
            }
            Err(error) => {
                tracing::error!(%error, "planning failed");
                mind = (Planner::default(), Ids::new(crate::identity::random().unwrap_or(seed)));
                term.pause(STUCK).await;
                continue;
            }
        };
        if plan.changes.is_empty() {
            let sleep = plan.wake_at.map_or(LONGEST, until);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
                () = term.end.cancelled() => return,
            }
            continue;
        }
        match term.manager.store.propose(plan.changes).await {
            Ok(_) => {}
            Err(ProposeError::Refused(refused)) => {
                tracing::debug!(error = %crate::error::chain(&refused), "the plan is overtaken; planning again");
                term.pause(REFUSED).await;
            }
            Err(error) => {
                tracing::debug!(error = %crate::error::chain(&error), "the plan could not be written");
                // It may still be decided: only behind an empty batch is it certain what the state is.
                while term.pause(STUCK).await && term.manager.store.propose(Vec::new()).await.is_err() {}
            }
        }
    }
}

fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default().min(LONGEST)
}
