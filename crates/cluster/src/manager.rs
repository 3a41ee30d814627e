//! A manager: Raft, the server that other nodes call, and the leader's loops while this node leads.
//!
//! | task | woken by | publishes |
//! |---|---|---|
//! | server | connections | answers of [`identity`], [`raft`], [`control`], [`dispatcher`] |
//! | events ([`events`]) | changes of the store | what was created, updated, removed |
//! | leadership ([`crate::leader`]) | changes of the store and of leadership, timers | proposals |
//!
//! Stopping: first the token (connections end, loops end), then Raft.

pub mod control;
pub mod dispatcher;
pub mod events;
pub mod hub;
pub mod identity;
pub mod logs;
pub mod raft;

use crate::config::Timing;
use crate::control::request::{Outcome, Reply, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::tls::Credentials;
use crate::identity::vault::Vault;
use crate::leader;
use crate::orders::Desk;
use crate::proto;
use crate::proto::control_client::ControlClient;
use crate::raft::store::Store;
use crate::rpc::dial::{Callee, Dialer, LARGEST_MESSAGE};
use crate::rpc::listen;
use crate::rpc::status::{error_of, is_transport, never_connected};
use gantry_model::id::NodeId;
use hub::Hub;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

/// How long a follower waits to see the write that the leader confirmed.
const CATCH_UP: Duration = Duration::from_secs(5);

/// A running manager; clones are handles to the same.
#[derive(Clone)]
pub struct Manager {
    /// The store.
    pub store: Store,
    /// Connections to other nodes.
    pub dialer: Dialer,
    /// Sessions of agents; in use while this node leads.
    pub hub: Arc<Hub>,
    /// The orders of all nodes.
    pub desk: Arc<Desk>,
    /// How fast things happen.
    pub timing: Timing,
    /// Writes of users, one after the other.
    writes: Arc<Mutex<()>>,
    /// Changes of Raft's membership, one after the other.
    membership: Arc<Mutex<()>>,
    events: tokio::sync::broadcast::Sender<events::ClusterEvent>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a manager needs to start.
pub struct ManagerConfig {
    /// Folder of the Raft log and snapshots.
    pub folder: PathBuf,
    /// Seals what is in it.
    pub vault: Vault,
    /// TLS.
    pub credentials: Credentials,
    /// Connections to other nodes.
    pub dialer: Dialer,
    /// How fast things happen.
    pub timing: Timing,
    /// Where events go.
    pub events: tokio::sync::broadcast::Sender<events::ClusterEvent>,
}

impl Manager {
    /// Starts Raft and the server on a socket that is already bound.
    pub async fn start(config: ManagerConfig, listener: TcpListener) -> Result<Self> {
        let id = config.credentials.current().identity.subject.node_id.clone();
        crate::identity::files::make_folder(&config.folder)
            .map_err(|e| Error::trouble("prepare the Raft store", &e))?;
        let (dialer, timing) = (config.dialer.clone(), config.timing.clone());
        let store = Store::open(&config.folder, &config.vault, id, dialer, timing).await?;
        let manager = Self {
            store,
            dialer: config.dialer,
            hub: Arc::new(Hub::default()),
            desk: Arc::default(),
            timing: config.timing,
            writes: Arc::default(),
            membership: Arc::default(),
            events: config.events,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        manager.tasks.spawn(manager.clone().serve(listener, config.credentials));
        manager.tasks.spawn(leader::run(manager.clone()));
        manager.tasks.spawn(events::run(manager.clone(), manager.events.clone()));
        Ok(manager)
    }

    /// Ends when the manager stops.
    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    async fn serve(self, listener: TcpListener, credentials: Credentials) {
        let incoming = listen::accept(listener, credentials, self.stop.clone());
        let identity =
            proto::identity_server::IdentityServer::new(identity::IdentityService::new(self.clone()));
        let raft = proto::raft_server::RaftServer::new(raft::RaftService::new(self.clone()))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let control = proto::control_server::ControlServer::new(control::ControlService::new(self.clone()))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let dispatcher =
            proto::dispatcher_server::DispatcherServer::new(dispatcher::DispatcherService::new(self.clone()))
                .max_decoding_message_size(LARGEST_MESSAGE)
                .max_encoding_message_size(LARGEST_MESSAGE);
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .add_service(identity)
            .add_service(raft)
            .add_service(control)
            .add_service(dispatcher)
            .serve_with_incoming_shutdown(incoming, self.stop.clone().cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(error = %crate::error::chain(&error), "the server for other nodes ended");
        }
    }

    /// Stops everything of the manager; the agent goes on.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.store.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Executes a write on the leader, wherever it is, and waits until this node sees it.
    pub async fn write(&self, request: Request) -> Result<Reply> {
        let deadline = Instant::now() + self.store.patience();
        loop {
            match self.try_write(&request, deadline).await {
                Ok(outcome) => {
                    let reply = outcome.reply?;
                    self.store.wait_applied(outcome.index, CATCH_UP).await?;
                    return Ok(reply);
                }
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again) if Instant::now() >= deadline => return Err(Error::no_leader()),
                Err(Attempt::Again) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn try_write(&self, request: &Request, deadline: Instant) -> Result<Outcome, Attempt> {
        let left = deadline.saturating_duration_since(Instant::now());
        let leader = self.store.wait_leader(left).await.map_err(Attempt::Final)?;
        if leader.node_id == *self.store.id() {
            return self.execute(request.clone()).await.map_err(Attempt::Final);
        }
        let channel = self.dialer.channel(&leader.addr, &Callee::Node(leader.node_id.clone()));
        let channel = channel.map_err(|e| Attempt::Final(Error::trouble("reach the leader", &e)))?;
        let mut client = ControlClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let data = serde_json::to_vec(request)
            .map_err(|e| Attempt::Final(Error::trouble("forward the request", &e)))?;
        let limit = request.patience(self.timing.write_timeout);
        match tokio::time::timeout(limit, client.execute(proto::Payload { data })).await {
            Ok(Ok(reply)) => serde_json::from_slice(&reply.into_inner().data)
                .map_err(|e| Attempt::Final(Error::trouble("read the leader's answer", &e))),
            Ok(Err(status)) => Err(Attempt::of(&status)),
            Err(_) => Err(Attempt::Final(Error::no_leader())),
        }
    }

    /// Executes a write here; the caller knows that this node leads.
    pub async fn execute(&self, request: Request) -> Result<Outcome> {
        if !self.store.leads() {
            return Err(Error::no_leader());
        }
        let reply = crate::control::execute(self, request).await;
        // Errors of the store itself are not an outcome of the request: another leader may do better.
        if let Err(error) = &reply
            && error.kind == ErrorKind::Unavailable
        {
            return Err(error.clone());
        }
        let index = *self.store.watch().borrow();
        Ok(Outcome { index, reply })
    }

    /// Only one write of a user is checked and proposed at a time, so that what was checked still holds.
    pub async fn exclusive(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.writes).lock_owned().await
    }

    /// Only one change of Raft's membership is under way at a time.
    pub async fn membership(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.membership).lock_owned().await
    }

    /// Whether a node was removed from the cluster, so that its certificate counts for nothing.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        let state = self.store.read();
        state
            .cluster()
            .is_some_and(|record| record.secrets.other.contains_key(&crate::control::nodes::revocation(node)))
    }

    /// The refusal of a manager that does not lead.
    pub fn not_leading(&self) -> Status {
        let leader = self.store.leader().filter(|leader| leader.node_id != *self.store.id());
        crate::rpc::status::redirect(leader)
    }
}

/// Why a forwarded write did not succeed.
enum Attempt {
    /// It may succeed with another leader: nothing has happened.
    Again,
    /// Tell the user.
    Final(Error),
}

impl Attempt {
    fn of(status: &Status) -> Self {
        let (error, _) = error_of(status);
        if !is_transport(status) {
            // A manager that no longer leads says so before it does anything.
            return if error.kind == ErrorKind::Unavailable { Self::Again } else { Self::Final(error) };
        }
        // Refused, not there, or gone during the handshake: no connection was made, so nothing can have been executed.
        if never_connected(status) {
            return Self::Again;
        }
        let text = error.message;
        Self::Final(Error::unavailable(format!(
            "rpc error: code = Unavailable desc = the leader stopped answering, and whether it made the change is not known: {text}"
        )))
    }
}
