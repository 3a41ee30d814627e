//! Keeps the node's role and certificate as the managers want them, and what it knows of the managers on disk.

use super::{Node, start_manager};
use crate::error::{Error, Result};
use crate::identity::ca;
use crate::identity::files::NodeIdentity;
use crate::identity::random;
use crate::identity::vault::UnlockKey;
use crate::manager::Manager;
use crate::proto::RenewRequest;
use crate::proto::identity_client::IdentityClient;
use gantry_model::node::NodeRole;
use std::time::{Duration, SystemTime};

/// How often to look.
const TICK: Duration = Duration::from_millis(250);
/// Pause after a step that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before a manager whose Raft stopped is started again: a full disk lets it write a little each time, and the reason must be seen.
const REVIVE: Duration = Duration::from_secs(5);

pub async fn run(node: Node) {
    let mut wanted = node.agent().wanted_role();
    let mut renewal = next_renewal(&node);
    let stop = node.shared.stop.clone();
    loop {
        let role = *wanted.borrow_and_update();
        let step = tokio::select! {
            step = step(&node, role, &mut renewal) => step,
            () = stop.cancelled() => return,
        };
        let pause = match step {
            Ok(()) => TICK,
            Err(error) => {
                tracing::warn!(%error, "the node is not yet what the swarm wants it to be");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = wanted.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

fn next_renewal(node: &Node) -> SystemTime {
    let jitter = random::<1>().map_or(0.5, |bytes| f64::from(bytes[0]) / 255.0);
    node.shared.credentials.current().identity.subject.renew_at(jitter)
}

async fn step(node: &Node, wanted: Option<NodeRole>, renewal: &mut SystemTime) -> Result<()> {
    if let Some(manager) = node.manager()
        && let Some(why) = manager.store.stopped()
    {
        return revive(node, &manager, &why).await;
    }
    lock(node).await?;
    let role = node.shared.credentials.current().identity.subject.role;
    let changes = wanted.is_some_and(|wanted| wanted != role);
    if changes || SystemTime::now() >= *renewal {
        renew(node).await?;
        *renewal = next_renewal(node);
    }
    let role = node.shared.credentials.current().identity.subject.role;
    match (role, node.manager()) {
        (NodeRole::Manager, None) => {
            // A log of an earlier time as manager belongs to a member that was removed.
            wipe_raft(node).await?;
            begin_manager(node, "this node becomes a manager").await?;
        }
        (NodeRole::Worker, Some(manager)) => {
            tracing::info!(node = %manager.store.id(), "this node is no manager any more");
            node.set_manager(None);
            manager.shutdown().await;
            wipe_raft(node).await?;
        }
        _ => {}
    }
    // The leader's list of members comes with its orders. A manager that is not in it has been let in and not yet been added.
    let settings = node.settings();
    let listed = node.shared.calls.managers().iter().any(|manager| manager.node_id == settings.node_id);
    // One that begins anew may still be in it from its earlier time.
    if let Some(manager) = node.manager()
        && (!listed || manager.store.novice().is_waiting())
        && wanted != Some(NodeRole::Worker)
    {
        node.join_raft(&manager).await?;
    }
    remember(node).await
}

/// Keeps the vault locked by the cluster's unlock key, while this node is a manager and the cluster has one.
async fn lock(node: &Node) -> Result<()> {
    let manager = node.manager();
    let wanted = match &manager {
        None => None,
        // What an older part of the log says, while it is being replayed, holds no more.
        Some(manager) if !manager.store.is_settled() => return Ok(()),
        Some(manager) => match manager.store.read().cluster() {
            None => return Ok(()),
            Some(record) => UnlockKey::parse(&record.secrets.unlock_key),
        },
    };
    if node.vault().is_locked_by(wanted.as_ref()) {
        return Ok(());
    }
    let act = "lock the node's data key";
    let (vault, locked) = (node.vault().clone(), wanted.is_some());
    tokio::task::spawn_blocking(move || vault.lock_by(wanted))
        .await
        .map_err(|e| Error::trouble(act, &e))?
        .map_err(|e| Error::trouble(act, &e))?;
    tracing::info!(locked, "the unlock key of this node has changed");
    // What can be written anew at once is sealed under the newest data key.
    save_identity(node, node.shared.credentials.current().identity.clone(), act).await?;
    node.agent().save().await?;
    if let Some(manager) = manager {
        manager.store.compact().await;
    }
    Ok(())
}

async fn save_identity(node: &Node, identity: NodeIdentity, act: &str) -> Result<()> {
    let (folder, vault) = (node.shared.layout.certificates(), node.vault().clone());
    tokio::task::spawn_blocking(move || identity.save(&folder, &vault))
        .await
        .map_err(|e| Error::trouble(act, &e))?
        .map_err(|e| Error::trouble(act, &e))
}

/// Raft stopped by itself, since its log could not be written: the manager is started again from what is on disk. Until that succeeds
/// the stopped one stays, to say what is wrong.
async fn revive(node: &Node, stopped: &Manager, why: &str) -> Result<()> {
    if !stopped.stopped().is_cancelled() {
        tracing::error!(error = %why, "this manager's part in Raft has stopped; starting it again");
        stopped.shutdown().await;
    }
    tokio::time::sleep(REVIVE).await;
    begin_manager(node, "this manager takes part in Raft again").await
}

/// Starts the node's manager with what is in its folder.
async fn begin_manager(node: &Node, news: &str) -> Result<()> {
    let (settings, shared) = (node.settings(), &node.shared);
    let (credentials, dialer) = (&shared.credentials, &shared.dialer);
    let manager =
        start_manager(&shared.config, &shared.vault, &settings, credentials, dialer, &shared.events).await?;
    tracing::info!(node = %settings.node_id, "{news}");
    node.set_manager(Some(manager));
    Ok(())
}

async fn wipe_raft(node: &Node) -> Result<()> {
    let layout = node.shared.layout.clone();
    tokio::task::spawn_blocking(move || layout.wipe_raft())
        .await
        .map_err(|e| Error::trouble("forget Raft", &e))?
}

/// A fresh key and certificate. The role in it is what the leader says.
async fn renew(node: &Node) -> Result<()> {
    let act = "renew the node's certificate";
    let (key_pem, csr_pem) = ca::request().map_err(|e| Error::trouble(act, &e))?;
    let reply = node
        .shared
        .calls
        .call(|channel| {
            let request = RenewRequest { csr_pem: csr_pem.clone() };
            async move { IdentityClient::new(channel).renew(request).await }
        })
        .await?
        .into_inner();
    let current = node.shared.credentials.current().identity.clone();
    let fresh = NodeIdentity::new(current.root_pem.clone(), reply.certificate_pem, key_pem)
        .map_err(|e| Error::trouble(act, &e))?;
    if fresh.subject.node_id != current.subject.node_id {
        return Err(Error::internal("the leader signed a certificate for another node"));
    }
    save_identity(node, fresh.clone(), act).await?;
    tracing::debug!(role = fresh.subject.role.as_str(), "the node's certificate is renewed");
    node.shared.credentials.replace(fresh).map_err(|e| Error::trouble(act, &e))?;
    node.shared.calls.reconnect();
    Ok(())
}

/// Writes down the managers that the leader named.
async fn remember(node: &Node) -> Result<()> {
    let managers = node.shared.calls.managers();
    let changed = {
        let mut settings = node.shared.settings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let changed = settings.managers != managers;
        settings.managers = managers;
        changed
    };
    if changed { node.save().await } else { Ok(()) }
}
