//! The agent: runs the tasks that the managers give to this node, and goes on doing so when it hears nothing of them.
//!
//! | task | woken by | publishes |
//! |---|---|---|
//! | session ([`session`]) | the leader's messages, heartbeat timer, reports | orders, the role that is wanted, reports to the leader |
//! | worker ([`worker`]) | orders | overlay state, goals of runners, what is applied |
//! | runner, one for each task ([`runner`]) | its goal, its container | reports |
//! | keeper ([`disk`]) | orders, reports | the agent's file, from which it starts again |

pub mod disk;
pub mod logs;
pub mod reports;
pub mod runner;
pub mod session;
pub mod worker;

use crate::control::request::{AttachRequest, Attachment, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::Executor;
use crate::identity::vault::Vault;
use crate::manager::dispatcher::AttachCall;
use crate::orders::Orders;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{Empty, Payload};
use crate::rpc::leader::LeaderCalls;
use gantry_model::id::{NetworkId, NodeId, TaskId};
use gantry_model::node::NodeRole;
use gantry_model::task::Task;
use reports::Reports;
use runner::Goal;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a container waits for its place in a network.
const ATTACH: Duration = Duration::from_secs(15);
/// So long it is asked for again while no leader answers, and how often.
const ELECTION: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);

/// What an agent needs to start.
pub struct AgentConfig {
    /// Folder of the agent's file.
    pub folder: PathBuf,
    /// Seals what is in it.
    pub vault: Vault,
    /// This node.
    pub node_id: NodeId,
    /// Where other nodes reach this one.
    pub addr: String,
    /// Where its tunnels end.
    pub data_path_addr: String,
    /// Trust root, for the node's description.
    pub root_pem: String,
    /// Managers.
    pub calls: LeaderCalls,
    /// Runs the tasks.
    pub executor: Arc<dyn Executor>,
}

/// A running agent; clones are handles to the same.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    config: AgentConfig,
    orders: watch::Sender<Option<Orders>>,
    applied: watch::Sender<BTreeSet<TaskId>>,
    role: watch::Sender<Option<NodeRole>>,
    link: watch::Sender<Link>,
    reports: Arc<Reports>,
    disk: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Whether the agent hears the managers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Link {
    /// Not yet since it started.
    #[default]
    Never,
    /// Yes.
    Up,
    /// Not now.
    Down(String),
}

impl Agent {
    /// Starts the agent; it begins with what is on disk, without waiting for a manager.
    pub async fn start(config: AgentConfig) -> Result<Self> {
        let (folder, vault) = (config.folder.clone(), config.vault.clone());
        let saved = tokio::task::spawn_blocking(move || disk::load(&folder, &vault))
            .await
            .map_err(|e| Error::trouble("read the agent's file", &e))??;
        let shared = Shared {
            orders: watch::Sender::new(saved.as_ref().map(|saved| saved.orders.clone())),
            applied: watch::Sender::default(),
            role: watch::Sender::default(),
            link: watch::Sender::default(),
            reports: Arc::new(Reports::new(saved.map(|saved| saved.statuses).unwrap_or_default())),
            disk: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        };
        let agent = Self { shared: Arc::new(shared) };
        let tasks = &agent.shared.tasks;
        tasks.spawn(worker::run(agent.clone()));
        tasks.spawn(disk::keep(agent.clone()));
        tasks.spawn(session::run(agent.clone()));
        Ok(agent)
    }

    /// The role that the managers want of this node, when they have said one.
    pub fn wanted_role(&self) -> watch::Receiver<Option<NodeRole>> {
        self.shared.role.subscribe()
    }

    /// Writes the orders and what was observed.
    pub async fn save(&self) -> Result<()> {
        disk::save(self).await
    }

