//! The nouns of Gantry: ids, names, digests, references, specs and states; parse, validate, print.
//!
//! Pure: no clock, no I/O, no async. The objects serialise in the shape of the Docker Engine API, because that is what
//! clients send, what the Raft log keeps and what managers hand to nodes: one shape instead of three with conversions.

pub mod container;
pub mod digest;
pub mod duration;
pub mod id;
pub mod network;
pub mod node;
pub mod overlay;
pub mod platform;
pub mod reference;
pub mod secret;
pub mod service;
pub mod swarm;
pub mod task;
pub mod volume;
