//! Raft's calls from other managers. A node that was removed is turned away although its certificate still is good.

use super::Manager;
use crate::proto::Payload;
use crate::proto::raft_server::Raft;
use crate::raft::machine::Snapshot;
use crate::raft::network::SnapshotHead;
use crate::rpc::status;
use bytes::BytesMut;
use openraft::raft::AppendEntriesResponse;
use serde::Serialize;
use tonic::{Request, Response, Status, Streaming};

/// Largest snapshot that is accepted, compressed.
const LARGEST_SNAPSHOT: usize = 2 << 30;

/// Answers other managers' Raft.
pub struct RaftService {
    manager: Manager,
}

impl RaftService {
    /// For this manager.
    pub fn new(manager: Manager) -> Self {
        Self { manager }
    }

    /// The caller must be a manager by its certificate, and not have been removed from the cluster. That it still *is* a manager cannot be
    /// asked of this node's state: it may lag behind, and would then refuse the very leader that could bring it up.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let subject = status::manager(request)?;
        if self.manager.is_revoked(&subject.node_id) {
            let text = format!("Permission denied: node {} was removed from this swarm", subject.node_id);
            return Err(status::status(crate::error::Error::denied(text)));
        }
        Ok(())
    }
}

impl RaftService {
    /// Refuses what only a member with its whole log may do.
    fn may_vote(&self) -> Result<(), Status> {
        if self.manager.store.novice().is_waiting() {
            let text = "this manager has not read yet that it was added, and does not vote";
            return Err(status::status(crate::error::Error::unavailable(text)));
        }
        Ok(())
    }
}

fn answer<T: Serialize, E: std::error::Error + 'static>(
    result: Result<T, E>,
) -> Result<Response<Payload>, Status> {
    let value = result.map_err(|e| status::status(crate::error::Error::trouble("Raft", &e)))?;
    Ok(Response::new(Payload { data: status::json(&value, "Raft's answer")? }))
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn append(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.admit(&request)?;
        let rpc = status::parse(&request.get_ref().data, "Raft's entries")?;
        let appended = self.manager.store.raft().append_entries(rpc).await;
        if appended.as_ref().is_ok_and(|reply| !matches!(reply, AppendEntriesResponse::HigherVote(_))) {
            self.manager.store.heard_leader();
        }
        answer(appended)
    }

    async fn vote(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.admit(&request)?;
        self.may_vote()?;
        let rpc = status::parse(&request.get_ref().data, "Raft's request for a vote")?;
        answer(self.manager.store.raft().vote(rpc).await)
    }

    async fn pre_vote(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.admit(&request)?;
        self.may_vote()?;
        let rpc = status::parse(&request.get_ref().data, "Raft's request for a pre-vote")?;
        answer(self.manager.store.raft().pre_vote(rpc).await)
    }

    async fn transfer_leader(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.admit(&request)?;
        self.may_vote()?;
        let rpc = status::parse(&request.get_ref().data, "Raft's transfer of leadership")?;
        answer(self.manager.store.raft().handle_transfer_leader(rpc).await)
    }

    async fn snapshot(&self, request: Request<Streaming<Payload>>) -> Result<Response<Payload>, Status> {
        self.admit(&request)?;
        let mut parts = request.into_inner();
        let head =
            parts.message().await?.ok_or_else(|| Status::invalid_argument("a snapshot without a head"))?;
        let head: SnapshotHead = status::parse(&head.data, "the head of a snapshot")?;
        let mut body = BytesMut::new();
        while let Some(part) = parts.message().await? {
            if body.len() + part.data.len() > LARGEST_SNAPSHOT {
                return Err(Status::resource_exhausted("the snapshot is too large"));
            }
            body.extend_from_slice(&part.data);
        }
        let snapshot = Snapshot { meta: head.meta, snapshot: body.freeze() };
        let installed = self.manager.store.raft().install_full_snapshot(head.vote, snapshot).await;
        if installed.is_ok() {
            self.manager.store.heard_leader();
        }
        answer(installed)
    }
}
