//! Words for people, JSON for machines, logs for whoever looks for a cause.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tracing::Subscriber;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::blame::Blame;
use crate::failure::Failure;

/// Logs go to stderr; where that is the journal (`$JOURNAL_STREAM`), to its own socket, with fields. `RUST_LOG` is a list of `level`
/// and `target=level`; without it a daemon tells more than a verb.
pub fn start_logging(daemon: bool, environment: &dyn Fn(&str) -> Option<String>) {
    let usual = if daemon { LevelFilter::INFO } else { LevelFilter::WARN };
    let (filter, wrong) = match environment("RUST_LOG").map(|text| text.parse::<Targets>()) {
        None => (Targets::new().with_default(usual), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (Targets::new().with_default(usual), Some(error)),
    };
    let journal = environment("JOURNAL_STREAM").filter(|stream| is_stderr(stream)).and_then(|_| journal());
    let lines = journal.is_none().then(|| lines(daemon && !io::stderr().is_terminal()));
    let started = tracing_subscriber::registry().with(lines).with(journal).with(filter).try_init();
    if let (Ok(()), Some(error)) = (started, wrong) {
        tracing::warn!("RUST_LOG is ignored: {error}; write a level, or TARGET=LEVEL,…");
    }
}

/// Plain text: the message alone, since it holds all that a person wants of the fields.
fn lines<S: Subscriber + for<'s> LookupSpan<'s>>(stamped_elsewhere: bool) -> Box<dyn Layer<S> + Send + Sync> {
    let message_only = format::debug_fn(|line, field, value| match field.name() {
        "message" => write!(line, "{value:?}"),
        _ => Ok(()),
    });
    // The subscriber tells of its own failures with eprintln!, which panics where stderr is the failure.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false);
    let lines = lines.log_internal_errors(false).fmt_fields(message_only);
    if stamped_elsewhere { lines.without_time().boxed() } else { lines.boxed() }
}

/// The journal's own protocol; `None` where nobody listens to it.
fn journal() -> Option<tracing_journald::Layer> {
    let levels = PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    let journal = tracing_journald::layer().ok()?;
    Some(journal.with_field_prefix(None).with_syslog_identifier("dps-agent".to_owned()).with_priority_mappings(levels))
}

/// Whether stderr is this stream, `DEVICE:INODE`. A program that redirects us leaves the variable as it was.
fn is_stderr(stream: &str) -> bool {
    let ours = io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    ours.is_ok_and(|ours| format!("{}:{}", ours.dev(), ours.ino()) == stream)
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
