//! The agent's connection to the leader: one stream of orders, heartbeats, reports. When it breaks, another one is tried, for ever.

use super::{Agent, Link, logs};
use crate::config::RemoteManager;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ca;
use crate::manager::logs::LogOrder;
use crate::orders::Orders;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{HeartbeatRequest, SessionMessage, SessionRequest, StatusRequest};
use crate::rpc::dial::LARGEST_MESSAGE;
use crate::rpc::status::error_of;
use gantry_model::id::NodeId;
use gantry_model::node::NodeRole;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::Streaming;
use tonic::transport::Channel;

/// First and longest pause between tries. A node that was cut off must know within two seconds what changed meanwhile.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// How often to look whether other nodes fell silent: the leader hears of it at once, not with the next heartbeat.
const LOOK: Duration = Duration::from_millis(200);
/// How long the leader may take to answer the beginning of a session.
const OPENING: Duration = Duration::from_secs(5);
/// So long without a session is worth a word.
const WORRY: Duration = Duration::from_secs(5);

/// Keeps a session open until the agent stops.
pub async fn run(agent: Agent) {
    let stop = agent.shared.stop.clone();
    let mut pause = PAUSE.0;
    let mut last = Instant::now();
    let mut complained = false;
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = session(&agent) => ended,
            () = stop.cancelled() => return,
        };
        let (reason, denied) = match ended {
            Ok(()) => ("the leader ended the session".to_owned(), false),
            Err(error) => (error.message, error.kind == ErrorKind::PermissionDenied),
        };
        if *agent.shared.link.borrow() == Link::Up {
            (last, complained) = (Instant::now(), false);
        }
        // A change of leaders is no news here; a node that stays without one is.
        if last.elapsed() > WORRY && !std::mem::replace(&mut complained, true) {
            tracing::warn!(
                reason,
                "no leader of the swarm is heard; tasks, names and networks go on as they are"
            );
        } else {
            tracing::debug!(reason, "no session with the leader");
        }
        agent.shared.link.send_modify(|link| {
            // Who is not let in is not just early.
            if *link != Link::Never || denied {
                *link = Link::Down(reason);
            }
        });
        pause = if begun.elapsed() > PAUSE.1 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Half to all of a pause: ten thousand agents must not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let draw = crate::identity::random::<1>().map_or(0, |bytes| u32::from(bytes[0]));
    pause / 2 + pause * draw / 512
}

async fn session(agent: &Agent) -> Result<()> {
    let config = &agent.shared.config;
    let mut description = config.executor.describe().await;
    description.tls_info =
        ca::tls_info(&config.root_pem).map_err(|e| Error::trouble("describe the node", &e))?;
    let description =
        serde_json::to_vec(&description).map_err(|e| Error::trouble("describe the node", &e))?;
    let request = SessionRequest {
        description,
        addr: config.addr.clone(),
        data_path_addr: config.data_path_addr.clone(),
    };
    let opened = config.calls.call(|channel| {
        let request = request.clone();
        async move {
            let mut client =
                DispatcherClient::new(channel.clone()).max_decoding_message_size(LARGEST_MESSAGE);
            client.session(request).await.map(|stream| (channel, stream.into_inner()))
        }
    });
    let (channel, mut stream) = tokio::time::timeout(OPENING, opened)
        .await
        .map_err(|_| Error::unavailable("no manager answers"))??;
    let first = tokio::time::timeout(OPENING, stream.message())
        .await
        .map_err(|_| Error::unavailable("the leader sends no orders"))?
        .map_err(|s| error_of(&s).0)?
        .ok_or_else(|| Error::unavailable("the leader ended the session"))?;
    let session = first.session_id.clone();
    let (period, periods) = watch::channel(Duration::from_millis(first.heartbeat_millis.max(50)));
    take(agent, &channel, first, &period);
    agent.shared.link.send_replace(Link::Up);
    agent.shared.reports.resend();
    // The session is over when one of the three is.
    tokio::select! {
        ended = listen(agent, &channel, &mut stream, &period) => ended,
        ended = beat(agent, channel.clone(), session.clone(), periods) => ended,
        ended = report(agent, channel.clone(), session) => ended,
    }
}

async fn listen(
    agent: &Agent,
    channel: &Channel,
    stream: &mut Streaming<SessionMessage>,
    period: &watch::Sender<Duration>,
) -> Result<()> {
    while let Some(message) = stream.message().await.map_err(|s| error_of(&s).0)? {
        take(agent, channel, message, period);
    }
    Ok(())
}

