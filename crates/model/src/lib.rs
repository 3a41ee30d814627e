//! The nouns of Gantry: ids, names, digests, references, specs and states; parse, validate, print.
//!
//! Pure: no clock, no I/O, no async. The objects serialise in the shape of the Docker Engine API, because that is what
//! clients send, what the Raft log keeps and what managers hand to nodes: one shape instead of three with conversions.

pub mod container;
pub mod digest;
pub mod duration;
pub mod id;
pub mod names;
pub mod network;
pub mod node;
pub mod overlay;
pub mod platform;
pub mod pull_auth;
pub mod reference;
pub mod secret;
pub mod service;
pub mod shared;
pub mod swarm;
pub mod task;
pub mod task_template;
pub mod template;
pub mod volume;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads `null` as the type's empty value: Go clients send null for empty lists, maps and strings.
pub fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(source: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

/// Writes an empty list or map as `null`, as Go writes one that was never made: scripts ask for null.
pub fn null_if_empty<S: Serializer, T: Default + PartialEq + Serialize>(
    value: &T,
    target: S,
) -> Result<S::Ok, S::Error> {
    if *value == T::default() { target.serialize_none() } else { value.serialize(target) }
}

/// Whether a number is the one that Docker leaves out.
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
