//! `gantry`: chooses between the command line and the daemon.
fn main() {}
