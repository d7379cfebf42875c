//! What a command prints: for people as a table, for programs as JSON, JSON lines or CSV.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::{Blame, Failure};

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// One JSON text
    Json,
    /// A JSON object on each line
    Jsonl,
    /// Comma-separated values, with a line of column names
    Csv,
}

impl Format {
    /// Whether the output is for programs.
    pub fn is_for_programs(self) -> bool {
        self != Self::Table
    }
}

/// A column: its name, and where its value is in a record.
pub type Column = (&'static str, &'static str);

/// A list of records; table and CSV show these columns, JSON all.
pub fn list(records: &[Value], columns: &[Column], format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => write(&table(records, columns)),
        Format::Json => write(&format!("{}\n", pretty(&Value::Array(records.to_vec())))),
        Format::Jsonl => write(&records.iter().map(|record| format!("{record}\n")).collect::<String>()),
        Format::Csv => write(&csv_of(records, columns)?),
    }
}

/// One record. A table of one would hide most of it, so people get each member on a line.
pub fn one(record: &Value, columns: &[Column], format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => write(&members("", record)),
        Format::Json => write(&format!("{}\n", pretty(record))),
        Format::Jsonl => write(&format!("{record}\n")),
        Format::Csv => write(&csv_of(std::slice::from_ref(record), columns)?),
    }
}

/// Text on stdout. A reader that has gone away, such as `head`, is no failure.
pub fn write(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Blame::Unwritable, format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn pretty(value: &Value) -> String {
    // A value has no keys but strings, so this cannot fail.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn cell(record: &Value, pointer: &str) -> String {
    match record.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn table(records: &[Value], columns: &[Column]) -> String {
    let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows = records.iter().map(|record| columns.iter().map(|(_, pointer)| printable(&cell(record, pointer))).collect());
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn members(prefix: &str, value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let name = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            object.iter().map(|(member, value)| members(&name(member), value)).collect()
        }
        Value::String(text) => format!("{prefix:40} {}\n", printable(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => format!("{prefix:40} {value}\n"),
    }
}

fn csv_of(records: &[Value], columns: &[Column]) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Failure::new(Blame::Unwritable, format!("cannot write CSV: {error}"));
    writer.write_record(columns.iter().map(|(name, _)| name)).map_err(failed)?;
    for record in records {
        writer.write_record(columns.iter().map(|(_, pointer)| cell(record, pointer))).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::new(Blame::Unwritable, format!("cannot write CSV: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What somebody else wrote, on one line of a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] = &[("id", "/id"), ("kind", "/a/type")];

    #[test]
    fn a_table_lines_up_and_holds_no_control_characters() {
        let records = [json!({ "id": "gw-0001", "a": { "type": "tpm" } }), json!({ "id": "g\u{1b}[31m" })];
        assert_eq!(table(&records, COLUMNS), "id       kind\ngw-0001  tpm\ng[31m\n");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let records = [json!({ "id": "a,b", "a": { "type": "x\"y" } })];
        assert_eq!(csv_of(&records, COLUMNS).unwrap(), "id,kind\n\"a,b\",\"x\"\"y\"\n");
    }

    #[test]
    fn one_record_has_a_line_for_each_member() {
        let text = members("", &json!({ "a": { "b": true }, "c": "d" }));
        assert_eq!(text, format!("{:40} true\n{:40} d\n", "a.b", "c"));
    }
}
