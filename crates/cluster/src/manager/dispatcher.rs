//! The dispatcher: gives each agent its orders, takes its heartbeats, reports and logs. Answers on the leader only.

use super::Manager;
use crate::control::request::{AttachRequest, Request as Write};
use crate::error::Error;
use crate::identity::Subject;
use crate::orders::Orders;
use crate::proto::dispatcher_server::Dispatcher;
use crate::proto::{
    Empty, HeartbeatReply, HeartbeatRequest, LogPart, Manager as KnownManager, Payload, SessionMessage,
    SessionRequest, StatusRequest,
};
use crate::raft::store::ProposeError;
use crate::rpc::status::{self, status};
use gantry_model::id::{NodeId, TaskId};
use gantry_model::node::{Node, NodeDescription, NodeState, PathTrouble};
use gantry_model::task::TaskStatus;
use gantry_planner::{Change, Object};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Messages that wait for a slow agent.
const BACKLOG: usize = 16;
/// How often a change of a node is tried again when someone else changed the node meanwhile.
const TRIES: usize = 8;

/// Answers agents.
pub struct DispatcherService {
    manager: Manager,
}

/// What an agent asks for a container outside services.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachCall {
    /// Join a network.
    Attach(AttachRequest),
    /// Leave it.
    Detach(TaskId),
}

impl DispatcherService {
    /// For this manager.
    pub fn new(manager: Manager) -> Self {
        Self { manager }
    }

    /// The caller must be a node of the cluster, and this manager must lead.
    fn admit<T>(&self, request: &Request<T>) -> Result<(Subject, Arc<Node>), Status> {
        let subject = status::subject(request)?;
        if !self.manager.store.leads() {
            return Err(self.manager.not_leading());
        }
        let node = self.manager.store.read().node(&subject.node_id).cloned().ok_or_else(|| {
            status(Error::denied(format!("Permission denied: node {} is not in this swarm", subject.node_id)))
        })?;
        Ok((subject, node))
    }
}

impl Manager {
    /// Between heartbeats of agents.
    pub fn heartbeat(&self) -> Duration {
        let period =
            self.store.read().cluster().map_or(0, |record| record.cluster.spec.dispatcher.heartbeat_period);
        let by_spec = u64::try_from(period)
            .ok()
            .filter(|nanos| *nanos > 0)
            .map_or(Duration::from_secs(5), Duration::from_nanos);
        self.timing.agent_heartbeat.unwrap_or(by_spec)
    }

    /// Changes a node as seen in the store now; `change` returns false when there is nothing to do.
    pub async fn change_node(
        &self,
        id: &NodeId,
        change: impl Fn(&mut Node) -> bool,
    ) -> Result<(), ProposeError> {
        let mut result = Ok(());
        for _ in 0..TRIES {
            let Some(node) = self.store.read().node(id).cloned() else { return Ok(()) };
            let mut node = Node::clone(&node);
            if !change(&mut node) {
                return Ok(());
            }
            result = self.store.propose(vec![Change::replace(Object::Node(Box::new(node)))]).await.map(drop);
            if !matches!(result, Err(ProposeError::Refused(_))) {
                break;
            }
        }
        result
    }

    async fn node_arrived(&self, subject: &Subject, request: &SessionRequest) -> Result<(), Status> {
        let description: NodeDescription = status::parse(&request.description, "the description of a node")?;
        self.change_node(&subject.node_id, |node| {
            let same = node.status.state == NodeState::Ready
                && node.description == description
                && node.status.addr == request.addr
                && node.data_path_addr == request.data_path_addr;
            node.status.state = NodeState::Ready;
            node.status.message = String::new();
            node.status.addr = request.addr.clone();
            node.data_path_addr = request.data_path_addr.clone();
            node.description = description.clone();
            !same
        })
        .await
        .map_err(|e| self.refused(e))
    }

    fn refused(&self, error: ProposeError) -> Status {
        match error {
            ProposeError::NoLeader => self.not_leading(),
            other => status(other.into()),
        }
    }
}

/// Sends a node its orders whenever they change, until the session ends.
async fn follow(
    manager: Manager,
    node: NodeId,
    session: String,
    sender: super::hub::SessionSender,
    end: CancellationToken,
) {
    let mut changes = manager.store.watch();
    let (mut known, mut orders) = (None, Orders::default());
    // What was sent last: orders without the node's own reports, managers, role.
    let mut sent: (Orders, Option<(Vec<KnownManager>, String)>) = Default::default();
    loop {
        changes.borrow_and_update();
        let state = manager.store.read();
        let Some(object) = state.node(&node) else { break };
        let mut news = false;
        if let Some((revision, new)) = manager.desk.orders(&state, &node, known.as_ref()) {
            (known, orders) = (Some(revision), new);
            let bare = orders.without_reports();
            news = bare != sent.0;
            sent.0 = bare;
        }
        let managers: Vec<KnownManager> = manager
            .store
            .members()
            .into_iter()
            .map(|member| KnownManager { node_id: member.node_id.to_string(), addr: member.addr })
            .collect();
        let role = object.spec.role.as_str().to_owned();
        let around = Some((managers, role));
        if news || around != sent.1 {
            let Ok(assignment) = serde_json::to_vec(&orders) else { break };
            let message = SessionMessage {
                session_id: session.clone(),
                assignment,
                managers: around.iter().flat_map(|(managers, _)| managers.clone()).collect(),
                heartbeat_millis: u64::try_from(manager.heartbeat().as_millis()).unwrap_or(u64::MAX),
                role: around.iter().map(|(_, role)| role.clone()).collect(),
                logs: Vec::new(),
                end_logs: String::new(),
            };
            let delivered = tokio::select! {
                delivered = sender.send(Ok(message)) => delivered.is_ok(),
                () = end.cancelled() => false,
            };
            if !delivered {
                break;
            }
            sent.1 = around;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = end.cancelled() => break,
            () = sender.closed() => break,
        }
        // Changes come in groups; a node hears of the group once.
        tokio::time::sleep(manager.timing.debounce).await;
    }
    manager.hub.close(&node, &session);
}

