//! `oci-probe`: the program of the containers of the conformance suite; it looks from inside and prints JSON.
//!
//! The command line is a list of steps with `--` between them. What the steps saw is one JSON object on one line of standard output,
//! with a member for each step; the last step may end the program in a way of its own.

mod attempt;
mod files;
mod hook;
mod look;
mod wait;

use serde_json::{Map, Value};
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "oci-probe STEP [ARGUMENT…] [-- STEP …]
  look                  identity, limits, namespaces, mounts, descriptors and the rest of this process
  stat PATH…            type, mode, owner, device numbers, target of each path
  read PATH…            text of each file
  list PATH…            names in each folder
  try CALL…             makes system calls and says `ok` or the name of the error
  hook NAME FILE        appends one line about itself and its standard input to the file
  say TEXT              writes the text to standard error
  wait                  prints what was seen until now, then awaits signals: TERM ends it with 143, USR1 with 0
  exit CODE             prints what was seen until now and exits";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut seen = Map::new();
    for step in args.split(|word| word == "--") {
        let words: Vec<&str> = step.iter().map(String::as_str).collect();
        let (name, value) = match words.as_slice() {
            ["look"] => ("look", look::look()),
            ["stat", paths @ ..] => ("stat", each(paths, files::stat)),
            ["read", paths @ ..] => ("read", each(paths, files::read)),
            ["list", paths @ ..] => ("list", each(paths, files::list)),
            ["try", calls @ ..] => ("try", each(calls, attempt::attempt)),
            ["hook", name, file] => return ended(hook::record(name, file)),
            ["say", text] => {
                eprintln!("{text}");
                ("say", Value::Null)
            }
            ["wait"] => return wait::wait(|| print(&seen)),
            ["exit", code] => {
                print(&seen);
                return ExitCode::from(code.parse().unwrap_or(1));
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        };
        seen.insert(name.to_owned(), value);
    }
    print(&seen);
    ExitCode::SUCCESS
}

fn each(names: &[&str], examine: fn(&str) -> Value) -> Value {
    names.iter().map(|name| ((*name).to_owned(), examine(name))).collect::<Map<_, _>>().into()
}

/// One write, so that lines of several programs do not mix.
fn print(seen: &Map<String, Value>) {
    let line = format!("{}\n", Value::from(seen.clone()));
    // Whoever does not read has no interest.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

fn ended(outcome: std::io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oci-probe: {error}");
            ExitCode::FAILURE
        }
    }
}
