//! Words for people, JSON for machines, logs for whoever looks for a cause.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::blame::Blame;
use crate::failure::Failure;

/// Logs go to stderr. `RUST_LOG` is a list of `level` and `target=level`; without it a daemon tells more than a verb.
pub fn start_logging(daemon: bool, wanted: Option<String>) {
    let usual = if daemon { LevelFilter::INFO } else { LevelFilter::WARN };
    let (filter, wrong) = match wanted.map(|text| text.parse::<Targets>()) {
        None => (Targets::new().with_default(usual), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (Targets::new().with_default(usual), Some(error)),
    };
    // The subscriber tells of its own failures with eprintln!, which panics where stderr is the failure.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false).log_internal_errors(false);
    // A journal stamps each line itself.
    let started = if daemon && !io::stderr().is_terminal() {
        tracing_subscriber::registry().with(lines.without_time()).with(filter).try_init()
    } else {
        tracing_subscriber::registry().with(lines).with(filter).try_init()
    };
    if let (Ok(()), Some(error)) = (started, wrong) {
        tracing::warn!("RUST_LOG is ignored: {error}; write a level, or TARGET=LEVEL,…");
    }
}

/// Text on stdout. A reader that has gone away is no reason to fail; an answer that a full disk has swallowed is.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Blame::Storage, format!("the answer cannot be written to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A line on stderr. Nobody may listen there any more, and the exit code says it too.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Where a person watches, the line that tells what goes on has no end of its own.
pub fn end_line() {
    if io::stderr().is_terminal() {
        complain("");
    }
}

/// One JSON object on one line.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// Tells of a failure and returns its exit code.
pub fn failed(failure: &Failure, json: bool) -> u8 {
    let told = if json { print_json(&failure.to_json()) } else { Err(failure.clone()) };
    if let Err(words) = told {
        complain(&format!("dps-agent: {words}"));
    }
    failure.blame.exit_code()
}
