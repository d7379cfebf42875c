//! The conversation as lines of one notation (`docs/transcript.md`), for a file that a user can send us and for the debug log.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Writes each line as it happens. What is given to it must already be free of secrets.
#[derive(Debug, Default)]
pub struct Transcript {
    file: RefCell<Option<File>>,
}

impl Transcript {
    /// Lines go to the debug log only.
    pub fn log_only() -> Self {
        Self::default()
    }

    /// Lines go to this file too. It is created, or emptied; an error to do so is the caller's to report.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        writeln!(file, "# dps-agent {} transcript 1", env!("CARGO_PKG_VERSION"))?;
        Ok(Self { file: RefCell::new(Some(file)) })
    }

    /// One line. A file that cannot be written is given up with a warning: the conversation is worth more than its protocol.
    pub fn line(&self, line: fmt::Arguments<'_>) {
        tracing::debug!(target: "dps_agent::transcript", "{line}");
        let mut file = self.file.borrow_mut();
        if let Some(open) = file.as_mut() {
            if let Err(error) = writeln!(open, "{line}") {
                tracing::warn!("the transcript ends here: {error}");
                *file = None;
            }
        }
    }
}
