//! A plan is what the leader proposes next: changes that follow from a snapshot and a time.

use crate::change::Change;
use crate::ids::Ids;
use crate::state::State;
use jiff::Timestamp;

/// What the leader shall do next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be proposed in one batch. Empty: all is as it shall be.
    pub changes: Vec<Change>,
    /// When to plan again even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// Decides, and remembers which services it need not look at again until something of them changes. The memory only
/// saves time: a new planner decides the same.
#[derive(Debug, Clone, Default)]
pub struct Planner {}

impl Planner {
    /// What the leader shall do next.
    pub fn plan(&mut self, state: &State, now: Timestamp, ids: &mut Ids) -> Plan {
        let _ = (state, now, ids);
        Plan::default()
    }
}

/// What the leader shall do next, decided without memory.
pub fn plan(state: &State, now: Timestamp, ids: &mut Ids) -> Plan {
    Planner::default().plan(state, now, ids)
}
