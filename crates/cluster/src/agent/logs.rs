//! Sends the logs of this node's tasks to the leader, who asked for them.

use super::Agent;
use crate::executor::LogMessage;
use crate::manager::logs::LogOrder;
use crate::proto::LogPart;
use crate::proto::dispatcher_client::DispatcherClient;
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, Stream};
use gantry_model::task::Task;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Messages in one part.
const GROUP: usize = 64;
/// Parts that wait for a slow reader.
const BACKLOG: usize = 8;

type Messages = Pin<Box<dyn Stream<Item = LogMessage> + Send>>;

/// Reads and sends until all is sent, or nobody reads any more.
pub async fn publish(agent: Agent, channel: Channel, order: LogOrder) {
    let (sender, parts) = mpsc::channel(BACKLOG);
    // The first part says whose answer this is.
    let hello = LogPart { subscription: order.subscription.clone(), messages: b"[]".to_vec() };
    if sender.send(hello).await.is_err() {
        return;
    }
    let reader = async {
        let mut all: SelectAll<Messages> = SelectAll::new();
        for task in &order.tasks {
            all.push(read(&agent, task, &order).await);
        }
        let mut groups = all.ready_chunks(GROUP);
        while let Some(group) = groups.next().await {
            let Ok(messages) = serde_json::to_vec(&group) else { break };
            let part = LogPart { subscription: order.subscription.clone(), messages };
            if sender.send(part).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    let mut client = DispatcherClient::new(channel);
    let sent = client.publish_logs(ReceiverStream::new(parts));
    tokio::pin!(sent);
    tokio::select! {
        // The leader answers early when its reader is gone.
        _ = &mut sent => {}
        () = reader => drop(sent.await),
        () = agent.shared.stop.cancelled() => {}
    }
}

async fn read(agent: &Agent, task: &Task, order: &LogOrder) -> Messages {
    let head = (agent.shared.config.node_id.clone(), task.service_id.clone(), task.id.clone());
    let stream = match agent.shared.config.executor.logs(task, &order.options).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(task = %task.id, %error, "no logs of a task");
            return Box::pin(futures_util::stream::empty());
        }
    };
    Box::pin(stream.filter_map(move |chunk| {
        let (node_id, service_id, task_id) = head.clone();
        let message = match chunk {
            Ok(chunk) => Some(LogMessage {
                node_id,
                service_id,
                task_id,
                time: chunk.time,
                source: chunk.source,
                data: chunk.data,
            }),
            Err(error) => {
                tracing::warn!(task = %task_id, %error, "reading the logs of a task failed");
                None
            }
        };
        std::future::ready(message)
    }))
}
