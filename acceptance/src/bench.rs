//! Measurements of Gantry beside what it is compared with, both sides interleaved in one run: the machines are shared, so only
//! ratios of one run mean something.

pub mod api;
pub mod dockerd;
pub mod engine;
pub mod images;
pub mod memory;
pub mod network;
pub mod runtime;
pub mod starts;

use std::time::{Duration, Instant};

/// The median of some times, in milliseconds.
pub fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
}

/// How long a piece of work took.
pub fn timed<T>(work: impl FnOnce() -> Result<T, String>) -> Result<Duration, String> {
    let start = Instant::now();
    work().map(|_| start.elapsed())
}

/// Prints rows as a Markdown table.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    println!("| {} |", head.join(" | "));
    println!("|{}|", head.iter().map(|_| "---").collect::<Vec<_>>().join("|"));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}
