//! One container in memory: its record, its present run, and the signals that others wait for.
//!
//! Whoever changes what a container does (start, stop's bookkeeping, exit, removal) holds `operation`; nobody holds it
//! while waiting for a process to end. The record's own lock is only held for reading or changing fields.

use crate::error::{Error, Result};
use crate::monitor::Plug;
use crate::record::Record;
use crate::request::{Exit, WaitCondition};
use crate::state::{self, Step};
use gantry_model::container::ContainerStatus;
use gantry_model::id::ContainerId;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What waiters see of a container's life.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// Ends so far.
    pub exits: u64,
    /// Its process exists.
    pub running: bool,
    /// It waits to be started again.
    pub restarting: bool,
    /// It is gone.
    pub removed: bool,
    /// How the last run ended.
    pub exit: Exit,
}

/// The present run of a container.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Process id on the host.
    pub pid: i32,
    /// Names the process even when the number is used again.
    pub pidfd: Arc<OwnedFd>,
    /// The monitor's folder.
    pub dir: PathBuf,
    /// Ends the health checks and other companions of the run.
    pub over: CancellationToken,
}

impl Run {
    /// Sends a signal to its first process; a process that is gone is fine.
    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        match gantry_linux::process::signal(self.pidfd.as_fd(), signal) {
            // ESRCH: it has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(3) => Ok(()),
            other => other,
        }
    }
}

/// A restart that is under way.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    /// Calls off the pending start.
    pub pending: Option<CancellationToken>,
    /// The last pause, for the back-off.
    pub last_pause: Option<Duration>,
}

/// One container.
pub(crate) struct Container {
    pub id: ContainerId,
    /// Serialises what changes the container.
    pub operation: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    run: Mutex<Option<Run>>,
    pub life: watch::Sender<Life>,
    /// Clients that attached before the start.
    pub pending: Mutex<Vec<Plug>>,
    pub restart: Mutex<Restart>,
    pub execs: Mutex<BTreeSet<String>>,
    /// It is being restarted by the user: its end does not remove it.
    pub keep: AtomicBool,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Container {
    /// A container from its record, not running.
    pub fn new(record: Record) -> Self {
        let exit = Exit { code: record.state.exit_code, error: None };
        Self {
            id: record.id.clone(),
            operation: tokio::sync::Mutex::new(()),
            record: Mutex::new(record),
            run: Mutex::new(None),
            life: watch::Sender::new(Life { exit, ..Life::default() }),
            pending: Mutex::default(),
            restart: Mutex::default(),
            execs: Mutex::default(),
            keep: AtomicBool::new(false),
        }
    }

    /// The record, for reading or changing some fields at once.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present run.
    pub fn run(&self) -> Option<Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets or clears the present run.
    pub fn set_run(&self, run: Option<Run>) {
        let old = std::mem::replace(&mut *self.run.lock().unwrap_or_else(PoisonError::into_inner), run);
        if let Some(old) = old {
            old.over.cancel();
        }
    }

    /// Its status.
    pub fn status(&self) -> ContainerStatus {
        self.record().state.status
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.record().name.clone()
    }

    /// Makes a step of the state machine, or says why not.
    pub fn step(&self, step: Step, act: &'static str) -> Result<()> {
        let mut record = self.record();
        match state::next(record.state.status, step) {
            Some(status) => {
                record.state.status = status;
                Ok(())
            }
            None => Err(Error::Refused {
                act,
                container: record.id.short().to_owned(),
                reason: format!("it is {}", record.state.status.as_str()),
            }),
        }
    }

    /// Calls off a pending restart; whether there was one.
    pub fn call_off_restart(&self) -> bool {
        let pending = self.restart.lock().unwrap_or_else(PoisonError::into_inner).pending.take();
        pending.map(|token| token.cancel()).is_some()
    }

    /// Drops clients that wait for a start which will not come.
    pub fn drop_pending(&self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until what the condition names has happened; the life was looked at when `seen` was taken.
    pub async fn wait(mut life: watch::Receiver<Life>, seen: &Life, condition: WaitCondition) -> Exit {
        let over = |now: &Life| match condition {
            WaitCondition::NotRunning => {
                now.removed || now.exits > seen.exits || !(now.running || now.restarting)
            }
            WaitCondition::NextExit => now.removed || now.exits > seen.exits,
            WaitCondition::Removed => now.removed,
        };
        // An error means that the engine is closing; the last known end is the best answer.
        let _ = life.wait_for(over).await;
        life.borrow().exit.clone()
    }
}
