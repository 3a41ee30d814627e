//! Calls of other managers to the leader: writes, membership, logs.

use super::Manager;
use super::logs::LogRequest;
use crate::control::request::Request as Write;
use crate::error::Error;
use crate::proto::control_server::Control;
use crate::proto::{Empty, JoinRaftRequest, Payload};
use crate::raft::Member;
use crate::rpc::status::{self, status};
use futures_util::{Stream, StreamExt};
use gantry_model::node::NodeRole;
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// Log messages in one part.
const LOG_GROUP: usize = 64;

/// Answers other managers.
pub struct ControlService {
    manager: Manager,
}

impl ControlService {
    /// For this manager.
    pub fn new(manager: Manager) -> Self {
        Self { manager }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<crate::identity::Subject, Status> {
        let subject = status::manager(request)?;
        if !self.manager.store.leads() {
            return Err(self.manager.not_leading());
        }
        if self.manager.store.read().node(&subject.node_id).is_none() {
            let text = format!("Permission denied: node {} is not in this swarm", subject.node_id);
            return Err(status(Error::denied(text)));
        }
        Ok(subject)
    }

    /// As [`Self::admit`], and the caller still is a manager: the certificate of one that was demoted says so for months.
    fn admit_manager<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let subject = self.admit(request)?;
        let role = self.manager.store.read().node(&subject.node_id).map(|node| node.spec.role);
        let member = self.manager.store.members().iter().any(|member| member.node_id == subject.node_id);
        if is_manager(role, member) {
            return Ok(());
        }
        let text = format!("Permission denied: node {} is not a manager any more", subject.node_id);
        Err(status(Error::denied(text)))
    }
}

/// Whether a node may ask as a manager: it shall be one, or still is in Raft although it shall not.
fn is_manager(role: Option<NodeRole>, member: bool) -> bool {
    role == Some(NodeRole::Manager) || member
}

#[tonic::async_trait]
impl Control for ControlService {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

    async fn execute(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.admit_manager(&request)?;
        let write: Write = status::parse(&request.get_ref().data, "a forwarded request")?;
        let outcome = self.manager.execute(write).await.map_err(status)?;
        Ok(Response::new(Payload { data: status::json(&outcome, "the answer")? }))
    }

    async fn join_raft(&self, request: Request<JoinRaftRequest>) -> Result<Response<Empty>, Status> {
        let subject = self.admit(&request)?;
        let wanted = self
            .manager
            .store
            .read()
            .node(&subject.node_id)
            .is_some_and(|node| node.spec.role == NodeRole::Manager);
        if !wanted {
            return Err(status(Error::denied(format!(
                "Permission denied: node {} shall not be a manager",
                subject.node_id
            ))));
        }
        let _membership = self.manager.membership().await;
        let JoinRaftRequest { addr, incarnation } = request.into_inner();
        let member = Member { addr, incarnation };
        self.manager.store.add_member(subject.node_id, member).await.map_err(status)?;
        Ok(Response::new(Empty {}))
    }

    async fn leave_raft(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        let subject = self.admit(&request)?;
        if subject.node_id == *self.manager.store.id() {
            return Err(status(Error::precondition("the leader hands over before it leaves")));
        }
        let _membership = self.manager.membership().await;
        if !self.manager.store.can_lose(&subject.node_id) {
            return Err(status(Error::precondition(
                "can't remove member from the raft: this would result in a loss of quorum",
            )));
        }
        // As after a demotion: so the node can be removed from the list, and comes back as what it is told to be.
        let demoted = self.manager.change_node(&subject.node_id, |node| {
            let change = node.spec.role == NodeRole::Manager;
            node.spec.role = NodeRole::Worker;
            change
        });
        demoted.await.map_err(|e| status(e.into()))?;
        self.manager.store.remove_member(&subject.node_id).await.map_err(status)?;
        Ok(Response::new(Empty {}))
    }

    async fn logs(&self, request: Request<Payload>) -> Result<Response<Self::LogsStream>, Status> {
        self.admit_manager(&request)?;
        let wanted: LogRequest = status::parse(&request.get_ref().data, "a request for logs")?;
        let parts = self.manager.gather(wanted).ready_chunks(LOG_GROUP).map(|messages| {
            let data = status::json(&messages, "log messages")?;
            Ok(Payload { data })
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demoted_manager_is_none_once_it_is_out_of_raft() {
        assert!(is_manager(Some(NodeRole::Manager), false), "promoted just now");
        assert!(is_manager(Some(NodeRole::Worker), true), "demoted just now");
        assert!(!is_manager(Some(NodeRole::Worker), false));
        assert!(!is_manager(None, false));
    }
}
