//! Containers, exec, volumes, logs, events and statistics of one node. Knows neither HTTP nor clusters.
//!
//! [`Engine`] is the entry. Each container is a record (what was asked and what became of it) and, while it runs, a
//! monitor process that the engine can lose and find again. One lock for each container orders what changes it.
//!
//! | module | what it has |
//! |---|---|
//! | `create`, `launch`, `lifecycle`, `control`, `remove` | the life of a container, in this order |
//! | `reopen` | what a new engine makes of what a dead one left |
//! | `exec`, `health`, `attach`, `logs` | processes in containers, checks, input and output |
//! | `network`, `plug`, `volumes`, `rootfs`, `archive` | places in networks, volumes, files |
//! | `observe`, `ps`, `stats`, `events` | looking from outside |
//! | `merge`, `mounts`, `spec`, `security`, `limits`, `restart`, `state`, `filter`, `pattern`, `signal` | decisions, pure |
//! | `container`, `record`, `monitor`, `devices` | a container in memory, the database, the monitor's socket, nodes and cgroups |
//!
//! Tasks: one for each running container and exec that waits for its end; one for each health check; one for each
//! pending restart; a thread that commits records. All end when [`Engine::close`] is called; containers do not.

pub mod config;
pub mod error;
pub mod events;
pub mod filter;
pub mod network;
pub mod request;
pub mod stats;
pub mod view;

mod archive;
mod attach;
mod container;
mod control;
mod create;
mod devices;
mod engine;
mod exec;
mod health;
mod launch;
mod lifecycle;
mod limits;
mod logs;
mod merge;
mod monitor;
mod mounts;
mod observe;
mod pattern;
mod plug;
mod ps;
mod record;
mod remove;
mod reopen;
mod restart;
mod rootfs;
mod security;
mod signal;
mod spec;
mod state;
mod volumes;

pub use config::{EngineConfig, RuntimeEntry, RuntimeKind};
pub use engine::{ArchiveReader, Engine, Wait};
pub use error::{Error, ErrorKind, Result};
pub use events::Event;
pub use network::{BoxFuture, NetworkSource};
pub use request::*;
pub use stats::Stats;
pub use view::*;
