//! Calls of Raft to the other managers. The TLS check names the node, so an address that now belongs to another node is refused.

use super::machine::{Snapshot, SnapshotMeta};
use super::{Member, Types, VoteOf};
use crate::proto::Payload;
use crate::proto::raft_client::RaftClient;
use crate::rpc::dial::{Callee, Dialer, LARGEST_MESSAGE};
use crate::rpc::link::Link;
use crate::rpc::status::{cause_of, is_transport};
use bytes::Bytes;
use gantry_model::id::NodeId;
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::time::error::Elapsed;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Bytes of a snapshot in one message.
const PART: usize = 1 << 20;
/// Pause before a node that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Makes a [`Peer`] for each other manager. Peers of one node share one link; snapshots have their own, so that they hold nothing up.
#[derive(Clone)]
pub struct Network {
    dialer: Dialer,
    links: Arc<Mutex<Links>>,
}

/// Links that are in use, by node, address and purpose.
type Links = BTreeMap<(NodeId, String, Purpose), Weak<Link>>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Talk,
    Snapshots,
}

impl Network {
    /// A network that speaks with this node's certificate.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, links: Arc::default() }
    }

    fn peer(&self, target: NodeId, node: &Member, purpose: Purpose) -> Peer {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.strong_count() > 0);
        let key = (target.clone(), node.addr.clone(), purpose);
        if let Some(link) = links.get(&key).and_then(Weak::upgrade) {
            return Peer { link };
        }
        let link = Link::open(self.dialer.clone(), node.addr.clone(), Callee::Node(target));
        links.insert(key, Arc::downgrade(&link));
        Peer { link }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        self.peer(target, node, Purpose::Talk)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &Member) -> Peer {
        self.peer(target, node, Purpose::Snapshots)
    }
}

/// One other manager.
pub struct Peer {
    link: Arc<Link>,
}

/// What precedes the bytes of a snapshot.
#[derive(Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The leader's vote.
    pub vote: VoteOf<Types>,
    /// Position and membership.
    pub meta: SnapshotMeta,
}

impl Peer {
    /// A client on the link; a link that has just been opened is given the time of the call to connect.
    async fn client(&self, limit: Duration) -> Result<RaftClient<Channel>, RPCError<Types>> {
        let channel =
            self.link.channel(limit).await.map_err(|e| RPCError::Unreachable(Unreachable::from_string(e)))?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE))
    }

    /// What became of a call, noted at the link.
    fn note<T>(&self, called: Result<Result<T, Status>, Elapsed>) -> Result<T, RPCError<Types>> {
        match called {
            Ok(Ok(reply)) => {
                self.link.answered();
                Ok(reply)
            }
            Ok(Err(status)) => {
                if is_transport(&status) {
                    self.link.broken(&cause_of(&status));
                } else {
                    self.link.answered();
                }
                Err(failed(&status))
            }
            Err(elapsed) => {
                self.link.silent();
                Err(RPCError::Unreachable(Unreachable::new(&elapsed)))
            }
        }
    }
}

fn request(data: Vec<u8>, limit: Duration) -> Request<Payload> {
    let mut request = Request::new(Payload { data });
    request.set_timeout(limit);
    request
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, RPCError<Types>> {
    serde_json::to_vec(value).map_err(|e| RPCError::Network(NetworkError::new(&e)))
}

fn decode<T: DeserializeOwned>(payload: &Payload) -> Result<T, RPCError<Types>> {
    serde_json::from_slice(&payload.data).map_err(|e| RPCError::Network(NetworkError::new(&e)))
}

/// A node that does not answer is asked again after a pause only.
fn failed(status: &Status) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(cause_of(status)))
}

macro_rules! call {
    ($self:ident, $method:ident, $message:expr, $option:expr) => {{
        let begun = Instant::now();
        let mut client = $self.client($option.hard_ttl()).await?;
        let limit = $option.hard_ttl().saturating_sub(begun.elapsed());
        let call = client.$method(request(encode(&$message)?, limit));
        // The header tells the other side; the timer here holds when the other side is gone.
        let reply = $self.note(tokio::time::timeout(limit, call).await)?;
        decode(reply.get_ref())
    }};
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        call!(self, append, rpc, option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        call!(self, vote, rpc, option)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        call!(self, pre_vote, rpc, option)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut client = self.client(option.hard_ttl()).await?;
        let head = encode(&SnapshotHead { vote, meta: snapshot.meta })?;
        let body = snapshot.snapshot;
        let parts = (0..body.len())
            .step_by(PART)
            .map(move |from| body.slice(from..body.len().min(from + PART)).to_vec());
        let stream =
            futures_util::stream::iter(std::iter::once(head).chain(parts).map(|data| Payload { data }));
        let call = tokio::time::timeout(option.hard_ttl(), client.snapshot(stream));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = call => Ok(decode(self.note(sent)?.get_ref())?),
        }
    }

    /// The link finds out by itself when the node is back, so asking it costs nothing.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        call!(self, transfer_leader, req, option)
    }
}
