//! Joining: from a token and an address to a certificate. The CA is checked against the token before the token is sent.

use crate::config::{JoinRequest, RemoteManager};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::files::NodeIdentity;
use crate::identity::token::JoinToken;
use crate::identity::{IdentityError, ca, tls};
use crate::node::address;
use crate::proto::identity_client::IdentityClient;
use crate::proto::{CertificateReply, IssueRequest, RootRequest};
use crate::rpc::dial::{Callee, channel_with};
use crate::rpc::status::error_of;
use gantry_model::id::NodeId;
use gantry_model::node::Availability;
use std::time::Duration;
use tonic::Request;

/// How long one manager may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Hints to the leader that are followed.
const HINTS: usize = 4;

/// What a join brings.
pub struct Admission {
    /// Key and certificate.
    pub identity: NodeIdentity,
    /// Managers that answered.
    pub managers: Vec<RemoteManager>,
    /// The address that answered first.
    pub remote: String,
}

fn refused(error: IdentityError) -> Error {
    match error {
        IdentityError::Token | IdentityError::Fingerprint { .. } => Error::invalid(error.to_string()),
        other => Error::trouble("join the swarm", &other),
    }
}

/// Gets a certificate from the first manager that gives one.
pub async fn admission(request: &JoinRequest) -> Result<Admission> {
    let token = JoinToken::parse(&request.token).map_err(refused)?;
    if request.remote_addrs.iter().all(String::is_empty) {
        return Err(Error::invalid("at least 1 RemoteAddr is required to join"));
    }
    let mut last = Error::no_leader();
    for remote in request.remote_addrs.iter().filter(|addr| !addr.is_empty()) {
        let remote = address::remote(remote);
        match ask(&remote, &token, request.availability).await {
            Ok((identity, managers)) => return Ok(Admission { identity, managers, remote }),
            // The next address may be that of a manager that answers; a refusal is the same everywhere.
            Err(error) if error.kind == ErrorKind::Unavailable => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn ask(
    remote: &str,
    token: &JoinToken,
    availability: Availability,
) -> Result<(NodeIdentity, Vec<RemoteManager>)> {
    let root_pem = fetch_root(remote, token).await?;
    let (key_pem, csr_pem) = ca::request().map_err(refused)?;
    let (reply, managers) = issue(remote, &root_pem, &csr_pem, token, availability).await?;
    let identity = NodeIdentity::new(root_pem, reply.certificate_pem, key_pem).map_err(refused)?;
    Ok((identity, managers))
}

async fn fetch_root(remote: &str, token: &JoinToken) -> Result<String> {
    let unreachable =
        |text: String| Error::unavailable(format!("could not reach the manager at {remote}: {text}"));
    let config = tls::unverified_config().map_err(refused)?;
    let channel =
        channel_with(remote, &Callee::Manager, config).map_err(|e| Error::invalid(e.to_string()))?;
    let mut client = IdentityClient::new(channel);
    let reply = tokio::time::timeout(PATIENCE, client.get_root(RootRequest {}))
        .await
        .map_err(|_| unreachable("no answer in time".into()))?
        .map_err(|s| unreachable(error_of(&s).0.message))?;
    let root_pem = reply.into_inner().root_pem;
    let der = ca::der_of(&root_pem).map_err(refused)?;
    token.check_root(&der).map_err(refused)?;
    Ok(root_pem)
}

async fn issue(
    remote: &str,
    root_pem: &str,
    csr_pem: &str,
    token: &JoinToken,
    availability: Availability,
) -> Result<(CertificateReply, Vec<RemoteManager>)> {
    let first = RemoteManager { node_id: NodeId::default(), addr: remote.to_owned() };
    let mut managers = vec![first.clone()];
    let mut next = first;
    for _ in 0..HINTS {
        let callee =
            if next.node_id.is_empty() { Callee::Manager } else { Callee::Node(next.node_id.clone()) };
        let config = tls::joiner_config(root_pem).map_err(refused)?;
        let channel = channel_with(&next.addr, &callee, config).map_err(|e| Error::invalid(e.to_string()))?;
        let request = IssueRequest {
            csr_pem: csr_pem.to_owned(),
            token: token.text(),
            availability: match availability {
                Availability::Active => "active",
                Availability::Pause => "pause",
                Availability::Drain => "drain",
            }
            .into(),
        };
        let mut client = IdentityClient::new(channel);
        let answer = tokio::time::timeout(PATIENCE, client.issue(Request::new(request)))
            .await
            .map_err(|_| Error::unavailable(format!("the manager at {} does not answer", next.addr)))?;
        match answer {
            Ok(reply) => return Ok((reply.into_inner(), managers)),
            Err(status) => match error_of(&status) {
                (_, Some(hint)) => {
                    managers.insert(0, hint.clone());
                    next = hint;
                }
                (error, None) => return Err(error),
            },
        }
    }
    Err(Error::no_leader())
}
