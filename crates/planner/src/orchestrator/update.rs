//! Rolling updates and roll-backs: slots whose task was made from an older template get a new one, a few at a time.
//!
//! ```text
//!            API: template changed            all new tasks run, and were watched
//!   (none) ───────────────────────▶ updating ─────────────────────────▶ completed
//!                                     │  │ too many failures
//!                              pause ◀┘  └▶ rollback_started ─▶ rollback_completed | rollback_paused
//! ```

use super::slot::{Slot, SlotKey, Start, fill, host_ports, wanted};
use crate::allocator::needs_ingress_address;
use crate::draft::Draft;
use crate::{time, validate};
use gantry_model::service::{Service, UpdateConfig, UpdateStatus};
use gantry_model::task::{Task, TaskState};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a new task is watched when the configuration names no time.
const MONITOR: Duration = Duration::from_secs(5);

/// Whether there is, or may soon be, something to update.
pub fn concerns(draft: &Draft<'_>, service: &Service, slots: &BTreeMap<SlotKey, Slot>) -> bool {
    is_going_on(service) || slots.values().any(|slot| is_dirty(draft, service, slot))
}

fn is_going_on(service: &Service) -> bool {
    let status = service.update_status.as_ref().map_or("", |status| status.state.as_str());
    status == "updating" || status == "rollback_started"
}

/// Goes on with the update of a service.
pub fn advance(draft: &mut Draft<'_>, service: &Service, slots: &BTreeMap<SlotKey, Slot>) {
    let status = service.update_status.as_ref().map_or("", |status| status.state.as_str());
    if status == "paused" || status == "rollback_paused" {
        return;
    }
    let dirty: Vec<(&SlotKey, &Slot)> =
        slots.iter().filter(|(_, slot)| is_dirty(draft, service, slot)).collect();
    let running = is_going_on(service);
    if dirty.is_empty() && !running {
        return;
    }
    let config = config_of(service);
    let monitor = if config.monitor > 0 { time::nanos(config.monitor) } else { MONITOR };
    if let Some(failed) = too_many_failures(service, &config, slots, monitor)
        && react_to_failure(draft, service, &config, &failed)
    {
        return;
    }
    if dirty.is_empty() {
        if all_proven(draft, service, slots, monitor) {
            complete(draft, service);
        }
        return;
    }
    if !running {
        set_status(draft, service, "updating", "update in progress");
    }
    start_batch(draft, service, &config, slots, dirty);
}

/// The configuration that rules the update which is going on.
fn config_of(service: &Service) -> UpdateConfig {
    let rolling_back =
        service.update_status.as_ref().is_some_and(|status| status.state.starts_with("rollback"));
    let config = if rolling_back { &service.spec.rollback_config } else { &service.spec.update_config };
    config.clone().unwrap_or(UpdateConfig { parallelism: 1, ..UpdateConfig::default() })
}

/// Whether the slot's task was made from a template that differs from the service's.
fn is_dirty(draft: &Draft<'_>, service: &Service, slot: &Slot) -> bool {
    slot.current().is_some_and(|task| {
        task.spec_version != service.spec_version
            && (*task.spec != service.spec.task_template
                || task.host_ports != host_ports(service)
                || lacks_ingress_address(draft, service, task))
    })
}

fn lacks_ingress_address(draft: &Draft<'_>, service: &Service, task: &Task) -> bool {
    let Some(ingress) = draft.state.ingress_network() else { return false };
    task.status.state > TaskState::New
        && needs_ingress_address(&draft.state, service)
        && !task.networks_attachments.iter().any(|attachment| attachment.network_id == ingress.network.id)
}

/// The tasks of the slot that this update made.
fn updated<'s>(service: &Service, slot: &'s Slot) -> impl Iterator<Item = &'s Task> {
    let version = service.spec_version;
    slot.tasks().iter().map(AsRef::as_ref).filter(move |task| task.spec_version == version)
}

fn failed_early(task: &Task, monitor: Duration) -> bool {
    if !matches!(task.status.state, TaskState::Failed | TaskState::Rejected | TaskState::Complete) {
        return false;
    }
    match (time::parse(&task.running_at), time::parse(&task.ended_at)) {
        (Some(began), Some(ended)) => ended < time::after(began, monitor),
        _ => true,
    }
}

/// The id of a failed task, when so many failed that something must be done.
fn too_many_failures(
    service: &Service,
    config: &UpdateConfig,
    slots: &BTreeMap<SlotKey, Slot>,
    monitor: Duration,
) -> Option<String> {
    if config.failure_action == "continue" {
        return None;
    }
    let mut failures = 0u32;
    let mut last = None;
    for slot in slots.values() {
        if let Some(task) = updated(service, slot).find(|task| failed_early(task, monitor)) {
            failures += 1;
            last = Some(task.id.to_string());
        }
    }
    let slots = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let too_many = f64::from(failures) / f64::from(slots.max(1)) > config.max_failure_ratio;
    if too_many { last } else { None }
}

