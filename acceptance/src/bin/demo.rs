//! `gantry-demo`: three nodes on this machine, a service on them, one node killed.
fn main() {}
