//! The state machine of a container: which step leads where, and which are refused.
//!
//! ```text
//!            start            pause
//! created ──────────► running ──────► paused
//!    │  ▲               │  ▲ ◄──────── │ unpause
//!    │  └ start failed  │  │           │
//!    │            exit  │  │ start     │ exit
//!    │                  ▼  │           ▼
//!    │                exited ◄─────────┘
//!    │                  │  ▲
//!    │   exit, restart  ▼  │ give up / stop
//!    │               restarting ──start──► running
//!    └────► removing ◄──┘        (remove from created, exited, restarting, dead)
//!              │ removal failed
//!              ▼
//!            dead
//! ```

use gantry_model::container::ContainerStatus as Status;

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its process was started.
    Started,
    /// Its process could not be started.
    StartFailed,
    /// Its process ended for good.
    Exited,
    /// Its process ended and will be started again.
    ExitedToRestart,
    /// A pending restart was called off.
    GaveUp,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Unpaused,
    /// Its removal begins.
    Remove,
    /// Its removal could not be finished.
    RemoveFailed,
}

/// Where a step leads; none when the step is refused in this state.
pub(crate) fn next(status: Status, step: Step) -> Option<Status> {
    Some(match (status, step) {
        (Status::Created | Status::Exited | Status::Restarting, Step::Started) => Status::Running,
        // A container that never ran stays "created"; one that ran is "exited" again.
        (Status::Created, Step::StartFailed) => Status::Created,
        (Status::Exited | Status::Restarting, Step::StartFailed) => Status::Exited,
        (Status::Running | Status::Paused, Step::Exited) => Status::Exited,
        (Status::Running | Status::Paused, Step::ExitedToRestart) => Status::Restarting,
        // A restart that failed to start is tried again.
        (Status::Restarting, Step::ExitedToRestart) => Status::Restarting,
        (Status::Restarting, Step::GaveUp | Step::Exited) => Status::Exited,
        (Status::Running, Step::Paused) => Status::Paused,
        (Status::Paused, Step::Unpaused) => Status::Running,
        (Status::Created | Status::Exited | Status::Restarting | Status::Dead, Step::Remove) => {
            Status::Removing
        }
        (Status::Removing, Step::RemoveFailed) => Status::Dead,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: [Status; 7] = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Removing,
        Status::Exited,
        Status::Dead,
    ];

    #[test]
    fn the_transition_table_is_this() {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        let table: [(Step, [Option<Status>; 7]); 9] = [
            (Step::Started, [Some(Running), None, None, Some(Running), None, Some(Running), None]),
            (Step::StartFailed, [Some(Created), None, None, Some(Exited), None, Some(Exited), None]),
            (Step::Exited, [None, Some(Exited), Some(Exited), Some(Exited), None, None, None]),
            (
                Step::ExitedToRestart,
                [None, Some(Restarting), Some(Restarting), Some(Restarting), None, None, None],
            ),
            (Step::GaveUp, [None, None, None, Some(Exited), None, None, None]),
            (Step::Paused, [None, Some(Paused), None, None, None, None, None]),
            (Step::Unpaused, [None, None, Some(Running), None, None, None, None]),
            (
                Step::Remove,
                [Some(Removing), None, None, Some(Removing), None, Some(Removing), Some(Removing)],
            ),
            (Step::RemoveFailed, [None, None, None, None, Some(Dead), None, None]),
        ];
        for (step, row) in table {
            for (status, expected) in STATUSES.into_iter().zip(row) {
                assert_eq!(next(status, step), expected, "{status:?} {step:?}");
            }
        }
    }
}
