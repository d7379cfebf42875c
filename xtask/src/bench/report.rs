//! The tables that the bench prints, and `docs/performance.md` that keeps them.

use std::fmt::Write as _;

use crate::say;

/// One measurement's result.
#[derive(Debug, Clone)]
pub struct Table {
    pub title: &'static str,
    /// How it was measured and how far it may be trusted.
    pub note: &'static str,
    pub headings: &'static [&'static str],
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn print(&self) {
        say::heading(self.title);
        say::table(self.headings, &self.rows);
    }
}

/// Everything that was measured in one run.
#[derive(Debug)]
pub struct Report {
    command: String,
    tables: Vec<Table>,
}

impl Report {
    /// `arguments` are those of `cargo xtask bench`.
    pub fn new(arguments: &[String]) -> Self {
        let command = ["cargo xtask bench"].into_iter().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        Self { command, tables: Vec::new() }
    }

    pub fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Performance\n\n");
        let _infallible = writeln!(
            text,
            "Made by `{}`, which measures the agent and Microsoft's Python (azure-iot-device) and Node (azure-iot-provisioning-device)\n\
             clients in the same run, by turns, pinned to the same CPU, against the same emulator on a private loopback. Nothing here has\n\
             been measured against the live service. Processor: {}.\n",
            self.command,
            processor()
        );
        for table in &self.tables {
            let _infallible = write!(text, "## {}\n\n", table.title);
            if !table.note.is_empty() {
                let _infallible = write!(text, "{}\n\n", table.note);
            }
            row(&mut text, table.headings.iter().copied());
            row(&mut text, table.headings.iter().map(|_| "---"));
            for cells in &table.rows {
                row(&mut text, cells.iter().map(String::as_str));
            }
            text.push('\n');
        }
        text.trim_end().to_owned() + "\n"
    }
}

fn row<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>) {
    let _infallible = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
}

fn processor() -> String {
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}
