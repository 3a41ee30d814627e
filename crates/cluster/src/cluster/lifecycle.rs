//! Open, init, join, leave, shutdown.

use super::{Cluster, Shared, Slot};
use crate::agent::Link;
use crate::config::{ClusterConfig, InitRequest, JoinRequest, LocalNodeState, RemoteManager};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ca::{self, Authority};
use crate::identity::files::{self, NodeIdentity};
use crate::identity::vault::{UnlockKey, Vault, VaultError};
use crate::identity::{random, token};
use crate::manager::Manager;
use crate::manager::events::BACKLOG;
use crate::manager::identity::new_node;
use crate::node::{Layout, Node, Settings, address, join};
use crate::raft::recovery;
use gantry_model::id::{ClusterId, NetworkId, NodeId};
use gantry_model::node::NodeRole;
use gantry_model::swarm::{Cluster as ClusterObject, SwarmSpec};
use gantry_planner::{ClusterRecord, ClusterSecrets, init, validate};
use std::future::Future;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How long a user waits for a join before it goes on in the background.
const JOIN: Duration = Duration::from_secs(20);
/// Pause before a node that does not start is started again.
const RESTART: Duration = Duration::from_secs(2);
/// Life of the first certificate, until the cluster's own rules are known.
const FIRST_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How this node is, and what is wrong.
pub(super) fn condition(node: &Node) -> (LocalNodeState, String) {
    if let Some(why) = node.manager().and_then(|manager| manager.store.stopped()) {
        return (LocalNodeState::Error, raft_stopped(&why).message);
    }
    let link = node.agent().link().borrow().clone();
    match link {
        Link::Up => (LocalNodeState::Active, String::new()),
        Link::Down(why) if why.contains("Permission denied") => (LocalNodeState::Error, why),
        // A node without managers works on.
        Link::Down(why) => (LocalNodeState::Active, format!("no leader of the swarm is heard: {why}")),
        Link::Never if node.manager().is_some_and(|manager| manager.store.read().cluster().is_some()) => {
            (LocalNodeState::Active, String::new())
        }
        Link::Never => (LocalNodeState::Pending, String::new()),
    }
}

/// What is known of the cluster on this manager is old, and nothing can be written.
pub(super) fn raft_stopped(why: &str) -> Error {
    Error::unavailable(format!(
        "this manager's part in Raft has stopped, and is started again until it runs: {why}"
    ))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::trouble("work on the swarm's files", &e))?
}

impl Cluster {
    /// Takes up this node's part in its cluster, if it has one. What does not start (an address that is not there yet) is tried again in
    /// the background, and `info` says why.
    pub async fn open(config: ClusterConfig) -> Result<Self> {
        let layout = Layout(config.state_dir.clone());
        let shared = Shared {
            layout,
            slot: RwLock::new(Slot::Outside),
            changing: tokio::sync::Mutex::new(()),
            events: tokio::sync::broadcast::Sender::new(BACKLOG),
            stop: CancellationToken::new(),
            config,
        };
        let cluster = Self { shared: Arc::new(shared) };
        if let Err(error) = cluster.take_up(None).await {
            cluster.keep_trying(None, error);
        }
        Ok(cluster)
    }

    /// Starts this node's part in its cluster, if its files say that it has one.
    async fn take_up(&self, unlock: Option<UnlockKey>) -> Result<()> {
        let layout = self.shared.layout.clone();
        match blocking(move || layout.load()).await? {
            Some(settings) => self.start(settings, unlock).await,
            None => {
                self.set_slot(Slot::Outside);
                Ok(())
            }
        }
    }

    /// Starts with what is on disk; without the unlock key, a locked node waits for it.
    async fn start(&self, settings: Settings, unlock: Option<UnlockKey>) -> Result<()> {
        let folder = self.shared.layout.certificates();
        let opened = blocking(move || Ok(Vault::open(&folder, unlock.as_ref()))).await?;
        match opened {
            Ok(vault) => self.start_unlocked(settings, vault).await,
            Err(VaultError::Locked) => {
                tracing::warn!("this node's part in the swarm is locked: it waits for `docker swarm unlock`");
                self.set_slot(Slot::Locked(settings));
                Ok(())
            }
            // Docker's words.
            Err(VaultError::WrongKey) => Err(Error::invalid("invalid key")),
            Err(error @ VaultError::Unreadable { .. }) => {
                Err(Error::damaged("open the node's data key", &error))
            }
            Err(error) => Err(Error::trouble("open the node's data key", &error)),
        }
    }

