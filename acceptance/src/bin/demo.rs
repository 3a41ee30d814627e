//! `gantry-demo`: three nodes on this machine, a service on them, one node killed; every claim is checked as it is shown.

use acceptance::demo::{Demo, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let keep = std::env::args().any(|a| a == "--keep");
    match show(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\ndemo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn show(keep: bool) -> Result<(), Failure> {
    let demo = Demo::up("demo", 3)?;
    let outcome = steps(&demo);
    if keep {
        demo.say_how_to_go_on();
        demo.leave_running();
        return outcome;
    }
    let left = demo.down();
    outcome.and(left)
}

fn steps(demo: &Demo) -> Result<(), Failure> {
    demo.push_the_sample_image()?;
    demo.create_the_service()?;
    demo.show_tasks()?;
    demo.show_names()?;
    demo.show_virtual_ip()?;
    demo.show_published_port()?;
    demo.kill_the_leaders_node()?;
    demo.say_how_to_go_on();
    Ok(())
}
