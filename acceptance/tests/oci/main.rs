//! The OCI runtime specification, property by property: a configuration, and what a probe inside the container saw.
//!
//! The runtime under examination is gantry-runtime, or the one that `OCI_RUNTIME` names; what is known to differ in another runtime is
//! named in [`exceptions`], and an exception that no longer holds is a failure. `GANTRY_OCI_DOCUMENT=write` renews the tables of
//! docs/oci-conformance.md.

mod bundle;
mod command_line;
mod config;
mod config_linux;
mod document;
mod exceptions;
mod features;
mod lab;
mod life;
mod receiver;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use lab::{Lab, Runtime};
use verdict::Property;

/// The chapters in the order of the specification.
pub const CHAPTERS: &[(&str, &[&[Property]])] = &[
    ("Configuration (config.md)", config::PROPERTIES),
    ("Configuration for Linux (config-linux.md)", config_linux::PROPERTIES),
    ("Life cycle and operations (runtime.md, runtime-linux.md)", life::PROPERTIES),
    ("Features (features.md)", features::PROPERTIES),
    ("Command line (runc's)", command_line::PROPERTIES),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let program = std::env::var_os("OCI_RUNTIME").or_else(|| std::env::var_os("GANTRY_RUNTIME"));
    let program = program.map_or_else(|| PathBuf::from("gantry-runtime"), PathBuf::from);
    let runtime = Runtime::of(&program);
    let all: Vec<Property> = CHAPTERS.iter().flat_map(|(_, parts)| parts.concat()).collect();
    let suite = format!("oci with {}", runtime.name());
    let wanted =
        |id: &str| words.is_empty() || words.iter().any(|word| id.contains(word) || suite.contains(word));
    let chosen: Vec<Property> = all.iter().filter(|property| wanted(property.id)).copied().collect();
    println!("\nrunning {} tests of {suite}", chosen.len());
    if chosen.is_empty() {
        return ExitCode::SUCCESS;
    }
    if words.is_empty()
        && runtime == Runtime::Gantry
        && let Err(complaint) = document::check(CHAPTERS, exceptions::EXCEPTIONS)
    {
        println!("docs/oci-conformance.md: {complaint}");
        return ExitCode::FAILURE;
    }
    if runtime == Runtime::Crun {
        // crun refuses a hybrid layout: in a private mount namespace it sees none.
        acceptance::layout::hide_unified().expect("hide the unified hierarchy");
    }
    verdict::judge(&Lab::open(program), &chosen, exceptions::EXCEPTIONS)
}
