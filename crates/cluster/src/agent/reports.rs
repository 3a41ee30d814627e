//! Reports: what this node has observed of its tasks, and which of it the leader has not yet confirmed.

use gantry_model::id::TaskId;
use gantry_model::task::TaskStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// All reports.
pub struct Reports {
    inner: Mutex<Inner>,
    unsent: Notify,
    changes: watch::Sender<u64>,
}

struct Inner {
    known: BTreeMap<TaskId, TaskStatus>,
    unsent: BTreeSet<TaskId>,
}

impl Reports {
    /// Begins with what was observed before a restart.
    pub fn new(known: BTreeMap<TaskId, TaskStatus>) -> Self {
        Self {
            inner: Mutex::new(Inner { known, unsent: BTreeSet::new() }),
            unsent: Notify::new(),
            changes: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last observed of a task.
    pub fn get(&self, task: &TaskId) -> Option<TaskStatus> {
        self.lock().known.get(task).cloned()
    }

    /// Takes an observation; a state never goes backwards, and one that is observed again is as old as it was.
    pub fn put(&self, task: &TaskId, mut status: TaskStatus) {
        {
            let mut inner = self.lock();
            if let Some(known) = inner.known.get(task) {
                if known.state > status.state {
                    return;
                }
                if known.state == status.state {
                    status.timestamp.clone_from(&known.timestamp);
                }
            }
            inner.known.insert(task.clone(), status);
            inner.unsent.insert(task.clone());
        }
        self.unsent.notify_one();
        self.changes.send_modify(|count| *count += 1);
    }

    /// The task is gone from the cluster.
    pub fn forget(&self, task: &TaskId) {
        {
            let mut inner = self.lock();
            inner.known.remove(task);
            inner.unsent.remove(task);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Only these tasks still exist.
    pub fn retain(&self, tasks: &BTreeSet<TaskId>) {
        let mut inner = self.lock();
        inner.known.retain(|task, _| tasks.contains(task));
        inner.unsent.retain(|task| tasks.contains(task));
    }

    /// Everything, for the disk.
    pub fn all(&self) -> BTreeMap<TaskId, TaskStatus> {
        self.lock().known.clone()
    }

    /// A new leader may have heard nothing: everything is to be sent again.
    pub fn resend(&self) {
        {
            let mut inner = self.lock();
            inner.unsent = inner.known.keys().cloned().collect();
        }
        self.unsent.notify_one();
    }

    /// Waits for reports to send, and takes them.
    pub async fn take(&self) -> Vec<(TaskId, TaskStatus)> {
        loop {
            {
                let mut inner = self.lock();
                let unsent = std::mem::take(&mut inner.unsent);
                if !unsent.is_empty() {
                    return unsent
                        .into_iter()
                        .filter_map(|task| inner.known.get(&task).cloned().map(|status| (task, status)))
                        .collect();
                }
            }
            self.unsent.notified().await;
        }
    }

    /// These could not be sent.
    pub fn give_back(&self, reports: Vec<(TaskId, TaskStatus)>) {
        self.lock().unsent.extend(reports.into_iter().map(|(task, _)| task));
    }

    /// Counts changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::task::TaskState;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[test]
    fn a_state_that_is_observed_again_is_as_old_as_it_was() {
        let reports = Reports::new(BTreeMap::new());
        let task = TaskId::from_random([1; 17]);
        let at = |timestamp: &str, state| TaskStatus { timestamp: timestamp.into(), ..status(state) };
        reports.put(&task, at("first", TaskState::Running));
        reports.put(&task, at("after a restart of the daemon", TaskState::Running));
        assert_eq!(reports.get(&task), Some(at("first", TaskState::Running)));
        reports.put(&task, at("later", TaskState::Failed));
        assert_eq!(reports.get(&task), Some(at("later", TaskState::Failed)));
    }

    #[tokio::test]
    async fn a_report_never_goes_backwards_and_an_unsent_one_is_kept() {
        let reports = Reports::new(BTreeMap::new());
        let task = TaskId::from_random([1; 17]);
        reports.put(&task, status(TaskState::Running));
        reports.put(&task, status(TaskState::Starting));
        let taken = reports.take().await;
        assert_eq!(taken, vec![(task.clone(), status(TaskState::Running))]);
        reports.put(&task, status(TaskState::Failed));
        reports.give_back(taken);
        assert_eq!(reports.take().await, vec![(task.clone(), status(TaskState::Failed))]);
        reports.resend();
        assert_eq!(reports.take().await.len(), 1);
        reports.forget(&task);
        assert_eq!(reports.all(), BTreeMap::new());
    }
}
