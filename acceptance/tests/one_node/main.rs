//! One node under the stock docker command: every command that the README promises, with a user's eyes.

mod clients;
mod execs;
mod faults;
mod files;
mod images;
mod lifecycle;
mod logs;
mod networks;
mod options;
mod refusals;
mod registries;
mod terminal;
mod volumes;

use acceptance::nodes::Nodes;
use acceptance::suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let make = || {
        let nodes = Nodes::up("one", 1);
        nodes.import_sample(1);
        nodes
    };
    let cases: Vec<suite::Case<Nodes>> = [
        lifecycle::CASES,
        options::CASES,
        logs::CASES,
        execs::CASES,
        terminal::CASES,
        networks::CASES,
        volumes::CASES,
        files::CASES,
        images::CASES,
        registries::CASES,
        refusals::CASES,
        clients::CASES,
        faults::CASES,
    ]
    .concat();
    suite::run("one_node", make, &cases)
}
