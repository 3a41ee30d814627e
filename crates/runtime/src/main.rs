//! `gantry-runtime`: the OCI runtime and the monitor of each container.

fn main() {}
