//! Attachments: containers outside services on cluster networks. Each is a task that is bound to its node from the beginning.

use super::request::{AttachRequest, Reply};
use super::{ADDRESS, commit, random};
use crate::error::{Error, Result};
use crate::manager::Manager;
use gantry_model::id::{NodeId, TaskId};
use gantry_model::task::{Task, TaskState};
use gantry_planner::{Change, ClusterNetwork, Object, State, edit, find};
use std::sync::Arc;
use std::time::Duration;

/// How long an address that cannot be had is waited for: that of a container which was just removed comes back when its node has
/// said so.
const RETURN: Duration = Duration::from_secs(2);

/// Gives a container a place in a network; returns when it has its address. Asked again, it answers the same place,
/// which has the names that were asked for last.
pub async fn attach(manager: &Manager, request: AttachRequest) -> Result<Reply> {
    let fresh = TaskId::from_random(random()?);
    let (task, network) = commit(manager, |state| {
        let network = find::network(state, &request.network)?;
        check(&network)?;
        if let Some(known) = existing(state, &request, &network) {
            let renamed = edit::renamed_attachment(&known, &request.names);
            let change = renamed.map(|task| Change::replace(Object::Task(Box::new(task))));
            return Ok((change.into_iter().collect(), (known.id.clone(), network)));
        }
        let wanted = edit::AttachmentRequest {
            network: network.network.id.clone(),
            container_id: request.container_id.clone(),
            names: request.names.clone(),
            address: request.address.clone(),
        };
        let task = edit::attachment(fresh.clone(), request.node.clone(), wanted, jiff::Timestamp::now());
        Ok((vec![Change::create(Object::Task(Box::new(task)))], (fresh.clone(), network)))
    })
    .await?;
    let waited = wait_for_address(manager, &task).await;
    let found = manager.store.read().task(&task).cloned();
    match found {
        Some(task) if !task.networks_attachments.is_empty() && !ended(&task) => Ok(Reply::Attached {
            task: Box::new(Task::clone(&task)),
            network: Box::new(network.network.clone()),
        }),
        found => {
            let why = found.map(|task| task.status.err.clone()).filter(|why| !why.is_empty());
            give_up(manager, task).await;
            let name = &network.network.spec.name;
            Err(match why {
                // To ask again, or another manager, would not help.
                Some(why) => Error::precondition(format!("attach to network {name}: {why}")),
                None if waited => {
                    Error::unavailable(format!("attach to network {name}: the attachment was removed"))
                }
                None => Error::unavailable(format!("attach to network {name}: no address was given in time")),
            })
        }
    }
}

/// Waits until the task has its address, or cannot have one; whether that came in time.
async fn wait_for_address(manager: &Manager, task: &TaskId) -> bool {
    let placed = |state: &State| {
        state.task(task).is_none_or(|task| !task.networks_attachments.is_empty() || ended(task))
    };
    let refused = |state: &State| state.task(task).is_some_and(|task| !task.status.err.is_empty());
    let mut changes = manager.store.watch();
    let either = changes.wait_for(|_| {
        let state = manager.store.read();
        placed(&state) || refused(&state)
    });
    if tokio::time::timeout(ADDRESS, either).await.is_err() {
        return false;
    }
    tokio::time::timeout(RETURN, changes.wait_for(|_| placed(&manager.store.read()))).await.is_ok()
}

fn ended(task: &Task) -> bool {
    task.status.state.is_terminal() || task.desired_state > TaskState::Complete
}

fn check(network: &ClusterNetwork) -> Result<()> {
    if network.network.spec.ingress {
        let name = &network.network.spec.name;
        return Err(Error::denied(format!(
            "network {name} is the routing mesh's; containers cannot join it"
        )));
    }
    Ok(())
}

fn existing(state: &State, request: &AttachRequest, network: &Arc<ClusterNetwork>) -> Option<Arc<Task>> {
    let matches = |task: &&Arc<Task>| {
        task.node_id == request.node
            && !ended(task)
            && task
                .spec
                .network_attachment_spec
                .as_ref()
                .is_some_and(|spec| spec.container_id == request.container_id)
            && task.spec.networks.iter().any(|wanted| wanted.target == network.network.id)
    };
    state.attachments().find(matches).cloned()
}

async fn give_up(manager: &Manager, task: TaskId) {
    let change = Change::Desire { task: task.clone(), state: TaskState::Remove };
    if let Err(error) = manager.store.propose(vec![change]).await {
        tracing::warn!(%task, %error, "an attachment without an address stays behind");
    }
}

/// Takes a container out of a network.
pub async fn detach(manager: &Manager, node: &NodeId, task: TaskId) -> Result<Reply> {
    commit(manager, |state| {
        let Some(known) = state.task(&task) else { return Ok((Vec::new(), Reply::Done)) };
        if known.node_id != *node || known.spec.network_attachment_spec.is_none() {
            return Err(Error::denied(format!("task {task} is no attachment of node {node}")));
        }
        Ok((vec![Change::Desire { task: task.clone(), state: TaskState::Remove }], Reply::Done))
    })
    .await
}
