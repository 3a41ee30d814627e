//! Certificates: the CA's for everyone, a first one for a join token, fresh ones for nodes.

use super::Manager;
use crate::error::{Error, Result};
use crate::identity::ca::{self, Authority};
use crate::identity::{random, token};
use crate::proto::identity_server::Identity;
use crate::proto::{CertificateReply, IssueRequest, RenewRequest, RootReply, RootRequest};
use crate::raft::store::ProposeError;
use crate::rpc::listen::Caller;
use crate::rpc::status::{self, status};
use gantry_model::id::NodeId;
use gantry_model::node::{Availability, Node, NodeRole, NodeSpec, NodeState, NodeStatus};
use gantry_planner::{Change, ClusterRecord, Object};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::{Request, Response, Status};

/// Life of a certificate where the cluster's specification says nothing: 90 days.
const DEFAULT_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Answers for certificates.
pub struct IdentityService {
    manager: Manager,
}

impl IdentityService {
    /// For this manager.
    pub fn new(manager: Manager) -> Self {
        Self { manager }
    }

    fn cluster(&self) -> Result<Arc<ClusterRecord>, Status> {
        self.manager.store.read().cluster().cloned().ok_or_else(|| self.manager.not_leading())
    }

    fn sign(
        &self,
        record: &ClusterRecord,
        csr: &str,
        node: &NodeId,
        role: NodeRole,
    ) -> Result<CertificateReply, Status> {
        let authority =
            Authority::from_parts(record.secrets.ca_certificate.clone(), record.secrets.ca_key.clone());
        let expiry = u64::try_from(record.cluster.spec.ca_config.node_cert_expiry).unwrap_or(0);
        let by_spec = if expiry == 0 { DEFAULT_LIFE } else { Duration::from_nanos(expiry) };
        let life = self.manager.timing.certificate_validity.unwrap_or(by_spec);
        let certificate_pem =
            authority.sign(csr, node, role, &record.cluster.id, SystemTime::now(), life).map_err(|e| {
                status(Error::invalid(format!(
                    "sign the certificate of node {node}: {}",
                    crate::error::chain(&e)
                )))
            })?;
        Ok(CertificateReply {
            node_id: node.to_string(),
            certificate_pem,
            root_pem: authority.root_pem,
            role: role.as_str().into(),
        })
    }
}

/// A node that has just been let in; what it says of itself comes with its first session.
pub fn new_node(id: NodeId, role: NodeRole, availability: Availability) -> Node {
    Node {
        id,
        spec: NodeSpec { role, availability, ..NodeSpec::default() },
        status: NodeStatus { state: NodeState::Unknown, ..NodeStatus::default() },
        ..Node::default()
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_root(&self, _: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        let root_pem = self.cluster()?.secrets.ca_certificate.clone();
        ca::der_of(&root_pem).map_err(|e| status(Error::trouble("read the CA", &e)))?;
        Ok(Response::new(RootReply { root_pem }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<CertificateReply>, Status> {
        if !self.manager.store.leads() {
            return Err(self.manager.not_leading());
        }
        let caller = request.extensions().get::<Caller>().map(|caller| caller.addr);
        let request = request.into_inner();
        let record = self.cluster()?;
        let role = token::role_of(&request.token, &record.secrets.join_tokens).ok_or_else(|| {
            tracing::warn!(?caller, "a node with an invalid join token was turned away");
            status(Error::denied("A valid join token is necessary to join this cluster"))
        })?;
        let availability = match request.availability.as_str() {
            "" | "active" => Availability::Active,
            "pause" => Availability::Pause,
            "drain" => Availability::Drain,
            other => return Err(status(Error::invalid(format!("invalid availability {other:?}")))),
        };
        let id = NodeId::from_random(random().map_err(|e| status(Error::trouble("make a node id", &e)))?);
        // Signed first: a request that cannot be signed must not leave a node behind.
        let reply = self.sign(&record, &request.csr_pem, &id, role)?;
        let change = Change::create(Object::Node(Box::new(new_node(id.clone(), role, availability))));
        match self.manager.store.propose(vec![change]).await {
            Ok(_) => {
                tracing::info!(node = %id, role = role.as_str(), "a node joined");
                Ok(Response::new(reply))
            }
            Err(ProposeError::NoLeader) => Err(self.manager.not_leading()),
            Err(error) => Err(status(error.into())),
        }
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        let subject = status::subject(&request)?;
        if !self.manager.store.leads() {
            return Err(self.manager.not_leading());
        }
        let record = self.cluster()?;
        let state = self.manager.store.read();
        let node = state.node(&subject.node_id).ok_or_else(|| {
            status(Error::denied(format!("Permission denied: node {} is not in this swarm", subject.node_id)))
        })?;
        // A demoted manager stays one by certificate until it is out of Raft, so that it can be told so.
        let member = self.manager.store.members().iter().any(|member| member.node_id == subject.node_id);
        let role = if member { NodeRole::Manager } else { node.spec.role };
        self.sign(&record, &request.get_ref().csr_pem, &subject.node_id, role).map(Response::new)
    }
}