fn take(agent: &Agent, channel: &Channel, message: SessionMessage, period: &watch::Sender<Duration>) {
    if message.heartbeat_millis > 0 {
        let told = Duration::from_millis(message.heartbeat_millis.max(50));
        period.send_if_modified(|period| std::mem::replace(period, told) != told);
    }
    let managers: Vec<RemoteManager> = message
        .managers
        .into_iter()
        .filter_map(|manager| {
            Some(RemoteManager { node_id: NodeId::parse(&manager.node_id).ok()?, addr: manager.addr })
        })
        .collect();
    agent.calls().learn(managers);
    match message.role.as_str() {
        "manager" => drop(agent.shared.role.send_replace(Some(NodeRole::Manager))),
        "worker" => drop(agent.shared.role.send_replace(Some(NodeRole::Worker))),
        _ => {}
    }
    if !message.assignment.is_empty() {
        match serde_json::from_slice::<Orders>(&message.assignment) {
            Ok(orders) => drop(agent.shared.orders.send_replace(Some(orders))),
            Err(error) => {
                tracing::error!(%error, "the leader's orders cannot be read; going on with the old ones")
            }
        }
    }
    if !message.logs.is_empty() {
        match serde_json::from_slice::<LogOrder>(&message.logs) {
            Ok(order) => drop(agent.shared.tasks.spawn(logs::publish(agent.clone(), channel.clone(), order))),
            Err(error) => tracing::warn!(%error, "the leader's request for logs cannot be read"),
        }
    }
}

async fn beat(
    agent: &Agent,
    channel: Channel,
    session: String,
    mut period: watch::Receiver<Duration>,
) -> Result<()> {
    let mut client = DispatcherClient::new(channel);
    let mut last = Instant::now();
    let mut told = Vec::new();
    loop {
        let now = tokio::select! {
            due = due(last, &mut period) => match due {
                Some(now) => now,
                None => return Ok(()),
            },
            () = silence_changes(agent, &told) => *period.borrow(),
        };
        last = Instant::now();
        told = agent.shared.config.executor.silent_nodes();
        if let Some(leader) = agent.calls().leader().filter(|leader| told.contains(&leader.node_id)) {
            return Err(Error::unavailable(format!("nothing is heard of manager {}", leader.addr)));
        }
        let paths = serde_json::to_vec(&agent.shared.config.executor.path_trouble())
            .map_err(|e| Error::trouble("report the paths to other nodes", &e))?;
        let silent = told.iter().map(ToString::to_string).collect();
        let heartbeat = client.heartbeat(HeartbeatRequest { session_id: session.clone(), paths, silent });
        match tokio::time::timeout(now.max(Duration::from_secs(1)) * 2, heartbeat).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => return Err(error_of(&status).0),
            Err(_) => return Err(Error::unavailable("the leader does not answer heartbeats")),
        }
    }
}

/// Waits until other nodes are silent than the leader was told.
async fn silence_changes(agent: &Agent, told: &[NodeId]) {
    while agent.shared.config.executor.silent_nodes() == told {
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a period has passed since the last heartbeat, however often the leader says how long it is; `None` when the
/// session is over.
async fn due(last: Instant, period: &mut watch::Receiver<Duration>) -> Option<Duration> {
    loop {
        let now = *period.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until((last + now).into()) => return Some(now),
            changed = period.changed() => changed.ok()?,
        }
    }
}

async fn report(agent: &Agent, channel: Channel, session: String) -> Result<()> {
    let mut client = DispatcherClient::new(channel).max_encoding_message_size(LARGEST_MESSAGE);
    loop {
        // Cancelled by the end of the session only while it waits, or while the reports are on their way: then all are sent again.
        let reports = agent.shared.reports.take().await;
        let updates = serde_json::to_vec(&reports).map_err(|e| Error::trouble("report", &e))?;
        if let Err(status) =
            client.update_status(StatusRequest { session_id: session.clone(), updates }).await
        {
            agent.shared.reports.give_back(reports);
            return Err(error_of(&status).0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A busy leader sends orders more often than the agent beats.
    #[tokio::test]
    async fn orders_do_not_put_heartbeats_off() {
        let period = Duration::from_millis(50);
        let (sender, mut receiver) = watch::channel(period);
        let orders = async {
            loop {
                sender.send_replace(period);
                tokio::time::sleep(period / 10).await;
            }
        };
        let beaten = tokio::time::timeout(period * 20, due(Instant::now(), &mut receiver));
        tokio::select! {
            beaten = beaten => assert_eq!(beaten, Ok(Some(period))),
            () = orders => {}
        }
        drop(sender);
        assert_eq!(due(Instant::now() + period, &mut receiver).await, None, "the session is over");
    }
}
