//! A suite: cases that run in order against nodes that one guard brings up and takes away.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// One case: what it shows, and how.
pub type Case<C> = (&'static str, fn(&C));

/// Runs the cases whose name contains one of the arguments (all without arguments), prints the result in the words of
/// cargo's own runner, and drops the context at the end.
pub fn run<C>(title: &str, make: impl FnOnce() -> C, cases: &[Case<C>]) -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let chosen: Vec<&Case<C>> = cases
        .iter()
        .filter(|(name, _)| {
            wanted.is_empty()
                || wanted.iter().any(|w| name.contains(w.as_str()) || title.contains(w.as_str()))
        })
        .collect();
    println!("\nrunning {} tests of {title}", chosen.len());
    if chosen.is_empty() {
        return ExitCode::SUCCESS;
    }
    // The message of a failed assertion says what is wrong; where the runner called it does not.
    std::panic::set_hook(Box::new(|info| eprintln!("  {info}")));
    let Ok(context) = catch_unwind(AssertUnwindSafe(make)) else {
        println!("test {title} ... FAILED to bring up its nodes");
        println!("\n0 passed, {} failed", chosen.len());
        return ExitCode::FAILURE;
    };
    let mut failed = Vec::new();
    for (name, case) in &chosen {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&context)));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f64());
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    drop(context);
    for name in &failed {
        println!("failed: {name}");
    }
    println!("\n{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
