//! docs/oci-conformance.md: its tables are made from the properties and the exceptions, so that they agree with the cases.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::exceptions::{Exception, known};
use crate::lab::Runtime;
use crate::verdict::Property;

const BEGIN: &str = "<!-- made by the suite: GANTRY_OCI_DOCUMENT=write -->\n";
const END: &str = "<!-- end of what the suite makes -->\n";

/// Compares the document with the cases, or renews it when the environment says so.
pub fn check(chapters: &[(&str, &[&[Property]])], exceptions: &'static [Exception]) -> Result<(), String> {
    names_are_right(chapters, exceptions)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/oci-conformance.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("read it: {error}"))?;
    let (head, rest) = text.split_once(BEGIN).ok_or("the line that begins the tables is missing")?;
    let (_, tail) = rest.split_once(END).ok_or("the line that ends the tables is missing")?;
    let right = format!("{head}{BEGIN}{}{END}{tail}", tables(chapters, exceptions));
    if right == text {
        return Ok(());
    }
    if std::env::var_os("GANTRY_OCI_DOCUMENT").is_some_and(|word| word == "write") {
        return fs::write(&path, right).map_err(|error| format!("write it: {error}"));
    }
    Err("its tables are not those of the cases; renew them by GANTRY_OCI_DOCUMENT=write".to_owned())
}

fn names_are_right(
    chapters: &[(&str, &[&[Property]])],
    exceptions: &'static [Exception],
) -> Result<(), String> {
    let mut names: Vec<&str> = chapters
        .iter()
        .flat_map(|(_, parts)| parts.iter().flat_map(|part| part.iter().map(|one| one.id)))
        .collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two cases have the name {}", twice[0]));
    }
    let mut excepted = exceptions.iter().flat_map(|exception| exception.properties);
    match excepted.find(|name| names.binary_search(name).is_err()) {
        Some(unknown) => Err(format!("an exception names {unknown}, which is no case")),
        None => Ok(()),
    }
}

fn tables(chapters: &[(&str, &[&[Property]])], exceptions: &'static [Exception]) -> String {
    let mut text = String::new();
    let mut notes: Vec<&str> = Vec::new();
    for (title, parts) in chapters {
        let _ = write!(
            text,
            "\n## {title}\n\n| property (= test) | what holds | gantry | runc | crun |\n|---|---|---|---|---|\n"
        );
        for property in parts.iter().flat_map(|part| part.iter()) {
            let _ = write!(text, "| `{}` | {} |", property.id, property.says.replace('|', "\\|"));
            for runtime in Runtime::ALL {
                match known(exceptions, runtime, property.id) {
                    None => text.push_str(" yes |"),
                    Some(exception) => {
                        let at =
                            notes.iter().position(|note| *note == exception.reason).unwrap_or_else(|| {
                                notes.push(exception.reason);
                                notes.len() - 1
                            });
                        let _ = write!(text, " no ({}) |", at + 1);
                    }
                }
            }
            text.push('\n');
        }
    }
    text.push_str("\n### Why not\n\n");
    for (at, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "{}. {note}", at + 1);
    }
    text.push('\n');
    text
}
