//! Containers, exec, volumes, logs, events and statistics of one node. Knows neither HTTP nor clusters.

pub mod config;
pub mod error;
pub mod events;
pub mod filter;
pub mod request;
pub mod stats;
pub mod view;

mod engine;
mod limits;
mod logs;
mod merge;
mod mounts;
mod names;
mod pattern;
mod record;
mod restart;
mod security;
mod signal;
mod spec;
mod state;

pub use config::{EngineConfig, RuntimeEntry, RuntimeKind};
pub use engine::{ArchiveReader, Engine, Wait};
pub use error::{Error, ErrorKind, Result};
pub use events::Event;
pub use request::*;
pub use stats::Stats;
pub use view::*;
