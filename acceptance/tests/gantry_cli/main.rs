//! Gantry's own command line against real daemons, with a user's eyes and beside the stock docker command.

mod containers;
mod errors;
mod images;
mod lists;
mod runs;
mod services;
mod shells;
mod swarm;

use acceptance::cluster::up_with_image;
use acceptance::nodes::Nodes;
use acceptance::suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cases: Vec<suite::Case<Nodes>> = [
        shells::CASES,
        runs::CASES,
        containers::CASES,
        images::CASES,
        lists::CASES,
        errors::CASES,
        services::CASES,
        swarm::CASES,
    ]
    .concat();
    suite::run("gantry_cli", || up_with_image("cli", 3), &cases)
}
