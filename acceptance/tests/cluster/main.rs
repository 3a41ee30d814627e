//! Three nodes under the stock docker command: services, networks, the mesh, and what the managers say.

mod autolock;
mod managers;
mod membership;
mod mesh;
mod overlay;
mod private_images;
mod services;
mod updates;

use acceptance::cluster::up_with_image;
use acceptance::nodes::Nodes;
use acceptance::suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cases: Vec<suite::Case<Nodes>> = [
        managers::CASES,
        services::CASES,
        updates::CASES,
        overlay::CASES,
        mesh::CASES,
        private_images::CASES,
        autolock::CASES,
        membership::CASES,
    ]
    .concat();
    suite::run("cluster", || up_with_image("three", 3), &cases)
}
