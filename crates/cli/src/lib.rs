//! The commands of `gantry`.
//!
//! [`main`] parses the arguments ([`app`]), makes a [`context::Context`] (the daemon's address, docker's config.json), and
//! runs one command. Each command is one file below `command`, with its arguments, its `run` and its test. What commands
//! share is named after what it is: [`client`] talks HTTP, [`session`] joins the terminal to a container, [`table`] and
//! [`template`] print, [`syntax`] reads the small languages of flags, [`progress`] shows pulls, [`auth`] keeps credentials.
//! Two things are gantry's own: [`doctor`], which looks at the host, and [`playground`], a cluster on one machine, which is
//! a library as well: tests and the demo build on it.
//!
//! Deliberately absent: any knowledge of how the daemon does something. Everything goes over the Docker Engine API.

pub mod app;
pub mod auth;
pub mod client;
pub mod command;
pub mod context;
pub mod doctor;
pub mod error;
pub mod host;
pub mod json;
pub mod playground;
pub mod progress;
pub mod session;
pub mod syntax;
pub mod table;
pub mod terminal;
pub mod units;

pub use gantry_model::template;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line `args` (the program's name first) and returns its exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(app::main(args.into_iter().collect()))
}
