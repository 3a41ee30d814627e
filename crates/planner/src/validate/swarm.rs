//! Checks of the cluster's own specification.

use super::{Invalid, spec};
use gantry_model::swarm::SwarmSpec;

/// Shortest life of a node's certificate, in nanoseconds, as Docker has it.
const SHORTEST_EXPIRY: i64 = 3_600_000_000_000;
/// Longest time between two heartbeats of an agent, in nanoseconds: a lost node is to be noticed within the day.
const LONGEST_HEARTBEAT: i64 = 3_600_000_000_000;

/// Checks the cluster's specification.
pub fn swarm_spec(mut wanted: SwarmSpec) -> Result<SwarmSpec, Invalid> {
    if wanted.name.is_empty() {
        wanted.name = "default".to_owned();
    }
    if wanted.name != "default" {
        return spec(format!("invalid Name {:?}: swarm spec must be named \"default\"", wanted.name));
    }
    let expiry = wanted.ca_config.node_cert_expiry;
    if expiry != 0 && expiry < SHORTEST_EXPIRY {
        return spec("minimum certificate expiry time is 1h0m0s");
    }
    let heartbeat = wanted.dispatcher.heartbeat_period;
    if heartbeat < 0 {
        return spec("heartbeat time period cannot be a negative duration");
    }
    if heartbeat > LONGEST_HEARTBEAT {
        return spec("heartbeat time period cannot be longer than 1h0m0s");
    }
    Ok(wanted)
}