#[tonic::async_trait]
impl Dispatcher for DispatcherService {
    type SessionStream = ReceiverStream<Result<SessionMessage, Status>>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (subject, _) = self.admit(&request)?;
        self.manager.node_arrived(&subject, request.get_ref()).await?;
        let session =
            crate::identity::random::<17>().map_err(|e| status(Error::trouble("open a session", &e)))?;
        let session = TaskId::from_random(session).to_string();
        let (sender, stream) = mpsc::channel(BACKLOG);
        let end = self.manager.stopped().child_token();
        self.manager.hub.open(subject.node_id.clone(), session.clone(), sender.clone(), end.clone());
        tracing::debug!(node = %subject.node_id, "an agent opened a session");
        self.manager.tasks.spawn(follow(self.manager.clone(), subject.node_id, session, sender, end));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let (subject, node) = self.admit(&request)?;
        if !self.manager.hub.heard(&subject.node_id, &request.get_ref().session_id) {
            return Err(status(Error::precondition("this session is not open here")));
        }
        let silent = request.get_ref().silent.iter().filter_map(|id| NodeId::parse(id).ok()).collect();
        self.manager.hub.note_silent(&subject.node_id, silent);
        let paths: Vec<PathTrouble> = status::parse(&request.get_ref().paths, "the paths of a node")?;
        if node.paths != paths || node.status.state != NodeState::Ready {
            for trouble in paths.iter().filter(|trouble| !node.paths.contains(trouble)) {
                tracing::warn!(node = %subject.node_id, peer = %trouble.peer, "{}", trouble.detail);
            }
            let changed = self.manager.change_node(&subject.node_id, |node| {
                let same = node.paths == paths && node.status.state == NodeState::Ready;
                node.paths = paths.clone();
                node.status.state = NodeState::Ready;
                node.status.message = String::new();
                !same
            });
            changed.await.map_err(|e| self.manager.refused(e))?;
        }
        let heartbeat_millis = u64::try_from(self.manager.heartbeat().as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(HeartbeatReply { heartbeat_millis }))
    }

    async fn update_status(&self, request: Request<StatusRequest>) -> Result<Response<Empty>, Status> {
        let (subject, _) = self.admit(&request)?;
        let updates: Vec<(TaskId, TaskStatus)> =
            status::parse(&request.get_ref().updates, "the reports of a node")?;
        let state = self.manager.store.read();
        let changes: Vec<Change> = updates
            .into_iter()
            // A node speaks for its own tasks only.
            .filter(|(task, _)| state.task(task).is_some_and(|known| known.node_id == subject.node_id))
            .map(|(task, status)| Change::Status { task, status })
            .collect();
        if !changes.is_empty() {
            self.manager.store.propose(changes).await.map_err(|e| self.manager.refused(e))?;
        }
        Ok(Response::new(Empty {}))
    }

    async fn publish_logs(&self, request: Request<Streaming<LogPart>>) -> Result<Response<Empty>, Status> {
        let (subject, _) = self.admit(&request)?;
        let mut parts = request.into_inner();
        let mut name = String::new();
        let mut reader = None;
        loop {
            let part = match &reader {
                None => parts.message().await?,
                Some(sender) => tokio::select! {
                    part = parts.message() => part?,
                    () = super::hub::LogSender::closed(sender) => break,
                },
            };
            let Some(part) = part else { break };
            if reader.is_none() {
                name.clone_from(&part.subscription);
                reader = self.manager.hub.reader(&name, &subject.node_id);
                // The stream ends for the reader when this node has sent all.
                self.manager.hub.unsubscribe(&name);
            }
            let Some(sender) = &reader else { break };
            let mut messages: Vec<crate::executor::LogMessage> =
                status::parse(&part.messages, "log messages")?;
            for message in &mut messages {
                message.node_id = subject.node_id.clone();
            }
            if !messages.is_empty() && sender.send(messages).await.is_err() {
                break;
            }
        }
        Ok(Response::new(Empty {}))
    }

    async fn attach(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let (subject, _) = self.admit(&request)?;
        let write = match status::parse(&request.get_ref().data, "the request for a network")? {
            AttachCall::Attach(attach) => Write::Attach(AttachRequest { node: subject.node_id, ..attach }),
            AttachCall::Detach(task) => Write::Detach { node: subject.node_id, task },
        };
        let outcome = self.manager.execute(write).await.map_err(status)?;
        let reply = outcome.reply.map_err(status)?;
        Ok(Response::new(Payload { data: status::json(&reply, "the answer")? }))
    }

    async fn leave(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        let (subject, _) = self.admit(&request)?;
        self.manager.hub.dismiss(&subject.node_id);
        let changed = self.manager.change_node(&subject.node_id, |node| {
            node.status.state = NodeState::Down;
            node.status.message = "the node left the swarm".into();
            true
        });
        changed.await.map_err(|e| self.manager.refused(e))?;
        Ok(Response::new(Empty {}))
    }
}
