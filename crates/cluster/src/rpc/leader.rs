//! Calls that only the leader answers, from nodes that know some managers: asks one after the other, follows their hints.

use crate::config::RemoteManager;
use crate::error::{Error, Result};
use crate::rpc::dial::{Callee, Dialer};
use crate::rpc::status::{error_of, is_transport};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;
use tonic::transport::Channel;

/// Knows managers, and which of them led when last asked.
#[derive(Clone)]
pub struct LeaderCalls {
    dialer: Dialer,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    managers: Vec<RemoteManager>,
    leader: Option<RemoteManager>,
    channels: BTreeMap<RemoteManager, Channel>,
}

impl LeaderCalls {
    /// Begins with these managers.
    pub fn new(dialer: Dialer, managers: Vec<RemoteManager>) -> Self {
        Self { dialer, shared: Arc::new(Mutex::new(Shared { managers, ..Shared::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The managers that are known.
    pub fn managers(&self) -> Vec<RemoteManager> {
        self.lock().managers.clone()
    }

    /// The manager that led when last asked.
    pub fn leader(&self) -> Option<RemoteManager> {
        self.lock().leader.clone()
    }

    /// Takes the managers that the leader named. An empty list is ignored: it would cut the node off for ever.
    pub fn learn(&self, managers: Vec<RemoteManager>) -> bool {
        let mut shared = self.lock();
        if managers.is_empty() || shared.managers == managers {
            return false;
        }
        shared.channels.retain(|manager, _| managers.contains(manager));
        shared.managers = managers;
        true
    }

    /// Forgets open connections, so that the next ones use a renewed certificate.
    pub fn reconnect(&self) {
        self.lock().channels.clear();
    }

    fn channel(&self, manager: &RemoteManager) -> Result<Channel> {
        if let Some(channel) = self.lock().channels.get(manager) {
            return Ok(channel.clone());
        }
        let callee =
            if manager.node_id.is_empty() { Callee::Manager } else { Callee::Node(manager.node_id.clone()) };
        let channel = self
            .dialer
            .channel(&manager.addr, &callee)
            .map_err(|e| Error::trouble(format!("reach {}", manager.addr), &e))?;
        self.lock().channels.insert(manager.clone(), channel.clone());
        Ok(channel)
    }

    /// Asks the managers until the leader answers. A manager that does not lead names the leader; one that does not answer is passed
    /// over. The refusal of the leader itself is final.
    pub async fn call<T, F, Fut>(&self, ask: F) -> Result<T>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let mut queue: VecDeque<RemoteManager> = {
            let shared = self.lock();
            shared.leader.iter().cloned().chain(shared.managers.iter().cloned()).collect()
        };
        let mut asked: Vec<RemoteManager> = Vec::new();
        let mut last = Error::unavailable("no manager of the swarm is known to this node");
        while let Some(manager) = queue.pop_front() {
            if asked.contains(&manager) {
                continue;
            }
            asked.push(manager.clone());
            let channel = self.channel(&manager)?;
            let status = match ask(channel).await {
                Ok(answer) => {
                    self.lock().leader = Some(manager);
                    return Ok(answer);
                }
                Err(status) => status,
            };
            let (error, hint) = error_of(&status);
            if let Some(hint) = hint {
                queue.push_front(hint);
                last = error;
            } else if is_transport(&status) || error.kind == crate::error::ErrorKind::Unavailable {
                self.lock().channels.remove(&manager);
                last = Error::unavailable(format!("manager {}: {}", manager.addr, error.message));
            } else {
                return Err(error);
            }
        }
        self.lock().leader = None;
        Err(last)
    }
}
