//! The networks of one node: bridges, overlay networks, published ports, names, balancing.
//!
//! [`Networks`] is the entry. It keeps three things apart: what was asked (networks, sandboxes; files in [`store`]), what the
//! cluster said ([`gantry_model::overlay::OverlayState`]), and the kernel, which is made to agree with both.
//!
//! | module | what it has |
//! |---|---|
//! | [`networks`] | opening, recovery after any death of the daemon, the shared bookkeeping |
//! | [`local`] | networks of this node: create, list, inspect, remove |
//! | [`attach`], `endpoint` | sandboxes: create, connect, disconnect, remove; what an endpoint gets |
//! | [`definition`], [`ipam`], [`firewall`], [`text`], [`overlay::plan`], [`overlay::vip`] | decisions, pure |
//! | [`host`], [`ports`], [`store`] | effects: netlink, host ports, files |
//! | [`overlay`], [`overlay::mesh`] | cluster networks and the routing mesh |
//! | [`probe`] | whether the tunnel carries packets to and from every other node |
//! | [`doctor`] | what this node's kernel and settings lack |
//! | [`dns`], [`resolver`] | names: the daemon's side, and the process that answers while the daemon is dead |
//!
//! Threads: one that watches the resolver, one that probes the paths to other nodes; both end with the last `Arc<Networks>`.
//! No command is called, and nothing of the host's own configuration is changed but `net.ipv4.ip_forward`.

pub mod attach;
pub mod config;
pub mod definition;
pub mod dns;
pub mod doctor;
mod endpoint;
pub mod error;
pub mod firewall;
mod gate;
pub mod host;
pub mod ipam;
pub mod local;
pub mod networks;
pub mod overlay;
pub mod ports;
pub mod probe;
pub mod resolver;
pub mod sandbox;
pub mod store;
pub mod text;

pub use config::{AddressPool, NetworkConfig};
pub use error::{ErrorKind, NetworkError};
pub use local::Member;
pub use networks::Networks;
pub use probe::{Direction, PathReport, PathState};
pub use sandbox::{Attachment, BoundPort, DnsSettings, Endpoint, PortSpec, Sandbox, SandboxSpec};

/// An error with all its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
