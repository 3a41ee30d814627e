//! `gantry-bench`: tables with both sides from one run. Benchmarks measure and print; they do not fail on time.

use acceptance::bench::{engine, images, memory, network, runtime, starts};
use std::process::ExitCode;

/// Name, what it compares, and the measurement.
type Bench = (&'static str, fn() -> Result<(), String>);

const ALL: &[Bench] = &[
    ("runtime", runtime::run),
    ("engine", engine::run),
    ("images", images::run),
    ("network", network::run),
    ("memory", memory::run),
    ("starts", many_starts),
];

/// `--count N`, or the number that the benchmark has of itself.
fn many_starts() -> Result<(), String> {
    let args: Vec<String> = std::env::args().collect();
    let given = args.iter().position(|a| a == "--count").map(|at| args.get(at + 1).map(String::as_str));
    let count = match given {
        None => starts::DEFAULT_COUNT,
        Some(text) => {
            let text = text.unwrap_or_default();
            text.parse().map_err(|_| format!("--count {text:?} is no number"))?
        }
    };
    starts::run(count)
}

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = wanted.iter().position(|w| w == "--count") {
        wanted.drain(at..wanted.len().min(at + 2));
    }
    let known = |name: &String| ALL.iter().any(|(n, _)| n == name);
    if let Some(unknown) = wanted.iter().find(|w| !known(w)) {
        eprintln!(
            "bench: unknown name {unknown:?}; there are: {}",
            ALL.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::FAILURE;
    }
    let mut outcome = ExitCode::SUCCESS;
    for (name, measure) in ALL.iter().filter(|(n, _)| wanted.is_empty() || wanted.iter().any(|w| w == n)) {
        println!("\n## {name}");
        if let Err(why) = measure() {
            eprintln!("bench {name}: {why}");
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}
