//! Containers, exec, volumes, logs, events and statistics of one node. Knows neither HTTP nor clusters.

pub mod config;
pub mod error;
pub mod events;
pub mod request;
pub mod stats;
pub mod view;

mod engine;

pub use config::{EngineConfig, RuntimeEntry, RuntimeKind};
pub use engine::{ArchiveReader, Engine, Wait};
pub use error::{Error, ErrorKind, Result};
pub use events::Event;
pub use request::*;
pub use stats::Stats;
pub use view::*;
