//! How the commands speak to the person at the terminal: headings, progress, tables.

use std::io::IsTerminal;

/// A part of the work begins.
pub fn heading(text: &str) {
    println!("\n{}", emphasised(text));
}

/// One thing that was done or is being done.
pub fn step(text: &str) {
    println!("   {text}");
}

/// What stopped us.
pub fn trouble(text: &str) {
    eprintln!("\ncargo xtask: {text}");
}

/// Prints rows under headings, each column as wide as its widest cell.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    println!("   {}", emphasised(&line(&headings.iter().map(|&heading| heading.to_owned()).collect::<Vec<_>>())));
    for row in rows {
        println!("   {}", line(row));
    }
}

fn emphasised(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
