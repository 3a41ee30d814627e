//! The node daemon: the Docker Engine API over this node's engine, images, networks and its cluster.
//!
//! Decides nothing: handlers turn a request into one call of a crate below and its result into Docker's answer.
//!
//! | module | what | woken by |
//! |---|---|---|
//! | [`settings`] | flags and daemon.json | |
//! | [`start`] | opens the parts, serves, closes them: the written order | SIGTERM, SIGINT |
//! | [`server`], [`listen`] | sockets, connections, the version prefix, hijacking with `200 OK` | clients |
//! | [`registry`] | Gantry's own registry, beside the daemon or alone | clients |
//! | [`http`] | errors, requests, streamed answers, hijacked sessions | |
//! | `routes` | one file for each resource of the API | requests |
//! | [`daemon`] | the parts together, as handlers see them | |

pub mod attachments;
pub mod cluster;
pub mod daemon;
pub mod executor;
pub mod host;
pub mod http;
pub mod listen;
pub mod lock;
pub mod pull;
pub mod registry;
pub mod routes;
pub mod server;
pub mod settings;
pub mod start;

use settings::Invocation;
use std::process::ExitCode;

/// `gantry resolver ARGS…`: the process that the daemon starts to answer names while it is away itself.
pub fn resolver(args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    gantry_network::resolver::main(args)
}

/// `gantry daemon ARGS…`: runs until it is told to end. Exit code 2 for wrong flags, 1 for anything else.
pub fn main(args: &[String]) -> ExitCode {
    let settings = match settings::read(args) {
        Ok(Invocation::Help) => {
            print!("{}", settings::USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Version) => {
            println!("gantry daemon {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Run(settings)) => *settings,
        Err(error) => {
            eprintln!("gantry daemon: {}", http::error::chain(&error));
            return ExitCode::from(2);
        }
    };
    start::init_log(&settings.log_level, settings.log_format);
    match start::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry daemon: {}", http::error::chain(&error));
            ExitCode::FAILURE
        }
    }
}
