//! Checks of what clients send, before it becomes a change: Docker's rules, with Docker's words.
//!
//! What passes is returned with the defaults filled in and names replaced by ids, ready for [`crate::edit`].

mod data;
mod network;
mod node;
mod refusal;
mod service;
mod swarm;

pub use data::{config_remove, config_spec, secret_remove, secret_spec};
pub use network::{network_remove, network_spec};
pub use node::{node_remove, node_update};
pub(crate) use refusal::name_conflict;
pub use refusal::{Invalid, Kind};
pub use service::{returned_spec, service_spec};
pub use swarm::swarm_spec;

fn spec<T>(sentence: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid::Spec(sentence.into()))
}

/// The rule for names of services, networks and the cluster: each must be able to stand in a DNS name (SwarmKit's
/// `validateAnnotations`).
fn check_dns_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return spec("meta: name must be provided");
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !inside || !ends(name.chars().next()) || !ends(name.chars().last()) {
        return spec("name must be valid as a DNS name component");
    }
    if name.len() > 63 {
        return spec("name must be 63 characters or fewer");
    }
    Ok(())
}
