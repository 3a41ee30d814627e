//! The OCI runtime and the monitor as a library, so that the engine shares their types and tests reach their parts.
//!
//! | module | what it is |
//! |---|---|
//! | [`oci`] | `config.json` and the other documents of the OCI runtime specification; Docker's defaults |
//! | [`monitor`] | what stays with a container: its contract with the engine, stdio, log, attach |

pub mod monitor;
pub mod oci;
