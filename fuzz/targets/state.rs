//! Any bytes for the reader `state`.
#![no_main]

#[path = "../../crates/runtime/tests/parsers/mod.rs"]
#[allow(dead_code, reason = "each target calls one reader")]
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parsers::state(data));
