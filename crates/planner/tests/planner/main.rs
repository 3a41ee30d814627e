//! The crate's public face under test: whole clusters in memory, with agents that only pretend to run containers.

mod jobs;
mod lists;
mod networks;
mod reference;
mod refusals;
mod scheduling;
mod services;
mod silence;
mod simulation;
mod store;
mod throughput;
mod updates;
mod world;