    async fn start_unlocked(&self, settings: Settings, vault: Vault) -> Result<()> {
        let (folder, keys) = (self.shared.layout.certificates(), vault.clone());
        let identity = blocking(move || {
            NodeIdentity::load(&folder, &keys).map_err(|e| Error::damaged("read the node's certificate", &e))
        })
        .await?
        .ok_or_else(|| Error::internal("the node's certificate is missing"))?;
        let (config, events) = (self.shared.config.clone(), self.shared.events.clone());
        let node = Node::start(config, settings, identity, vault, events).await?;
        self.set_slot(Slot::Inside(node));
        Ok(())
    }

    fn keep_trying(&self, unlock: Option<UnlockKey>, error: Error) {
        tracing::error!(%error, "this node's part in the swarm does not start; trying again");
        self.set_slot(Slot::Failing(error.message));
        tokio::spawn(self.clone().restart(unlock));
    }

    /// Gives a locked node its key.
    pub async fn unlock(&self, key: &str) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        let settings = match self.slot() {
            Slot::Locked(settings) => settings,
            Slot::Outside | Slot::Joining => return Err(Error::not_in_swarm()),
            Slot::Failing(_) | Slot::Inside(_) => return Err(Error::exists("swarm is not locked")),
        };
        let key = UnlockKey::parse(key).ok_or_else(|| Error::invalid("invalid key"))?;
        let started = self.start(settings, Some(key.clone())).await;
        if let Err(error) = &started
            && error.kind != ErrorKind::InvalidArgument
        {
            self.keep_trying(Some(key), error.clone());
        }
        started
    }

    async fn restart(self, unlock: Option<UnlockKey>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RESTART) => {}
                () = self.shared.stop.cancelled() => return,
            }
            let _changing = self.shared.changing.lock().await;
            if !matches!(self.slot(), Slot::Failing(_)) {
                return;
            }
            match self.take_up(unlock.clone()).await {
                Ok(()) => return,
                Err(error) => self.set_slot(Slot::Failing(error.message)),
            }
        }
    }

    /// Makes a new cluster with this node as its manager; or, forced, goes on with the old one without its lost managers.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId> {
        let _changing = self.shared.changing.lock().await;
        match self.slot() {
            Slot::Inside(node) if request.force_new_cluster => return self.recover(node, &request).await,
            Slot::Outside => {}
            Slot::Locked(_) => return Err(Error::locked()),
            Slot::Inside(_) | Slot::Joining | Slot::Failing(_) => return Err(Error::already_in_swarm()),
        }
        crate::control::swarm::offered(&SwarmSpec::default(), &request.spec)?;
        let mut spec = validate::swarm_spec(request.spec.clone())?;
        spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
        let listen = address::listen(&request.listen_addr)?;
        let advertise = address::advertise(&request.advertise_addr, listen, None)?;
        let data_path = address::data_path(&request.data_path_addr, advertise)?;
        let founding = Founding::new(&request, spec, self.shared.config.timing.certificate_validity)?;
        let id = founding.identity.subject.node_id.clone();
        let settings = Settings {
            format: 1,
            node_id: id.clone(),
            cluster_id: founding.record.cluster.id.clone(),
            listen,
            advertise: advertise.to_string(),
            data_path,
            managers: vec![RemoteManager { node_id: id.clone(), addr: advertise.to_string() }],
        };
        let vault = self.begin(&settings, &founding.identity).await?;
        let (config, events) = (self.shared.config.clone(), self.shared.events.clone());
        let node = Node::start(config, settings.clone(), founding.identity.clone(), vault, events).await?;
        match self.found(&node, founding, &settings).await {
            Ok(()) => {
                self.set_slot(Slot::Inside(node));
                Ok(id)
            }
            Err(error) => {
                node.shutdown().await;
                let layout = self.shared.layout.clone();
                blocking(move || layout.wipe()).await?;
                Err(error)
            }
        }
    }

    /// The first batch; only when it is decided do the settings say that this node is part of a cluster.
    async fn found(&self, node: &Node, founding: Founding, settings: &Settings) -> Result<()> {
        let manager = node.manager().ok_or_else(Error::not_manager)?;
        manager.store.initialize(&settings.advertise).await?;
        let first = new_node(settings.node_id.clone(), NodeRole::Manager, founding.request.availability);
        let ingress =
            NetworkId::from_random(random().map_err(|e| Error::trouble("make the ingress network", &e))?);
        manager.store.propose(init::cluster_created(founding.record, first, ingress)).await?;
        node.save().await?;
        // The user's next command finds a node that takes tasks.
        wait_joined(node).await
    }

    /// Clears leftovers of an earlier life, makes a vault, and writes the identity.
    async fn begin(&self, settings: &Settings, identity: &NodeIdentity) -> Result<Vault> {
        let (layout, identity) = (self.shared.layout.clone(), identity.clone());
        tracing::info!(node = %settings.node_id, cluster = %settings.cluster_id, listen = %settings.listen, "entering a swarm");
        blocking(move || {
            layout.wipe()?;
            files::make_folder(&layout.0)
                .map_err(VaultError::from)
                .and_then(|()| Vault::open(&layout.certificates(), None))
                .and_then(|vault| identity.save(&layout.certificates(), &vault).map(|()| vault))
                .map_err(|e| Error::trouble("write the node's certificate", &e))
        })
        .await
    }

    async fn recover(&self, node: Node, request: &InitRequest) -> Result<NodeId> {
        let mut settings = node.settings();
        if node.manager().is_none() {
            return Err(Error::not_manager());
        }
        if !request.listen_addr.is_empty() {
            settings.listen = address::listen(&request.listen_addr)?;
        }
        if !request.advertise_addr.is_empty() {
            settings.advertise =
                address::advertise(&request.advertise_addr, settings.listen, None)?.to_string();
        }
        settings.managers =
            vec![RemoteManager { node_id: settings.node_id.clone(), addr: settings.advertise.clone() }];
        node.shutdown().await;
        self.set_slot(Slot::Failing("the swarm is being recovered".into()));
        let (layout, saved, vault) = (self.shared.layout.clone(), settings.clone(), node.vault().clone());
        let recovered = blocking(move || {
            recovery::only_member(&layout.raft(), &vault, &saved.node_id, &saved.advertise)?;
            layout.save(&saved)
        })
        .await;
        // Even if nothing was recovered, the node goes on as it was.
        self.start_unlocked(settings.clone(), node.vault().clone()).await?;
        recovered?;
        let manager = self.manager()?;
        manager.store.wait_leader(JOIN).await?;
        demote_lost(&manager).await?;
        Ok(settings.node_id)
    }

    /// Joins an existing cluster.
    pub async fn join(&self, request: JoinRequest) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        if !matches!(self.slot(), Slot::Outside) {
            return Err(Error::already_in_swarm());
        }
        self.set_slot(Slot::Joining);
        match self.enter(&request).await {
            Ok(node) => {
                self.set_slot(Slot::Inside(node.clone()));
                wait_joined(&node).await
            }
            Err(error) => {
                self.set_slot(Slot::Outside);
                Err(error)
            }
        }
    }

    async fn enter(&self, request: &JoinRequest) -> Result<Node> {
        let listen = address::listen(&request.listen_addr)?;
        let admission = join::admission(request).await?;
        let advertise = address::advertise(&request.advertise_addr, listen, Some(&admission.remote))?;
        let data_path = address::data_path(&request.data_path_addr, advertise)?;
        let subject = &admission.identity.subject;
        let settings = Settings {
            format: 1,
            node_id: subject.node_id.clone(),
            cluster_id: subject.cluster_id.clone(),
            listen,
            advertise: advertise.to_string(),
            data_path,
            managers: admission.managers,
        };
        let vault = self.begin(&settings, &admission.identity).await?;
        // On disk before the first task can arrive: after a crash the node takes its tasks up again.
        let (layout, saved) = (self.shared.layout.clone(), settings.clone());
        blocking(move || layout.save(&saved)).await?;
        let (config, events) = (self.shared.config.clone(), self.shared.events.clone());
        let started = Node::start(config, settings, admission.identity, vault, events).await;
        if started.is_err() {
            let layout = self.shared.layout.clone();
            blocking(move || layout.wipe()).await?;
        }
        started
    }

    /// Leaves the cluster; a manager only when forced.
    pub async fn leave(&self, force: bool) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        let node = match self.slot() {
            Slot::Inside(node) => node,
            Slot::Failing(_) | Slot::Locked(_) if force => {
                let layout = self.shared.layout.clone();
                blocking(move || layout.wipe()).await?;
                self.set_slot(Slot::Outside);
                return Ok(());
            }
            Slot::Locked(_) => {
                // Docker's words.
                return Err(Error::precondition(
                    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
                ));
            }
            Slot::Failing(why) => {
                return Err(Error::precondition(format!("{why}. Use `--force` to leave all the same.")));
            }
            Slot::Outside | Slot::Joining => {
                return Err(Error {
                    message: "This node is not part of a swarm".into(),
                    ..Error::not_in_swarm()
                });
            }
        };
        if let Some(manager) = node.manager().filter(|_| !force) {
            return Err(Error::precondition(leave_warning(&manager)));
        }
        let left = node.leave().await;
        self.set_slot(Slot::Outside);
        left
    }

    /// Stops this node's part without leaving: containers live on, and the next `open` goes on.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let _changing = self.shared.changing.lock().await;
        if let Slot::Inside(node) = self.slot() {
            node.shutdown().await;
        }
    }
}

