//! `list`: all containers of one root.

use lexopt::prelude::*;
use serde_json::Value as Json;

use super::{Global, next, print, state, text};
use crate::error::{Error, Result};

/// How the list looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Format {
    /// `table` or `json`.
    pub fn parse(text: &str) -> Result<Format> {
        match text {
            "table" => Ok(Format::Table),
            "json" => Ok(Format::Json),
            _ => Err(Error::Usage(format!("invalid format option {text:?}: it is table or json"))),
        }
    }
}

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let (mut format, mut quiet) = (Format::Table, false);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('f') | Long("format") => format = Format::parse(&text(&mut parser)?)?,
            Short('q') | Long("quiet") => quiet = true,
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let records = global.store.list();
    if quiet {
        let names: String = records.iter().map(|record| format!("{}\n", record.id)).collect();
        print(&names)?;
        return Ok(0);
    }
    let rows = records.iter().map(|record| state::document(global, record)).collect::<Result<Vec<Json>>>()?;
    match format {
        Format::Json => print(&format!("{}\n", Json::from(rows)))?,
        Format::Table => print(&table(&rows))?,
    }
    Ok(0)
}

/// Columns as wide as what is in them, at least 12 with 3 spaces between, as runc prints them.
fn table(rows: &[Json]) -> String {
    const COLUMNS: [&str; 6] = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut lines: Vec<Vec<String>> = vec![COLUMNS.iter().map(|name| name.to_uppercase()).collect()];
    let cell = |row: &Json, name: &str| match &row[name] {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    lines.extend(rows.iter().map(|row| COLUMNS.iter().map(|name| cell(row, name)).collect()));
    let width = |column: usize| {
        let longest = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        (longest + 3).max(12)
    };
    let widths: Vec<usize> = (0..COLUMNS.len() - 1).map(width).chain([0]).collect();
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_runc() {
        let row = serde_json::json!({
            "id": "a-rather-long-name", "pid": 7, "status": "running", "bundle": "/b", "created": "T", "owner": "root",
        });
        assert_eq!(
            table(&[row]),
            "ID                   PID         STATUS      BUNDLE      CREATED     OWNER\n\
             a-rather-long-name   7           running     /b          T           root\n"
        );
    }
}
