//! The OCI runtime and the monitor as a library, so that tests reach its parts.
