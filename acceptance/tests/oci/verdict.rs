//! Verdicts: each property is carried out, and its outcome compared with what is known of the runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use crate::exceptions::{self, Certainty, Exception};
use crate::lab::{Lab, Runtime, Skipped};

/// One property of the specification: its name, what it says, and the case that shows it.
#[derive(Clone, Copy)]
pub struct Property {
    /// `chapter/…/noun`; the document and the table of exceptions use it.
    pub id: &'static str,
    /// A sentence.
    pub says: &'static str,
    /// Fails when the property does not hold.
    pub case: fn(&Lab),
}

/// A property, as the chapters list them.
pub const fn property(id: &'static str, says: &'static str, case: fn(&Lab)) -> Property {
    Property { id, says, case }
}

enum Outcome {
    Holds,
    Fails(String),
    Skipped(String),
}

static COMPLAINT: Mutex<String> = Mutex::new(String::new());

/// Carries out the properties whose name contains one of the words, and prints a line for each in the words of cargo's own runner.
pub fn judge(lab: &Lab, properties: &[Property], exceptions: &'static [Exception]) -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        // What a failed assertion said is printed only when it was not expected.
        *COMPLAINT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = info.to_string();
    }));
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for property in properties {
        let start = Instant::now();
        let known = exceptions::known(exceptions, lab.runtime, property.id);
        let mut outcome = carry_out(lab, property);
        if lab.runtime != Runtime::Gantry && is_surprise(&outcome, known) {
            // The other runtimes show that the case tests the specification; a race inside one of them is not ours to fail by.
            println!(
                "test {} ... once more, since {:?} did not do as it is known to",
                property.id, lab.runtime
            );
            outcome = carry_out(lab, property);
        }
        let seconds = start.elapsed().as_secs_f64();
        match (outcome, known) {
            (Outcome::Holds, None) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.2} s)", property.id);
            }
            (Outcome::Fails(_), Some(exception)) => {
                skipped += 1;
                println!("test {} ... skipped: {}", property.id, exception.reason);
            }
            (Outcome::Skipped(reason), _) => {
                skipped += 1;
                println!("test {} ... skipped: {reason}", property.id);
            }
            (Outcome::Fails(complaint), None) => {
                failed.push(property.id);
                println!("test {} ... FAILED ({seconds:.2} s)\n  {complaint}", property.id);
            }
            (Outcome::Holds, Some(exception)) if exception.certainty == Certainty::Sometimes => {
                passed += 1;
                println!("test {} ... ok ({seconds:.2} s), this time", property.id);
            }
            (Outcome::Holds, Some(exception)) => {
                failed.push(property.id);
                println!(
                    "test {} ... FAILED: it holds, although the table says: {}",
                    property.id, exception.reason
                );
            }
        }
    }
    for id in &failed {
        println!("failed: {id}");
    }
    println!("\n{passed} passed, {} failed, {skipped} skipped", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether an outcome is a failure of the suite.
fn is_surprise(outcome: &Outcome, known: Option<&Exception>) -> bool {
    match (outcome, known) {
        (Outcome::Fails(_), None) => true,
        (Outcome::Holds, Some(exception)) => exception.certainty == Certainty::Always,
        _ => false,
    }
}

fn carry_out(lab: &Lab, property: &Property) -> Outcome {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| (property.case)(lab))) else { return Outcome::Holds };
    match payload.downcast::<Skipped>() {
        Ok(skipped) => Outcome::Skipped(skipped.0),
        Err(_) => Outcome::Fails(
            COMPLAINT.lock().map_or_else(|text| text.into_inner().clone(), |text| text.clone()),
        ),
    }
}
