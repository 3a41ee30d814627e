//! The OCI runtime and the monitor as a library, so that the engine shares their types and tests reach their parts.
//!
//! | module | what it is |
//! |---|---|
//! | [`oci`] | `config.json` and the other documents of the OCI runtime specification; Docker's defaults |
//! | [`monitor`] | what stays with a container: its contract with the engine, stdio, log, attach |

pub mod channel;
pub mod clock;
pub mod commands;
pub mod error;
pub mod exec;
pub mod filter;
pub mod foreground;
pub mod hooks;
pub mod init;
pub mod launch;
pub mod limits;
pub mod monitor;
pub mod mount_options;
pub mod oci;
pub mod pid1;
pub mod plan;
pub mod program;
pub mod protect;
pub mod signals;
pub mod start_socket;
pub mod state;
