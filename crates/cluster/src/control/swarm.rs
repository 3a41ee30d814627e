//! The cluster itself: its specification and its join tokens.

use super::commit;
use super::request::Reply;
use crate::config::Rotate;
use crate::error::{Error, Result};
use crate::identity::{ca, token};
use crate::manager::Manager;
use gantry_model::service::Version;
use gantry_model::swarm::SwarmSpec;
use gantry_planner::{Change, ClusterRecord, Object, validate};

/// Refuses what this version does not offer, so that nobody believes that it is on.
pub fn offered(old: &SwarmSpec, new: &SwarmSpec) -> Result<()> {
    if new.encryption_config.auto_lock_managers {
        return Err(Error::unsupported(
            "autolock is not supported by this version of Gantry: the Raft log and keys are readable by root only, and not encrypted",
        ));
    }
    if new.ca_config.force_rotate != old.ca_config.force_rotate {
        return Err(Error::unsupported(
            "replacing the certificate authority is not supported by this version of Gantry",
        ));
    }
    Ok(())
}

/// Changes the specification, replaces tokens.
pub async fn update(manager: &Manager, version: Version, spec: SwarmSpec, rotate: Rotate) -> Result<Reply> {
    commit(manager, |state| {
        let record = state.cluster().ok_or_else(Error::no_leader)?;
        if record.cluster.version != version {
            return Err(Error::out_of_sequence());
        }
        offered(&record.cluster.spec, &spec)?;
        let mut record = ClusterRecord::clone(record);
        record.cluster.spec = validate::swarm_spec(spec.clone())?;
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
