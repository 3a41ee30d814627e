//! Lists as Docker prints them: aligned columns, one JSON object a line, or a template.

use crate::error::Result;
use crate::template::{HEADS, Template};
use serde_json::{Map, Value};
use std::io::Write;

/// One column: its head and the field that it shows.
pub type Column = (&'static str, &'static str);

/// A list of rows, each a map from field to text.
pub struct List {
    columns: Vec<Column>,
    extra: Vec<Column>,
    rows: Vec<Map<String, Value>>,
    quiet_field: &'static str,
}

/// What the user wants to see of a list.
#[derive(Debug, Clone, Default)]
pub struct Shape<'a> {
    /// `--format`.
    pub format: Option<&'a str>,
    /// `--quiet`.
    pub quiet: bool,
}

impl List {
    /// A list with the columns of its default table. `quiet_field` is what `--quiet` prints.
    pub fn new(columns: &[Column], quiet_field: &'static str) -> List {
        List { columns: columns.to_vec(), extra: Vec::new(), rows: Vec::new(), quiet_field }
    }

    /// Heads of fields that are only in templates.
    #[must_use]
    pub fn with_fields(mut self, fields: &[Column]) -> List {
        self.extra.extend_from_slice(fields);
        self
    }

    /// Adds a row.
    pub fn push<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, String)>) {
        self.rows.push(fields.into_iter().map(|(k, v)| (k.to_owned(), Value::String(v))).collect());
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The list as text.
    pub fn render(&self, shape: &Shape<'_>) -> Result<String> {
        let format = shape.format.unwrap_or("table");
        if shape.quiet && matches!(format, "table") {
            return Ok(self
                .rows
                .iter()
                .map(|row| format!("{}\n", plain(row.get(self.quiet_field))))
                .collect());
        }
        match format {
            "json" => Ok(self.rows.iter().map(|row| format!("{}\n", public(row))).collect()),
            "table" | "" => {
                let cells = |row: &Map<String, Value>| -> Vec<String> {
                    self.columns.iter().map(|(_, field)| plain(row.get(*field))).collect()
                };
                let mut lines = vec![self.columns.iter().map(|(head, _)| (*head).to_owned()).collect()];
                lines.extend(self.rows.iter().map(cells));
                Ok(align(&lines))
            }
            other => self.render_template(other),
        }
    }

    fn render_template(&self, format: &str) -> Result<String> {
        let table = format.strip_prefix("table ").map(str::trim);
        let text = table.unwrap_or(format).replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&text)?;
        let mut lines = Vec::new();
        if table.is_some() {
            let heads = self.columns.iter().chain(&self.extra);
            let mut heads: Map<String, Value> =
                heads.map(|(head, field)| ((*field).to_owned(), Value::String((*head).to_owned()))).collect();
            heads.insert(HEADS.to_owned(), Value::Bool(true));
            lines.push(template.run(&Value::Object(heads))?);
        }
        for row in &self.rows {
            lines.push(template.run(&public(row))?);
        }
        if table.is_some() {
            let cells: Vec<Vec<String>> =
                lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
            return Ok(align(&cells));
        }
        Ok(lines.into_iter().map(|line| line + "\n").collect())
    }

    /// Prints the list.
    pub fn print(&self, shape: &Shape<'_>) -> Result<()> {
        out(&self.render(shape)?);
        Ok(())
    }
}

/// The fields that are the user's; those that begin with `_` only serve a column of the default table.
fn public(row: &Map<String, Value>) -> Value {
    Value::Object(
        row.iter().filter(|(key, _)| !key.starts_with('_')).map(|(k, v)| (k.clone(), v.clone())).collect(),
    )
}

fn plain(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Columns are at least this wide, with the space after them (Docker's tabwriter has minwidth 10, padding 3).
const MIN_COLUMN: usize = 10;
/// Space between columns.
const PADDING: usize = 3;

/// Aligns columns as Go's tabwriter does for Docker; control characters of names from outside are not sent to the terminal.
pub fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widest = lines.iter().filter(|l| column + 1 < l.len()).map(|l| l[column].chars().count()).max();
        (widest.unwrap_or(0) + PADDING).max(MIN_COLUMN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&cell);
            if column + 1 < line.len() {
                text.push_str(&" ".repeat(widths[column] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

/// Writes to stdout; a reader that went away ends the command quietly, as for every filter.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(141);
    }
}

/// Writes a line to stdout.
pub fn line(text: &str) {
    out(&format!("{text}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> List {
        let mut list =
            List::new(&[("ID", "_shown"), ("NAME", "Name")], "ID").with_fields(&[("SIZE", "Size")]);
        for (id, name, size) in [("1", "one", "3B"), ("22", "two", "4B")] {
            let fields = [("ID", id), ("_shown", id), ("Name", name), ("Size", size)];
            list.push(fields.map(|(field, text)| (field, text.to_owned())));
        }
        list
    }

    fn render(format: Option<&str>, quiet: bool) -> String {
        sample().render(&Shape { format, quiet }).unwrap()
    }

    #[test]
    fn a_table_has_dockers_column_widths() {
        assert_eq!(render(None, false), "ID        NAME\n1         one\n22        two\n");
    }

    #[test]
    fn every_shape_prints() {
        assert_eq!(render(None, true), "1\n22\n");
        assert_eq!(render(Some("{{.Name}}"), false), "one\ntwo\n");
        assert_eq!(
            render(Some("table {{.Name}}\\t{{.Size}}"), false),
            "NAME      SIZE\none       3B\ntwo       4B\n"
        );
        assert_eq!(
            render(Some("json"), false).lines().next(),
            Some(r#"{"ID":"1","Name":"one","Size":"3B"}"#)
        );
        assert_eq!(render(Some("{{json .Name}}"), false), "\"one\"\n\"two\"\n");
    }
}
