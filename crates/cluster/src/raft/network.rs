//! Calls of Raft to the other managers. The TLS check names the node, so an address that now belongs to another node is refused.

use super::machine::{Snapshot, SnapshotMeta};
use super::{Types, VoteOf};
use crate::error::chain;
use crate::proto::Payload;
use crate::proto::raft_client::RaftClient;
use crate::rpc::dial::{Callee, Dialer, LARGEST_MESSAGE};
use bytes::Bytes;
use gantry_model::id::NodeId;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Bytes of a snapshot in one message.
const PART: usize = 1 << 20;

/// Makes a [`Peer`] for each other manager.
#[derive(Clone)]
pub struct Network {
    dialer: Dialer,
}

impl Network {
    /// A network that speaks with this node's certificate.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        let channel = self.dialer.channel(&node.addr, &Callee::Node(target.clone()));
        let channel = channel.map_err(|e| format!("node {target}: {e}"));
        Peer { channel }
    }
}

/// One other manager.
pub struct Peer {
    channel: Result<Channel, String>,
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
    fn client(&self) -> Result<RaftClient<Channel>, RPCError<Types>> {
        let channel =
            self.channel.as_ref().map_err(|e| RPCError::Unreachable(Unreachable::from_string(e)))?;
        Ok(RaftClient::new(channel.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE))
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
    RPCError::Unreachable(Unreachable::from_string(chain(status)))
}

macro_rules! call {
    ($self:ident, $method:ident, $message:expr, $option:expr) => {{
        let mut client = $self.client()?;
        let limit = $option.hard_ttl();
        let call = client.$method(request(encode(&$message)?, limit));
        // The header tells the other side; the timer here holds when the other side is gone.
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(reply)) => decode(reply.get_ref()),
            Ok(Err(status)) => Err(failed(&status)),
            Err(elapsed) => Err(RPCError::Unreachable(Unreachable::new(&elapsed))),
        }
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
        let mut client = self.client()?;
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
            sent = call => match sent {
                Ok(Ok(reply)) => Ok(decode(reply.get_ref())?),
                Ok(Err(status)) => Err(failed(&status).into()),
                Err(elapsed) => Err(StreamingError::Unreachable(Unreachable::new(&elapsed))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        call!(self, transfer_leader, req, option)
    }
}