    /// Whether managers are heard.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.shared.link.subscribe()
    }

    /// Managers that this node knows.
    pub fn calls(&self) -> &LeaderCalls {
        &self.shared.config.calls
    }

    /// The places that containers of this node hold in cluster networks; not those that are being given back.
    pub fn attachments(&self) -> Vec<Attachment> {
        let orders = self.shared.orders.borrow();
        let Some(orders) = orders.as_ref() else { return Vec::new() };
        let networks = orders.overlay().map_or(&[][..], |overlay| &overlay.networks);
        let held = orders.assignment.tasks.iter().filter(|task| Goal::of(task.desired_state) < Goal::Stop);
        let place = |task: &Task| {
            let spec = task.spec.network_attachment_spec.clone()?;
            let id = &task.networks_attachments.first()?.network_id;
            let name = networks.iter().find(|network| network.id.as_str() == id).map(|n| n.name.as_str());
            Some(attachment(task, id, name.unwrap_or_default(), spec.container_id, spec.names))
        };
        held.filter_map(place).collect()
    }

    /// Stops the agent. Containers live on.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Stops the agent, its tasks and networks, for good. Tells the leader if it can.
    pub async fn leave(&self, tell: bool) {
        if tell {
            let told = self
                .calls()
                .call(|channel| async move { DispatcherClient::new(channel).leave(Empty {}).await });
            match tokio::time::timeout(Duration::from_secs(3), told).await {
                // The other nodes send no more requests here before its tasks end.
                Ok(Ok(_)) => tokio::time::sleep(runner::LINGER).await,
                _ => tracing::warn!("no manager could be told that this node leaves the swarm"),
            }
        }
        self.shutdown().await;
        worker::clear(&self.shared.config).await;
    }

    /// Joins a container to a cluster network; returns once this node's network is made.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment> {
        let names = request.names.clone();
        let container_id = request.container_id.clone();
        let reply = self.attach_call(&AttachCall::Attach(request)).await?;
        let Reply::Attached { task, network } = reply else {
            return Err(Error::internal("the leader answered something else than an attachment"));
        };
        let mut applied = self.shared.applied.subscribe();
        let arrived = async { applied.wait_for(|tasks| tasks.contains(&task.id)).await.is_ok() };
        let here = tokio::time::timeout(ATTACH, arrived).await.unwrap_or(false);
        if !here {
            self.detach(task.id.clone()).await.ok();
            return Err(Error::unavailable(format!(
                "network {} was not made on this node in time: no orders of the leader arrived",
                network.spec.name
            )));
        }
        Ok(attachment(&task, &network.id, &network.spec.name, container_id, names))
    }

    /// Takes a container out of a cluster network.
    pub async fn detach(&self, task: TaskId) -> Result<()> {
        self.attach_call(&AttachCall::Detach(task)).await.map(drop)
    }

    async fn attach_call(&self, call: &AttachCall) -> Result<Reply> {
        let data = serde_json::to_vec(call).map_err(|e| Error::trouble("ask for a network", &e))?;
        let begun = Instant::now();
        let ask = async || loop {
            let asked = self.calls().call(|channel| {
                let data = data.clone();
                async move { DispatcherClient::new(channel).attach(Payload { data }).await }
            });
            match asked.await {
                // The others may just be electing a leader; asking twice for the same container gives the same place.
                Err(error) if error.kind == ErrorKind::Unavailable && begun.elapsed() < ELECTION => {
                    tokio::time::sleep(AGAIN).await;
                }
                other => return other,
            }
        };
        let reply = tokio::time::timeout(ATTACH, ask()).await.map_err(|_| Error::no_leader())??;
        serde_json::from_slice(&reply.into_inner().data)
            .map_err(|e| Error::trouble("read the leader's answer", &e))
    }
}

fn attachment(task: &Task, id: &str, name: &str, container_id: String, names: Vec<String>) -> Attachment {
    Attachment {
        task: task.id.clone(),
        network_id: NetworkId::parse(id).unwrap_or_default(),
        network_name: name.to_owned(),
        container_id,
        addresses: task.networks_attachments.first().map(|place| place.addresses.clone()).unwrap_or_default(),
        names,
    }
}
