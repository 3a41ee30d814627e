//! What breaks in a cluster, and what must go on: daemons, managers, nodes, links and paths fail one after the other.

mod daemons;
mod managers;
mod paths;

use acceptance::cluster::up_with_image;
use acceptance::nodes::Nodes;
use acceptance::suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Each group harms its cluster for good, so each gets its own.
    let groups: [(&str, &[suite::Case<Nodes>]); 3] =
        [("daemons", daemons::CASES), ("paths", paths::CASES), ("managers", managers::CASES)];
    let mut outcome = ExitCode::SUCCESS;
    for (name, cases) in groups {
        let title = format!("cluster_faults {name}");
        if suite::run(&title, || up_with_image(&format!("f{}", &name[..4]), 3), cases) != ExitCode::SUCCESS {
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}
