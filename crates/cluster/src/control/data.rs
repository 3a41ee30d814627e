//! Secrets and configs.

use super::request::Reply;
use super::{commit, random};
use crate::error::{Error, Result};
use crate::manager::Manager;
use gantry_model::id::{ConfigId, SecretId};
use gantry_model::secret::{Config, DataSpec, Secret};
use gantry_model::service::Version;
use gantry_planner::{Change, Object, ObjectRef, find, validate};

fn check_version(read: Version, now: Version) -> Result<()> {
    if read == now { Ok(()) } else { Err(Error::out_of_sequence()) }
}

/// A new secret.
pub async fn create_secret(manager: &Manager, spec: DataSpec) -> Result<Reply> {
    let id = SecretId::from_random(random()?);
    commit(manager, |state| {
        let spec = validate::secret_spec(state, spec.clone(), None)?;
        let secret = Secret { id: id.clone(), spec, ..Secret::default() };
        Ok((vec![Change::create(Object::Secret(Box::new(secret)))], Reply::Secret(id.clone())))
    })
    .await
}

/// New labels for a secret.
pub async fn update_secret(
    manager: &Manager,
    id: &SecretId,
    version: Version,
    spec: DataSpec,
) -> Result<Reply> {
    commit(manager, |state| {
        let secret = find::secret(state, id.as_str())?;
        check_version(version, secret.version)?;
        let changed = Secret {
            spec: validate::secret_spec(state, spec.clone(), Some(&secret))?,
            ..Secret::clone(&secret)
        };
        Ok((vec![Change::replace(Object::Secret(Box::new(changed)))], Reply::Done))
    })
    .await
}

/// Removes a secret that no service uses.
pub async fn remove_secret(manager: &Manager, id: &SecretId) -> Result<Reply> {
    commit(manager, |state| {
        let secret = find::secret(state, id.as_str())?;
        validate::secret_remove(state, &secret)?;
        Ok((vec![Change::delete(ObjectRef::Secret(secret.id.clone()))], Reply::Done))
    })
    .await
}

/// A new config.
pub async fn create_config(manager: &Manager, spec: DataSpec) -> Result<Reply> {
    let id = ConfigId::from_random(random()?);
    commit(manager, |state| {
        let spec = validate::config_spec(state, spec.clone(), None)?;
        let config = Config { id: id.clone(), spec, ..Config::default() };
        Ok((vec![Change::create(Object::Config(Box::new(config)))], Reply::Config(id.clone())))
    })
    .await
}

/// New labels for a config.
pub async fn update_config(
    manager: &Manager,
    id: &ConfigId,
    version: Version,
    spec: DataSpec,
) -> Result<Reply> {
    commit(manager, |state| {
        let config = find::config(state, id.as_str())?;
        check_version(version, config.version)?;
        let changed = Config {
            spec: validate::config_spec(state, spec.clone(), Some(&config))?,
            ..Config::clone(&config)
        };
        Ok((vec![Change::replace(Object::Config(Box::new(changed)))], Reply::Done))
    })
    .await
}

/// Removes a config that no service uses.
pub async fn remove_config(manager: &Manager, id: &ConfigId) -> Result<Reply> {
    commit(manager, |state| {
        let config = find::config(state, id.as_str())?;
        validate::config_remove(state, &config)?;
        Ok((vec![Change::delete(ObjectRef::Config(config.id.clone()))], Reply::Done))
    })
    .await
}
