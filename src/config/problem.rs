//! What is wrong with a configuration, and where: all of it at once, each with its cure.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Where a value came from, or where a problem lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A place in a file. Line and column count from 1, columns in characters.
    Line {
        /// The file, as it was opened.
        path: PathBuf,
        /// The line of the value.
        line: usize,
        /// The column of the value.
        column: usize,
    },
    /// A file as a whole: something is missing from it, or it cannot be read. Only problems have this origin.
    File(PathBuf),
    /// An environment variable.
    Environment(&'static str),
    /// Nobody wrote it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The key a problem is about; either half may be empty (a whole table; a key outside of any table).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyName {
    /// The table, without brackets.
    pub table: String,
    /// The key within it.
    pub key: String,
}

impl KeyName {
    /// `dps.host`, as tools write it.
    pub fn dotted(&self) -> String {
        let halves = [self.table.as_str(), self.key.as_str()];
        halves.into_iter().filter(|half| !half.is_empty()).collect::<Vec<_>>().join(".")
    }
}

/// `[dps] host`, as the file has it.
impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.table.as_str(), self.key.as_str()) {
            ("", key) => f.write_str(key),
            (table, "") => write!(f, "[{table}]"),
            (table, key) => write!(f, "[{table}] {key}"),
        }
    }
}

/// One thing that is wrong, or doubtful: `FILE:LINE: KEY: what is wrong; the cure`.
///
/// Free text of the operator is not quoted in it: people paste keys and connection strings into the wrong line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// Which key, if it is about one.
    pub key: Option<KeyName>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// `{"file", "line", "column", "key", "message"}`; what is unknown, as the file is for a problem in the environment, is `null`.
    pub fn to_json(&self) -> Value {
        let (file, line, column) = match &self.origin {
            Origin::Line { path, line, column } => (Some(path.display().to_string()), Some(*line), Some(*column)),
            Origin::File(path) => (Some(path.display().to_string()), None, None),
            Origin::Environment(_) | Origin::Default => (None, None, None),
        };
        let key = self.key.as_ref().map(KeyName::dotted);
        json!({ "file": file, "line": line, "column": column, "key": key, "message": self.message })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, one problem per line, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// The problems: file by file as they are read, then what the files together lack or contradict.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let end_of_line = if n == 0 { "" } else { "\n" };
            write!(f, "{end_of_line}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Proof that a problem was reported: whoever cannot return a value returns this, so no failure goes without its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported(());

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Writes one down.
    pub(super) fn add(&mut self, problem: Problem) -> Reported {
        self.problems.push(problem);
        Reported(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The errors, given the proof that there is one.
    pub(super) fn into_errors(self, _: Reported) -> ConfigErrors {
        ConfigErrors(self.problems)
    }

    /// Itself if nothing was reported.
    pub(super) fn verdict(self) -> Result<Self, ConfigErrors> {
        if self.is_empty() { Ok(self) } else { Err(ConfigErrors(self.problems)) }
    }
}
