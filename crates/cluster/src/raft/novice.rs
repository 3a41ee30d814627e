//! A novice: a manager that begins without a log, under an id that Raft may know from an earlier time.
//!
//! Raft counts on each member to keep its log and its vote. A node that was demoted and is promoted again has neither, and what is
//! replayed to it first are the memberships of its earlier time: it would vote for candidates that lack decided changes, or, where it once
//! was the only member, lead at once and undo them. A log that was lost, and is empty, is the same. So a manager that starts without a log draws an *incarnation*, which the leader writes
//! into the membership. Until the node finds that in its own log it neither votes nor stands for election.
//!
//! No vote that is needed is withheld: the leader makes it a voter only when its log has come past the entry that names it.

use super::Raft;
use crate::error::{Error, Result};
use crate::identity::{files, random};
use gantry_model::id::NodeId;
use openraft::async_runtime::watch::WatchReceiver;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the file that says that the node waits, and under which incarnation.
const FILE: &str = "novice";

/// Whether this manager still waits to be a member.
#[derive(Debug)]
pub struct Novice {
    incarnation: String,
    file: PathBuf,
    waiting: AtomicBool,
}

impl Novice {
    /// Reads the note in this folder, or writes one when this is a beginning: there is no log, or nothing in it. Blocks.
    pub fn open(folder: &Path, beginning: bool) -> Result<Self> {
        let file = folder.join(FILE);
        let act = || format!("note the beginning in {}", file.display());
        let noted = match std::fs::read_to_string(&file) {
            Ok(noted) => Some(noted),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::trouble(act(), &e)),
        };
        let incarnation = match noted {
            Some(noted) => noted,
            None if !beginning => String::new(),
            None => {
                let drawn = random::<12>().map_err(|e| Error::trouble(act(), &e))?;
                let text = drawn.iter().fold(String::new(), |mut text, byte| {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{byte:02x}");
                    text
                });
                files::replace(&file, text.as_bytes()).map_err(|e| Error::trouble(act(), &e))?;
                text
            }
        };
        let waiting = AtomicBool::new(!incarnation.is_empty());
        Ok(Self { incarnation, file, waiting })
    }

    /// What the membership shall name this node by; empty for one that had its log already.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Whether the node's log does not say yet that it is a member.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Waits until the log names this incarnation, then lets the node vote and be elected. Ends with Raft.
    pub async fn until_member(self: std::sync::Arc<Self>, raft: Raft, id: NodeId) {
        let mut metrics = raft.metrics();
        loop {
            let named = metrics.borrow_watched().membership_config.membership().get_node(&id).cloned();
            if named.is_some_and(|member| member.incarnation == self.incarnation) {
                break;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
        let this = std::sync::Arc::clone(&self);
        let forgotten = tokio::task::spawn_blocking(move || remove(&this.file)).await;
        if let Ok(Err(error)) = forgotten {
            // It is asked again at the next start, and its log has the answer then.
            tracing::warn!(%error, "the note of a new manager stays");
        }
        self.waiting.store(false, Ordering::Release);
        raft.runtime_config().elect(true);
        tracing::debug!(node = %id, "the log names this manager: it votes");
    }

    /// Removes the note of a folder, for recovery. Blocks.
    pub fn forget(folder: &Path) -> Result<()> {
        remove(&folder.join(FILE))
    }
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::trouble(format!("remove {}", file.display()), &e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_without_a_log_waits_and_keeps_its_incarnation() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Novice::open(folder.path(), true).expect("open");
        assert!(first.is_waiting());
        assert_eq!(first.incarnation().len(), 24);
        // The process died after something was written: the note still counts.
        let again = Novice::open(folder.path(), false).expect("open");
        assert!(again.is_waiting());
        assert_eq!(again.incarnation(), first.incarnation());
        Novice::forget(folder.path()).expect("forget");
        let settled = Novice::open(folder.path(), false).expect("open");
        assert!(!settled.is_waiting());
        assert_eq!(settled.incarnation(), "");
    }
}
