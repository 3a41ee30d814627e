//! A node that is part of a cluster: its files, its certificate, its agent, and its manager while it is one.
//!
//! The supervisor keeps role and certificate as the managers want them:
//!
//! ```text
//! worker ──(role wanted: manager) certificate ─► Raft and server start ─► leader adds it─► manager
//! manager ─(role wanted: worker) leader removes it from Raft ─► certificate ─► Raft and server stop, files go ─► worker
//! ```

pub mod address;
pub mod join;
mod supervisor;

use crate::agent::{Agent, AgentConfig};
use crate::config::{ClusterConfig, RemoteManager};
use crate::error::{Error, Result};
use crate::identity::files::{self, NodeIdentity};
use crate::identity::tls::Credentials;
use crate::identity::vault::Vault;
use crate::manager::events::ClusterEvent;
use crate::manager::{Manager, ManagerConfig};
use crate::proto::control_client::ControlClient;
use crate::proto::{Empty, JoinRaftRequest};
use crate::rpc::dial::Dialer;
use crate::rpc::leader::LeaderCalls;
use crate::rpc::listen;
use gantry_model::id::{ClusterId, NodeId};
use gantry_model::node::NodeRole;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where a node is and whom it knows: `node.json`. While this file exists the node is part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of the format.
    pub format: u32,
    /// This node.
    pub node_id: NodeId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Where it listens while it is a manager.
    pub listen: SocketAddr,
    /// Where others reach it: `ip:port`.
    pub advertise: String,
    /// Where its tunnels end.
    pub data_path: String,
    /// Managers.
    pub managers: Vec<RemoteManager>,
}

/// Folders and files of a node.
#[derive(Debug, Clone)]
pub struct Layout(pub PathBuf);

impl Layout {
    fn settings(&self) -> PathBuf {
        self.0.join("node.json")
    }

    /// CA, certificate, key, and the data key that seals it.
    pub fn certificates(&self) -> PathBuf {
        self.0.join("certificates")
    }

    /// Log and snapshots.
    pub fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }

    fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// Reads the settings, if this node is part of a cluster. Blocks.
    pub fn load(&self) -> Result<Option<Settings>> {
        let path = self.settings();
        let act = || format!("read {}", path.display());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::trouble(act(), &e)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::damaged(act(), &e))
    }

    /// Writes the settings. Blocks.
    pub fn save(&self, settings: &Settings) -> Result<()> {
        let act = "write the node's settings";
        let bytes = serde_json::to_vec_pretty(settings).map_err(|e| Error::trouble(act, &e))?;
        files::make_folder(&self.0)
            .and_then(|()| files::replace(&self.settings(), &bytes))
            .map_err(|e| Error::trouble(act, &e))
    }

    /// Forgets the cluster: first the file that says we are part of one, then the rest. Blocks.
    pub fn wipe(&self) -> Result<()> {
        remove(&self.settings(), |path| std::fs::remove_file(path))?;
        for folder in [self.raft(), self.agent(), self.certificates()] {
            remove(&folder, |path| std::fs::remove_dir_all(path))?;
        }
        Ok(())
    }

    /// Forgets Raft only, all of it at one moment: a part of a log would pass for a log. Blocks.
    pub fn wipe_raft(&self) -> Result<()> {
        let gone = self.0.join("raft.gone");
        remove(&gone, |path| std::fs::remove_dir_all(path))?;
        remove(&self.raft(), |path| std::fs::rename(path, &gone))?;
        remove(&gone, |path| std::fs::remove_dir_all(path))
    }
}

fn remove(path: &Path, act: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    match act(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::trouble(format!("remove {}", path.display()), &e))
        }
        _ => Ok(()),
    }
}

