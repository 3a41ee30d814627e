//! Restarts: whether, and how soon, a task that ended is followed by another in its slot.

use super::slot::Slot;
use crate::time;
use gantry_model::service::{Service, TaskRestartPolicy};
use gantry_model::task::{Task, TaskState};
use std::time::Duration;

/// Pause before a restart when the policy names none.
const DELAY: Duration = Duration::from_secs(5);
/// Largest number of attempts that is counted: each is a record in the store, and a client may ask for a million.
const MOST_ATTEMPTS: u64 = 1000;

/// What follows the end of a slot's newest task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another task, after this time.
    After(Duration),
    /// Nothing.
    Done,
}

/// What follows the end of a slot's newest task.
pub fn verdict(service: &Service, slot: &Slot) -> Verdict {
    let Some(ended) = slot.current() else { return Verdict::After(Duration::ZERO) };
    if stopped_by_managers(ended) {
        return Verdict::After(Duration::ZERO);
    }
    let default = TaskRestartPolicy::default();
    let policy = service.spec.task_template.restart_policy.as_ref().unwrap_or(&default);
    if !condition_met(service, policy, ended.status.state) || attempts_used_up(policy, slot, ended) {
        return Verdict::Done;
    }
    Verdict::After(policy.delay.map_or(DELAY, time::nanos))
}

/// Whether the task ended because the managers (or the loss of its node) ended it.
pub fn stopped_by_managers(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Shutdown | TaskState::Orphaned | TaskState::Remove)
}

fn condition_met(service: &Service, policy: &TaskRestartPolicy, state: TaskState) -> bool {
    let mode = &service.spec.mode;
    let is_job = mode.replicated_job.is_some() || mode.global_job.is_some();
    match policy.condition.as_str() {
        "none" => false,
        "on-failure" => state != TaskState::Complete,
        // A job's task that completed is what the job is for.
        _ => !is_job || state != TaskState::Complete,
    }
}

fn attempts_used_up(policy: &TaskRestartPolicy, slot: &Slot, ended: &Task) -> bool {
    let max = policy.max_attempts.unwrap_or(0).min(MOST_ATTEMPTS);
    if max == 0 {
        return false;
    }
    let window = policy.window.map_or(Duration::ZERO, time::nanos);
    let counts_from = match time::parse(&ended.ended_at) {
        Some(end) if !window.is_zero() => time::text(
            end.checked_sub(jiff::SignedDuration::try_from(window).unwrap_or_default()).unwrap_or(end),
        ),
        _ => String::new(),
    };
    // The first task of the slot was no restart; each one after it was an attempt.
    let tries = slot
        .tasks()
        .iter()
        .filter(|task| task.spec_version == ended.spec_version && !stopped_by_managers(task));
    let restarts = tries.skip(1).filter(|task| task.created_at >= counts_from);
    u64::try_from(restarts.count()).unwrap_or(u64::MAX) >= max
}

/// How many ended tasks a slot must keep so that [`verdict`] can count attempts.
pub fn history_needed(service: &Service) -> usize {
    let policy = service.spec.task_template.restart_policy.as_ref();
    let max = policy.and_then(|policy| policy.max_attempts).unwrap_or(0);
    usize::try_from(max.min(MOST_ATTEMPTS)).unwrap_or(0) + 1
}
