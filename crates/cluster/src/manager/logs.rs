//! Logs of services and tasks: the leader asks the nodes, the nodes send, any manager reads.

use super::Manager;
use crate::error::{Error, Result};
use crate::executor::{LogMessage, LogMessages, LogOptions};
use crate::proto::control_client::ControlClient;
use crate::proto::{Payload, SessionMessage};
use crate::rpc::dial::Callee;
use crate::rpc::status::error_of;
use futures_util::StreamExt;
use gantry_model::id::{NodeId, ServiceId, TaskId};
use gantry_model::task::{Task, TaskState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Messages that wait for a slow reader.
const BACKLOG: usize = 64;

/// Whose logs are wanted, and how.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogRequest {
    /// All tasks of these services.
    pub services: Vec<ServiceId>,
    /// These tasks.
    pub tasks: Vec<TaskId>,
    /// How.
    pub options: LogOptions,
}

/// What a node is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogOrder {
    /// Name under which the node answers.
    pub subscription: String,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// How.
    pub options: LogOptions,
}

impl LogRequest {
    fn wants(&self, task: &Task) -> bool {
        // A task without a container has said nothing yet.
        let started = task.status.state >= TaskState::Starting && !task.node_id.is_empty();
        started && (self.tasks.contains(&task.id) || self.services.contains(&task.service_id))
    }
}

impl Manager {
    /// Logs from wherever the tasks are, by way of the leader.
    pub async fn logs(&self, request: LogRequest) -> Result<LogMessages> {
        let leader = self.store.wait_leader(self.timing.write_timeout).await?;
        if leader.node_id == *self.store.id() {
            return Ok(Box::pin(self.gather(request).map(Ok)));
        }
        let act = "ask the leader for logs";
        let channel = self
            .dialer
            .channel(&leader.addr, &Callee::Node(leader.node_id))
            .map_err(|e| Error::trouble(act, &e))?;
        let data = serde_json::to_vec(&request).map_err(|e| Error::trouble(act, &e))?;
        let stream = ControlClient::new(channel)
            .logs(Payload { data })
            .await
            .map_err(|s| error_of(&s).0)?
            .into_inner();
        let messages = stream.flat_map(|part| {
            let messages: Vec<Result<LogMessage>> = match part {
                Ok(part) => match serde_json::from_slice::<Vec<LogMessage>>(&part.data) {
                    Ok(messages) => messages.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(Error::trouble("read log messages", &error))],
                },
                Err(status) => vec![Err(error_of(&status).0)],
            };
            futures_util::stream::iter(messages)
        });
        Ok(Box::pin(messages))
    }

    /// Logs, gathered by this leader.
    pub fn gather(
        &self,
        request: LogRequest,
    ) -> impl futures_util::Stream<Item = LogMessage> + Send + 'static {
        let (sender, messages) = mpsc::channel(BACKLOG);
        tokio::spawn(ask_nodes(self.clone(), request, sender));
        ReceiverStream::new(messages).flat_map(futures_util::stream::iter)
    }
}

/// Asks every node that has wanted tasks; with `follow`, also for tasks that come later. Each node's answer holds a clone of the sender, so
/// the reader's stream ends when the last node is done.
async fn ask_nodes(manager: Manager, request: LogRequest, sender: mpsc::Sender<Vec<LogMessage>>) {
    let mut changes = manager.store.watch();
    let mut asked: BTreeSet<TaskId> = BTreeSet::new();
    let stopped = manager.stopped();
    loop {
        changes.borrow_and_update();
        let state = manager.store.read();
        let mut by_node: BTreeMap<NodeId, Vec<Task>> = BTreeMap::new();
        for task in state.tasks().iter().filter(|task| request.wants(task) && !asked.contains(&task.id)) {
            by_node.entry(task.node_id.clone()).or_default().push(Task::clone(task));
        }
        for (node, tasks) in by_node {
            asked.extend(tasks.iter().map(|task| task.id.clone()));
            if let Err(error) = ask_node(&manager, &request, &node, tasks, &sender).await {
                tracing::warn!(%node, %error, "no logs from a node");
            }
        }
        if !request.options.follow {
            break;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = sender.closed() => break,
            () = stopped.cancelled() => break,
        }
        tokio::time::sleep(manager.timing.debounce).await;
    }
}

async fn ask_node(
    manager: &Manager,
    request: &LogRequest,
    node: &NodeId,
    tasks: Vec<Task>,
    sender: &mpsc::Sender<Vec<LogMessage>>,
) -> Result<()> {
    let session = manager.hub.sender(node).ok_or_else(|| Error::unavailable("the node is not connected"))?;
    let name = crate::identity::random::<17>().map_err(|e| Error::trouble("name a subscription", &e))?;
    let subscription = TaskId::from_random(name).to_string();
    let order = LogOrder { subscription: subscription.clone(), tasks, options: request.options.clone() };
    let logs = serde_json::to_vec(&order).map_err(|e| Error::trouble("ask for logs", &e))?;
    manager.hub.subscribe(subscription.clone(), node.clone(), sender.clone());
    let message = SessionMessage { logs, ..SessionMessage::default() };
    let sent = tokio::time::timeout(Duration::from_secs(2), session.send(Ok(message))).await;
    if !matches!(sent, Ok(Ok(()))) {
        manager.hub.unsubscribe(&subscription);
        return Err(Error::unavailable("the node does not take messages"));
    }
    // A node that never answers must not keep the reader waiting.
    let hub = std::sync::Arc::clone(&manager.hub);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        hub.unsubscribe(&subscription);
    });
    Ok(())
}
