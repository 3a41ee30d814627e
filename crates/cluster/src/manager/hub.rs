//! The hub: sessions of agents with the leader, and readers of logs. Empty on managers that do not lead.

use crate::executor::LogMessage;
use crate::proto::SessionMessage;
use gantry_model::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What a session's stream carries.
pub type SessionSender = mpsc::Sender<Result<SessionMessage, Status>>;
/// Where log messages go.
pub type LogSender = mpsc::Sender<Vec<LogMessage>>;

/// All sessions.
#[derive(Default)]
pub struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<NodeId, Session>,
    /// The last heartbeat of each node, also of those whose session ended: a daemon that restarts has its grace.
    heard: BTreeMap<NodeId, Instant>,
    readers: BTreeMap<String, Reader>,
    /// Index of the last change of a node's specification, as far as this leader made it; and since when it knows.
    specified: BTreeMap<NodeId, u64>,
    leads_from: Option<u64>,
}

struct Session {
    id: String,
    sender: SessionSender,
    end: CancellationToken,
    /// Nodes of which this one hears nothing, as it said with its last heartbeat.
    silent: BTreeSet<NodeId>,
}

struct Reader {
    node: NodeId,
    sender: LogSender,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a session; an older one of the same node ends.
    pub fn open(&self, node: NodeId, id: String, sender: SessionSender, end: CancellationToken) {
        let session = Session { id, sender, end, silent: BTreeSet::new() };
        let mut inner = self.lock();
        inner.heard.insert(node.clone(), Instant::now());
        if let Some(old) = inner.sessions.insert(node, session) {
            old.end.cancel();
        }
    }

    /// Ends a session, if it still is the node's.
    pub fn close(&self, node: &NodeId, id: &str) {
        let mut inner = self.lock();
        if inner.sessions.get(node).is_some_and(|session| session.id == id)
            && let Some(session) = inner.sessions.remove(node)
        {
            session.end.cancel();
        }
    }

    /// Ends the session of a node, whichever it is: the node is given up.
    pub fn dismiss(&self, node: &NodeId) {
        let mut inner = self.lock();
        inner.heard.remove(node);
        if let Some(session) = inner.sessions.remove(node) {
            session.end.cancel();
        }
    }

    /// Ends all sessions: this manager no longer leads.
    pub fn close_all(&self) {
        let mut inner = self.lock();
        for session in std::mem::take(&mut inner.sessions).into_values() {
            session.end.cancel();
        }
        inner.heard.clear();
        inner.readers.clear();
        inner.specified.clear();
        inner.leads_from = None;
    }

    /// From this index on, every change of a specification is made here.
    pub fn leads_from(&self, index: u64) {
        self.lock().leads_from = Some(index);
    }

    /// The oldest version of a node whose specification is still the current one; its version now, if this leader cannot tell.
    pub fn specified(&self, node: &NodeId, now: u64) -> u64 {
        let inner = self.lock();
        inner.specified.get(node).copied().or(inner.leads_from).unwrap_or(now).min(now)
    }

    /// A node's specification was changed.
    pub fn note_specified(&self, node: NodeId, index: u64) {
        self.lock().specified.insert(node, index);
    }

    /// Notes a heartbeat; false if the session is not known here.
    pub fn heard(&self, node: &NodeId, id: &str) -> bool {
        let mut inner = self.lock();
        let known = inner.sessions.get(node).is_some_and(|session| session.id == id);
        if known {
            inner.heard.insert(node.clone(), Instant::now());
        }
        known
    }

    /// Notes of which nodes one hears nothing.
    pub fn note_silent(&self, node: &NodeId, silent: BTreeSet<NodeId>) {
        if let Some(session) = self.lock().sessions.get_mut(node) {
            session.silent = silent;
        }
    }

    /// By node: those of which it hears nothing.
    pub fn silent_for(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let inner = self.lock();
        inner.sessions.iter().map(|(node, session)| (node.clone(), session.silent.clone())).collect()
    }

    /// The nodes of which this leader heard within this time.
    pub fn heard_within(&self, span: Duration) -> BTreeSet<NodeId> {
        let inner = self.lock();
        inner.heard.iter().filter(|(_, at)| at.elapsed() < span).map(|(node, _)| node.clone()).collect()
    }

    /// When this leader last heard of a node.
    pub fn last_heard(&self, node: &NodeId) -> Option<Instant> {
        self.lock().heard.get(node).copied()
    }

    /// Where messages for a node go.
    pub fn sender(&self, node: &NodeId) -> Option<SessionSender> {
        self.lock().sessions.get(node).map(|session| session.sender.clone())
    }

    /// A reader waits for logs of a node under this name.
    pub fn subscribe(&self, subscription: String, node: NodeId, sender: LogSender) {
        self.lock().readers.insert(subscription, Reader { node, sender });
    }

    /// Nobody waits any more.
    pub fn unsubscribe(&self, subscription: &str) {
        self.lock().readers.remove(subscription);
    }

    /// Where the logs that a node sends under this name go.
    pub fn reader(&self, subscription: &str, node: &NodeId) -> Option<LogSender> {
        self.lock()
            .readers
            .get(subscription)
            .filter(|reader| reader.node == *node)
            .map(|reader| reader.sender.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_grace_when_its_session_ends() {
        let (hub, node) = (Hub::default(), NodeId::parse("n1").unwrap());
        assert_eq!(hub.last_heard(&node), None);
        hub.open(node.clone(), "s1".into(), mpsc::channel(1).0, CancellationToken::new());
        let opened = hub.last_heard(&node).expect("opening a session is a sign of life");
        assert!(hub.heard(&node, "s1") && !hub.heard(&node, "s2"));
        hub.close(&node, "s1");
        assert!(hub.last_heard(&node).is_some_and(|heard| heard >= opened));
        assert!(!hub.heard(&node, "s1"));
        hub.dismiss(&node);
        assert_eq!(hub.last_heard(&node), None, "it was given up");
    }
}
