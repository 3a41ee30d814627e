//! What the whole-system tests share: suites that clean up after themselves, the stock docker client, sample images.
//!
//! A suite is one executable that brings up nodes once, runs its cases in order and takes everything away again, whatever
//! happened; so a case may rely on the nodes but never on another case.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod docker;
pub mod http;
pub mod image;
pub mod layout;
pub mod nodes;
pub mod private_registry;
pub mod request;
pub mod suite;
pub mod terminal;
pub mod wait;
