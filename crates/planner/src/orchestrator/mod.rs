//! The orchestrators decide which tasks a service has: for each kind of service a module, over the slots they share.

mod gate;
mod global;
mod job;
mod reap;
mod replicated;
mod restart;
mod slot;
mod update;

pub use gate::open_gates;
pub use reap::{bury_orphans, reap_attachments, reap_removed_service};

use crate::constraint::Constraints;
use crate::draft::Draft;
use gantry_model::service::Service;
use std::sync::Arc;

/// Brings the tasks of one service nearer to what its specification wants.
pub fn orchestrate(draft: &mut Draft<'_>, service: &Arc<Service>) {
    // Validation lets no bad constraint in; one that is there nevertheless is met by no node.
    let Ok(constraints) = Constraints::parse(&service.spec.task_template.placement.constraints) else {
        return;
    };
    let mode = &service.spec.mode;
    if mode.replicated_job.is_some() {
        job::replicated_job(draft, service, &constraints);
    } else if mode.global_job.is_some() {
        job::global_job(draft, service, &constraints);
    } else if mode.global.is_some() {
        global::global(draft, service, &constraints);
    } else {
        replicated::replicated(draft, service, &constraints);
    }
    reap::reap_history(draft, service);
}
