//! Control: the writes of users, checked and proposed by the leader one after the other. Whatever is checked still holds when it is
//! proposed, except for what the planner and the agents write meanwhile; against those stand the versions.

pub mod attachments;
pub mod data;
pub mod networks;
pub mod nodes;
pub mod request;
pub mod services;
pub mod swarm;

use crate::error::{Error, Result};
use crate::manager::Manager;
use crate::raft::store::ProposeError;
use gantry_planner::{Change, Refusal, State};
use request::{Reply, Request};
use std::sync::Arc;
use std::time::Duration;

/// How long an attachment waits for its address.
pub const ADDRESS: Duration = Duration::from_secs(10);
/// How often a write that names no version is tried again when the object changed meanwhile.
const TRIES: usize = 10;

/// Executes one write on the leader.
pub async fn execute(manager: &Manager, request: Request) -> Result<Reply> {
    match request {
        Request::UpdateSwarm { version, spec, rotate } => {
            swarm::update(manager, version, *spec, rotate).await
        }
        Request::CreateService { spec } => services::create(manager, *spec).await,
        Request::UpdateService { id, version, spec, auth, rollback } => {
            services::update(manager, &id, version, *spec, auth, rollback).await
        }
        Request::RemoveService { id } => services::remove(manager, &id).await,
        Request::UpdateNode { id, version, spec } => nodes::update(manager, &id, version, spec).await,
        Request::RemoveNode { id, force } => nodes::remove(manager, &id, force).await,
        Request::CreateNetwork { spec } => networks::create(manager, *spec).await,
        Request::RemoveNetwork { id } => networks::remove(manager, &id).await,
        Request::CreateSecret { spec } => data::create_secret(manager, spec).await,
        Request::UpdateSecret { id, version, spec } => data::update_secret(manager, &id, version, spec).await,
        Request::RemoveSecret { id } => data::remove_secret(manager, &id).await,
        Request::CreateConfig { spec } => data::create_config(manager, spec).await,
        Request::UpdateConfig { id, version, spec } => data::update_config(manager, &id, version, spec).await,
        Request::RemoveConfig { id } => data::remove_config(manager, &id).await,
        Request::Attach(request) => attachments::attach(manager, request).await,
        Request::Detach { node, task } => attachments::detach(manager, &node, task).await,
    }
}

/// Checks and proposes under the lock of writes. If an object that the check read has changed, everything is done again.
async fn commit<T>(manager: &Manager, check: impl Fn(&Arc<State>) -> Result<(Vec<Change>, T)>) -> Result<T> {
    let _writes = manager.exclusive().await;
    let mut last = Error::out_of_sequence();
    for _ in 0..TRIES {
        let (changes, value) = check(&manager.store.read())?;
        match manager.store.propose(changes).await {
            Ok(_) => return Ok(value),
            Err(ProposeError::Refused(refused)) if matches!(refused.why, Refusal::OutOfSequence(_)) => {
                last = ProposeError::Refused(refused).into();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

/// Seventeen random bytes for an id.
fn random() -> Result<[u8; 17]> {
    crate::identity::random().map_err(|e| Error::trouble("make an id", &e))
}