/// Pauses or turns back; whether it did either.
fn react_to_failure(draft: &mut Draft<'_>, service: &Service, config: &UpdateConfig, task: &str) -> bool {
    let rolling_back =
        service.update_status.as_ref().is_some_and(|status| status.state.starts_with("rollback"));
    let cause = format!("due to failure or early termination of task {task}");
    if rolling_back {
        set_status(draft, service, "rollback_paused", &format!("rollback paused {cause}"));
    } else if config.failure_action == "rollback"
        && let Some(previous) = service.previous_spec.clone()
    {
        if let Err(refusal) = validate::returned_spec(&draft.state, &previous, service) {
            set_status(
                draft,
                service,
                "paused",
                &format!("update paused {cause}: it cannot be rolled back: {refusal}"),
            );
            return true;
        }
        let mut back = service.clone();
        back.spec = previous;
        back.previous_spec = None;
        back.spec_version += 1;
        draft.put_service(back.clone());
        set_status(draft, &back, "rollback_started", &format!("update rolled back {cause}"));
    } else {
        set_status(draft, service, "paused", &format!("update paused {cause}"));
    }
    true
}

/// Whether every task runs for as long as it is to be watched.
fn all_proven(
    draft: &mut Draft<'_>,
    service: &Service,
    slots: &BTreeMap<SlotKey, Slot>,
    monitor: Duration,
) -> bool {
    let mut proven = true;
    for slot in slots.values() {
        let Some(current) = slot.current() else { continue };
        if current.spec_version != service.spec_version {
            // Made from an older version of the same template: nothing had to be done.
            continue;
        }
        if updated(service, slot).any(|task| failed_early(task, monitor)) {
            // Counted among the failures, and few enough.
            continue;
        }
        proven &= match current.status.state {
            TaskState::Running => draft.passed(&current.running_at, monitor),
            state => state.is_terminal() && !wanted(current),
        };
    }
    proven
}

fn complete(draft: &mut Draft<'_>, service: &Service) {
    let rolling_back =
        service.update_status.as_ref().is_some_and(|status| status.state.starts_with("rollback"));
    let (state, message) = if rolling_back {
        ("rollback_completed", "rollback completed")
    } else {
        ("completed", "update completed")
    };
    set_status(draft, service, state, message);
}

fn set_status(draft: &mut Draft<'_>, service: &Service, state: &str, message: &str) {
    let now = draft.now_text();
    let starts = state == "updating" || state == "rollback_started";
    let started_at =
        if starts { None } else { service.update_status.as_ref().and_then(|old| old.started_at.clone()) };
    let status = UpdateStatus {
        state: state.to_owned(),
        started_at: Some(started_at.unwrap_or_else(|| now.clone())),
        completed_at: state.ends_with("completed").then_some(now),
        message: message.to_owned(),
    };
    draft.put_service(Service { update_status: Some(status), ..service.clone() });
}

fn start_batch(
    draft: &mut Draft<'_>,
    service: &Service,
    config: &UpdateConfig,
    slots: &BTreeMap<SlotKey, Slot>,
    mut dirty: Vec<(&SlotKey, &Slot)>,
) {
    let delay = time::nanos(config.delay);
    let busy = slots.values().filter(|slot| is_in_flight(draft, service, slot, delay)).count();
    let free = match usize::try_from(config.parallelism) {
        Ok(0) | Err(_) => dirty.len(),
        Ok(parallelism) => parallelism.saturating_sub(busy),
    };
    // What does not run has least to lose.
    dirty.sort_by_key(|(_, slot)| slot.current().is_some_and(|task| task.status.state == TaskState::Running));
    for (key, slot) in dirty.into_iter().take(free) {
        if config.order == "start-first" {
            fill(draft, service, key, Some(slot), Start::Now);
        } else {
            fill(draft, service, key, Some(slot), Start::AfterOthers);
            for task in slot.tasks().iter().filter(|task| wanted(task)) {
                draft.desire(task, TaskState::Shutdown);
            }
        }
    }
}

/// Whether the slot is one of those that are being updated: its new task does not run yet, or runs for less than the
/// pause between two batches.
fn is_in_flight(draft: &mut Draft<'_>, service: &Service, slot: &Slot, delay: Duration) -> bool {
    let Some(current) = slot.current().filter(|task| task.spec_version == service.spec_version) else {
        return false;
    };
    if slot.earlier().iter().all(|task| task.spec_version == service.spec_version) {
        return false;
    }
    if updated(service, slot).any(|task| task.status.state.is_terminal()) {
        return false;
    }
    current.status.state < TaskState::Running || !draft.passed(&current.running_at, delay)
}
