//! The Docker Engine API on the wire: its types, its errors, its versions, its queries and its streams.
//!
//! Pure: no I/O. Types serialise as Docker 28 writes them (exact key names, explicit nulls, empty lists and zero values)
//! and read leniently, so that the daemon and the command line share them. What a container, a network or a service *is
//! asked to be* comes from `gantry_model`; here are the answers.
//!
//! | module | what |
//! |---|---|
//! | [`version`] | API versions, negotiation, the `/v1.NN` prefix |
//! | [`query`], [`filters`], [`time`] | query strings, the `filters` parameter, times in queries and answers |
//! | [`error`], [`auth`] | the error body; registry credentials in headers |
//! | [`progress`], [`stdcopy`] | JSON progress messages; the framing of attached output |
//! | [`container`], [`exec`], [`stats`] | containers |
//! | [`image`], [`network`], [`volume`] | images, networks, volumes |
//! | [`task`] | tasks of services |
//! | [`system`], [`event`] | version, info, disk usage, events |

pub mod auth;
pub mod container;
pub mod error;
pub mod event;
pub mod exec;
pub mod filters;
pub mod image;
pub mod network;
pub mod progress;
pub mod query;
pub mod stats;
pub mod stdcopy;
pub mod system;
pub mod task;
pub mod time;
pub mod version;
pub mod volume;
