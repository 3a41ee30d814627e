//! Checks of secrets and configs.

use super::{Invalid, spec};
use crate::state::State;
use gantry_model::secret::{Config, DataSpec, Secret};
use gantry_model::service::ContainerSpec;

/// Largest secret, as Docker has it.
const MAX_SECRET: usize = 500 * 1024;
/// Largest config.
const MAX_CONFIG: usize = 1000 * 1024;

/// Checks a secret that is to be created, or that is to replace `existing`, of which only the labels may change.
pub fn secret_spec(
    state: &State,
    mut wanted: DataSpec,
    existing: Option<&Secret>,
) -> Result<DataSpec, Invalid> {
    if let Some(existing) = existing {
        return only_labels(wanted, &existing.spec);
    }
    check_name("secret", &wanted.name)?;
    if wanted.driver.as_ref().is_some_and(|driver| !driver.name.is_empty()) {
        return spec("secret driver plugins are not supported");
    }
    wanted.driver = None;
    check_data("secret", &wanted.data, MAX_SECRET)?;
    if state.secrets().iter().any(|secret| secret.spec.name == wanted.name) {
        return Err(Invalid::NameConflict { kind: "secret", name: wanted.name });
    }
    Ok(wanted)
}

/// Checks a config that is to be created, or that is to replace `existing`, of which only the labels may change.
pub fn config_spec(state: &State, wanted: DataSpec, existing: Option<&Config>) -> Result<DataSpec, Invalid> {
    if let Some(existing) = existing {
        return only_labels(wanted, &existing.spec);
    }
    check_name("config", &wanted.name)?;
    check_data("config", &wanted.data, MAX_CONFIG)?;
    if state.configs().iter().any(|config| config.spec.name == wanted.name) {
        return Err(Invalid::NameConflict { kind: "config", name: wanted.name });
    }
    Ok(wanted)
}

/// Checks that no service uses a secret.
pub fn secret_remove(state: &State, secret: &Secret) -> Result<(), Invalid> {
    let uses =
        |container: &ContainerSpec| container.secrets.iter().any(|used| used.secret_id == secret.id.as_str());
    check_unused(state, "secret", &secret.spec.name, uses)
}

/// Checks that no service uses a config.
pub fn config_remove(state: &State, config: &Config) -> Result<(), Invalid> {
    let uses =
        |container: &ContainerSpec| container.configs.iter().any(|used| used.config_id == config.id.as_str());
    check_unused(state, "config", &config.spec.name, uses)
}

fn check_unused(
    state: &State,
    kind: &str,
    name: &str,
    uses: impl Fn(&ContainerSpec) -> bool,
) -> Result<(), Invalid> {
    let mut services: Vec<String> = state
        .services()
        .iter()
        .filter(|service| service.spec.task_template.container_spec.as_ref().is_some_and(&uses))
        .map(|service| service.spec.name.clone())
        .collect();
    services.sort_unstable();
    match services.as_slice() {
        [] => Ok(()),
        [one] => spec(format!("{kind} '{name}' is in use by the following service: {one}")),
        several => {
            spec(format!("{kind} '{name}' is in use by the following services: {}", several.join(", ")))
        }
    }
}

fn only_labels(wanted: DataSpec, existing: &DataSpec) -> Result<DataSpec, Invalid> {
    let same_data = wanted.data.is_empty() || wanted.data == existing.data;
    if !same_data || wanted.name != existing.name {
        return spec("only updates to Labels are allowed");
    }
    Ok(DataSpec { labels: wanted.labels, ..existing.clone() })
}

fn check_name(kind: &str, name: &str) -> Result<(), Invalid> {
    let end = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    let inside = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if name.len() > 64 || !inside || !end(name.bytes().next()) || !end(name.bytes().last()) {
        return spec(format!(
            "invalid {kind} name {name:?}: invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end \
             character must be [a-zA-Z0-9]"
        ));
    }
    Ok(())
}

fn check_data(kind: &str, base64: &str, max: usize) -> Result<(), Invalid> {
    let digits = base64.trim_end_matches('=');
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_');
    if !digits.bytes().all(is_digit) || digits.len() % 4 == 1 {
        return spec(format!("{kind} data must be base64"));
    }
    let length = digits.len() * 3 / 4;
    if length == 0 || length > max {
        return spec(format!("{kind} data must be larger than 0 and less than {max} bytes"));
    }
    Ok(())
}