/// A node in a cluster; clones are handles to the same.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    layout: Layout,
    config: ClusterConfig,
    vault: Vault,
    settings: Mutex<Settings>,
    credentials: Credentials,
    dialer: Dialer,
    calls: LeaderCalls,
    agent: Agent,
    manager: RwLock<Option<Manager>>,
    events: broadcast::Sender<ClusterEvent>,
    disk: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Starts the node from its settings and identity: manager first, if it is one, then the agent.
    pub async fn start(
        config: ClusterConfig,
        settings: Settings,
        identity: NodeIdentity,
        vault: Vault,
        events: broadcast::Sender<ClusterEvent>,
    ) -> Result<Self> {
        let layout = Layout(config.state_dir.clone());
        let (role, root_pem) = (identity.subject.role, identity.root_pem.clone());
        let credentials =
            Credentials::new(identity).map_err(|e| Error::trouble("use the node's certificate", &e))?;
        let dialer = Dialer::new(credentials.clone());
        let calls = LeaderCalls::new(dialer.clone(), settings.managers.clone());
        let manager = match role {
            NodeRole::Manager => {
                Some(start_manager(&config, &vault, &settings, &credentials, &dialer, &events).await?)
            }
            NodeRole::Worker => None,
        };
        let agent = Agent::start(AgentConfig {
            folder: layout.agent(),
            vault: vault.clone(),
            node_id: settings.node_id.clone(),
            addr: address::host(&settings.advertise).to_owned(),
            data_path_addr: settings.data_path.clone(),
            root_pem,
            calls: calls.clone(),
            executor: Arc::clone(&config.executor),
        });
        let agent = match (agent.await, &manager) {
            (Ok(agent), _) => agent,
            (Err(error), Some(manager)) => {
                manager.shutdown().await;
                return Err(error);
            }
            (Err(error), None) => return Err(error),
        };
        let shared = Shared {
            layout,
            config,
            vault,
            settings: Mutex::new(settings),
            credentials,
            dialer,
            calls,
            agent,
            manager: RwLock::new(manager),
            events,
            disk: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let node = Self { shared: Arc::new(shared) };
        node.shared.tasks.spawn(supervisor::run(node.clone()));
        Ok(node)
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What seals this node's files.
    pub fn vault(&self) -> &Vault {
        &self.shared.vault
    }

    /// Writes the settings as they are now. One writer at a time, so that the newest are written last.
    pub async fn save(&self) -> Result<()> {
        let _writer = self.shared.disk.lock().await;
        let (layout, settings) = (self.shared.layout.clone(), self.settings());
        tokio::task::spawn_blocking(move || layout.save(&settings))
            .await
            .map_err(|e| Error::trouble("write the node's settings", &e))?
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.shared.agent
    }

    /// The manager, while this node is one.
    pub fn manager(&self) -> Option<Manager> {
        self.shared.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_manager(&self, manager: Option<Manager>) {
        *self.shared.manager.write().unwrap_or_else(PoisonError::into_inner) = manager;
    }

    /// Whether Raft counts this node among its members, as far as this node knows.
    pub fn is_member(&self) -> bool {
        let id = self.settings().node_id;
        self.manager().is_some_and(|manager| {
            manager.store.voters().contains(&id) && manager.store.read().node(&id).is_some()
        })
    }

    /// Asks the leader to make this node a member of Raft.
    async fn join_raft(&self, manager: &Manager) -> Result<()> {
        let incarnation = manager.store.novice().incarnation().to_owned();
        let request = JoinRaftRequest { addr: self.settings().advertise, incarnation };
        let asked = self.shared.calls.call(|channel| {
            let request = request.clone();
            async move { ControlClient::new(channel).join_raft(request).await }
        });
        asked.await.map(drop)
    }

    /// Stops the node; it is still part of the cluster, and its containers live on.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.agent.shutdown().await;
        if let Some(manager) = self.manager() {
            manager.shutdown().await;
        }
    }

    /// Leaves the cluster for good. What can be told to the others is told; what cannot does not stop it.
    pub async fn leave(&self) -> Result<()> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let alone = self.manager().is_some_and(|manager| manager.store.members().len() <= 1);
        if let Some(manager) = self.manager().filter(|_| !alone)
            && let Err(error) = self.leave_raft(&manager).await
        {
            tracing::warn!(%error, "this manager leaves without the others' consent");
        }
        self.shared.agent.leave(!alone).await;
        if let Some(manager) = self.manager() {
            manager.shutdown().await;
        }
        let layout = self.shared.layout.clone();
        tokio::task::spawn_blocking(move || layout.wipe())
            .await
            .map_err(|e| Error::trouble("forget the swarm", &e))?
    }

    async fn leave_raft(&self, manager: &Manager) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(8);
        let mut last = Error::no_leader();
        while Instant::now() < deadline {
            let Some(leader) = manager.store.leader() else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if leader.node_id == *manager.store.id() {
                manager.store.hand_over().await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            let asked = self
                .shared
                .calls
                .call(|channel| async move { ControlClient::new(channel).leave_raft(Empty {}).await });
            match tokio::time::timeout(Duration::from_secs(5), asked).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind != crate::error::ErrorKind::Unavailable => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::unavailable("the leader does not answer"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(last)
    }
}

async fn start_manager(
    config: &ClusterConfig,
    vault: &Vault,
    settings: &Settings,
    credentials: &Credentials,
    dialer: &Dialer,
    events: &broadcast::Sender<ClusterEvent>,
) -> Result<Manager> {
    let listener = listen::bind(settings.listen).await.map_err(|e| {
        Error::precondition(format!("failed to listen on remote API address {}: {e}", settings.listen))
    })?;
    let manager = ManagerConfig {
        folder: Layout(config.state_dir.clone()).raft(),
        vault: vault.clone(),
        credentials: credentials.clone(),
        dialer: dialer.clone(),
        timing: config.timing.clone(),
        events: events.clone(),
    };
    Manager::start(manager, listener).await
}
