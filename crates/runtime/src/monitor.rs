//! The monitor: the process that stays with one container or one exec, and what the engine shares with it.
//!
//! `config`, `report` and `frame` are the contract with the engine; the rest is the monitor itself.

mod clients;
pub mod config;
mod external;
pub mod frame;
mod json_file;
pub mod report;
mod serve;
mod stdio;
mod subject;

pub use config::{LogConfig, MonitorConfig, MonitorKind, Overlay, RuntimeChoice};
pub use frame::{Frame, FrameHeader, FrameKind, Subscription};
pub use report::{ExitStatus, Report};

/// Name of the configuration in a monitor's folder.
pub const CONFIG_FILE: &str = "monitor.json";
/// Name of the attach socket in a monitor's folder.
pub const ATTACH_SOCKET: &str = "attach.sock";
/// Name of the exit status in a monitor's folder.
pub const EXIT_FILE: &str = "exit.json";

/// Stays with the container of a folder; see [`report`] for what it tells. Returns the exit code.
pub fn run(folder: &str) -> crate::error::Result<i32> {
    serve::run(&crate::state::absolute(std::path::Path::new(folder))?)
}
