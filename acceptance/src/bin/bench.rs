//! `gantry-bench`: tables with both sides from one run.
fn main() {}
