//! A command's bad end: whose fault it is, the exit code (sysexits(3)), and words with the cure.

use std::fmt;

use serde_json::{Value, json};

use crate::permission::Lack;

/// Whose fault it was. The words stand in `docs/factory.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Not every device is enrolled as it was asked.
    Incomplete,
    /// The command line is wrong.
    Usage,
    /// What was read is wrong: identities, keys, a JSON text.
    Input,
    /// The service refuses for good.
    Refused,
    /// A file or directory cannot be written.
    Unwritable,
    /// Nobody could be reached, or the service is busy for longer than our patience.
    Network,
    /// The certificate of whoever answered is not to be trusted.
    Untrusted,
    /// No token or key could be had, or its file cannot be used.
    Credential,
    /// The service answered 401 or 403.
    Unauthorized,
}

impl Blame {
    /// The exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Incomplete => 1,
            Self::Usage => 64,
            Self::Input => 65,
            Self::Refused => 69,
            Self::Unwritable => 73,
            Self::Network => 75,
            Self::Untrusted => 76,
            Self::Credential | Self::Unauthorized => 77,
        }
    }

    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Usage => "usage",
            Self::Input => "input",
            Self::Refused => "refused",
            Self::Unwritable => "unwritable",
            Self::Network => "network",
            Self::Untrusted => "untrusted",
            Self::Credential => "credential",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// What ends a command.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Whose fault it is.
    pub blame: Blame,
    /// What happened and what to do; several lines if several things are wrong.
    pub message: String,
    /// What the service answered, if it did.
    pub answer: Option<Answer>,
    /// The permission that is missing, if that is it.
    pub lack: Option<Lack>,
}

/// What of an answer of the service helps to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The service's own error code, such as 404201.
    pub error_code: Option<i64>,
    /// The key into the logs of the service.
    pub tracking_id: Option<String>,
}

impl Failure {
    /// A failure that no answer of the service came with.
    pub fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), answer: None, lack: None }
    }

    /// `{"error": {…}}`, as `docs/factory.md` lists it.
    pub fn to_json(&self) -> Value {
        json!({ "error": {
            "exitCode": self.blame.exit_code(),
            "blame": self.blame.word(),
            "message": self.message,
            "status": self.answer.as_ref().map(|answer| answer.status),
            "errorCode": self.answer.as_ref().and_then(|answer| answer.error_code),
            "trackingId": self.answer.as_ref().and_then(|answer| answer.tracking_id.as_deref()),
            "permission": self.lack.as_ref().map(|lack| lack.permission.data_action()),
            "builtInRole": self.lack.as_ref().map(|lack| lack.permission.built_in_role().name()),
        } })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