/// What a new cluster begins with.
struct Founding {
    request: InitRequest,
    record: ClusterRecord,
    identity: NodeIdentity,
}

impl Founding {
    fn new(request: &InitRequest, spec: SwarmSpec, life: Option<Duration>) -> Result<Self> {
        let failed = |e| Error::trouble("make the swarm's certificate authority", &e);
        let now = SystemTime::now();
        let authority = Authority::generate(now).map_err(failed)?;
        let cluster_id = ClusterId::from_random(random().map_err(failed)?);
        let node_id = NodeId::from_random(random().map_err(failed)?);
        let (key_pem, csr_pem) = ca::request().map_err(failed)?;
        let life = life.unwrap_or(FIRST_LIFE);
        let certificate =
            authority.sign(&csr_pem, &node_id, NodeRole::Manager, &cluster_id, now, life).map_err(failed)?;
        let identity = NodeIdentity::new(authority.root_pem.clone(), certificate, key_pem).map_err(failed)?;
        let root = authority.root_der().map_err(failed)?;
        let cluster = ClusterObject {
            id: cluster_id,
            spec,
            tls_info: authority.tls_info().map_err(failed)?,
            default_addr_pool: request.default_addr_pool.clone(),
            subnet_size: if request.subnet_size == 0 { 24 } else { request.subnet_size },
            data_path_port: if request.data_path_port == 0 { 4789 } else { request.data_path_port },
            ..ClusterObject::default()
        };
        let unlock_key = crate::control::swarm::unlock_key(&cluster.spec, "", false)?;
        let secrets = ClusterSecrets {
            unlock_key,
            ca_certificate: authority.root_pem.clone(),
            ca_key: authority.key_pem().to_owned(),
            join_tokens: token::generate_pair(&root).map_err(failed)?,
            ..ClusterSecrets::default()
        };
        Ok(Self { request: request.clone(), record: ClusterRecord { cluster, secrets }, identity })
    }
}

