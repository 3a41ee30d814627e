//! The cluster itself: its specification and its join tokens.

use super::commit;
use super::request::Reply;
use crate::config::Rotate;
use crate::error::{Error, Result};
use crate::identity::vault::UnlockKey;
use crate::identity::{ca, token};
use crate::manager::Manager;
use gantry_model::service::Version;
use gantry_model::swarm::SwarmSpec;
use gantry_planner::{Change, ClusterRecord, Object, validate};

/// Refuses what this version does not offer, so that nobody believes that it is on.
pub fn offered(old: &SwarmSpec, new: &SwarmSpec) -> Result<()> {
    if new.ca_config.force_rotate != old.ca_config.force_rotate {
        return Err(Error::unsupported(
            "replacing the certificate authority is not supported by this version of Gantry",
        ));
    }
    Ok(())
}

/// The unlock key that goes with a specification: none without autolock, else the one that there is, or a new one.
pub fn unlock_key(spec: &SwarmSpec, present: &str, rotate: bool) -> Result<String> {
    match (spec.encryption_config.auto_lock_managers, present) {
        (false, _) => Ok(String::new()),
        (true, present) if !present.is_empty() && !rotate => Ok(present.to_owned()),
        (true, _) => UnlockKey::generate()
            .map(|key| key.reveal())
            .map_err(|e| Error::trouble("make an unlock key", &e)),
    }
}

/// Changes the specification, replaces tokens and the unlock key.
pub async fn update(manager: &Manager, version: Version, spec: SwarmSpec, rotate: Rotate) -> Result<Reply> {
    commit(manager, |state| {
        let record = state.cluster().ok_or_else(Error::no_leader)?;
        if record.cluster.version != version {
            return Err(Error::out_of_sequence());
        }
        offered(&record.cluster.spec, &spec)?;
        let mut record = ClusterRecord::clone(record);
        record.cluster.spec = validate::swarm_spec(spec.clone())?;
        record.secrets.unlock_key =
            unlock_key(&record.cluster.spec, &record.secrets.unlock_key, rotate.manager_unlock_key)?;
        if rotate.worker_token || rotate.manager_token {
            let act = "make new join tokens";
            let root = ca::der_of(&record.secrets.ca_certificate).map_err(|e| Error::trouble(act, &e))?;
            let fresh = token::generate_pair(&root).map_err(|e| Error::trouble(act, &e))?;
            if rotate.worker_token {
                record.secrets.join_tokens.worker = fresh.worker;
            }
            if rotate.manager_token {
                record.secrets.join_tokens.manager = fresh.manager;
            }
        }
        Ok((vec![Change::replace(Object::Cluster(Box::new(record)))], Reply::Done))
    })
    .await
}