/// Waits until the leader has spoken to this node and, if it is a manager, has made it a member.
async fn wait_joined(node: &Node) -> Result<()> {
    let mut link = node.agent().link();
    let joined = async {
        link.wait_for(|link| *link == Link::Up).await.ok();
        while node.manager().is_some() && !node.is_member() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if within(JOIN, joined).await {
        return Ok(());
    }
    Err(Error::unavailable(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \
         \"docker info\" command to see the current swarm status of your node.",
    ))
}

async fn within(limit: Duration, work: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(limit, work).await.is_ok()
}

/// After a recovery the other managers are managers no more; they may come back as workers.
async fn demote_lost(manager: &Manager) -> Result<()> {
    let lost: Vec<NodeId> = {
        let state = manager.store.read();
        let others = state
            .nodes()
            .iter()
            .filter(|node| node.spec.role == NodeRole::Manager && node.id != *manager.store.id());
        others.map(|node| node.id.clone()).collect()
    };
    for id in lost {
        let demoted = manager.change_node(&id, |node| {
            node.spec.role = NodeRole::Worker;
            node.manager_status = None;
            true
        });
        demoted.await?;
    }
    Ok(())
}

fn leave_warning(manager: &Manager) -> String {
    let mut text =
        String::from("You are attempting to leave the swarm on a node that is participating as a manager. ");
    let (all, reachable) = (manager.store.voters().len(), manager.store.reachable().len());
    if all <= 1 {
        text.push_str("Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.");
        return text;
    }
    if manager.store.leads() && !manager.store.can_lose(manager.store.id()) {
        text.push_str(&format!(
            "Removing this node leaves {} managers out of {all}. Without a Raft quorum your swarm will be inaccessible. ",
            reachable.saturating_sub(1)
        ));
    }
    text.push_str(
        "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` \
         to suppress this message.",
    );
    text
}
